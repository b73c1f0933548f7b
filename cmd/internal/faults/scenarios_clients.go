package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// clientScenarios are those in which it is the clients who make trouble.
func clientScenarios() []Scenario {
	return []Scenario{
		{Name: "thrown-out", About: "5,000 subscribers lose their node at once and resume on another", Slice: true, Resume: 5 * time.Second,
			Load: func(o *verify.Options) {
				o.Crowd, o.Rate, o.PublishRate, o.Publishers = crowd, 40, 5, 1
				o.KeySubs, o.Roamers, o.SlowSubs, o.Histories = 2, -1, -1, -1
			}, Run: repeat(2, throwOut)},
		{Name: "slow-readers", About: "ten readers at 1 KB/s, with a cache too small for them, while a coordinator is killed",
			Silence: 3 * time.Second, Settle: 2 * time.Minute,
			Load: func(o *verify.Options) { o.SlowSubs, o.SlowRate, o.Rate = 10, slowReader, 400 },
			Env:  []string{"TIDEWIRE_CACHE_BYTES=4MiB"}, Run: repeat(3, killOne(false)), Measure: slowness},
		{Name: "flood", About: "four clients publish as fast as they can without waiting for answers, while a coordinator is killed",
			Silence: 5 * time.Second, Settle: 3 * time.Minute, Load: fewReaders, Run: floodWhile(4, repeat(2, killOne(false)))},
	}
}

// throwOut kills the node on which the crowd is.
func throwOut(ctx context.Context, r *Rig) error {
	i, err := r.gathered(ctx, crowd)
	if err != nil {
		return err
	}
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	if err := r.Sleep(ctx, 8*time.Second); err != nil {
		return err
	}
	return restart(ctx, r, false, i)
}

// crowd is how many subscribers are thrown out at once. All begin on the first node, and all go to the second when
// that dies and back when the second does, for they try the same nodes in the same order.
const crowd = 5000

// gatherTime bounds how long a crowd may take to be on one node.
const gatherTime = 20 * time.Second

// gathered returns the node that has a crowd of so many clients, once there is one: with fewer on the node that is
// killed nothing is shown of that many.
func (r *Rig) gathered(ctx context.Context, crowd int64) (on int, err error) {
	ctx, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	var last []int64
	err = poll(ctx, func() error {
		var clients []int64
		for i := range r.Nodes.Len() {
			s, err := r.Nodes.Status(ctx, i)
			if err != nil {
				return err
			}
			clients = append(clients, s.Connections)
		}
		on, last = slices.Index(clients, slices.Max(clients)), clients
		if clients[on] < crowd {
			return errors.New("too few")
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("no node has the %d clients that are to be thrown out; they have %v: %w", crowd, last, err)
	}
	r.Note("the nodes have %v clients", last)
	return on, nil
}

// slowReader is how much a slow reader reads, in bytes a second.
const slowReader = 1024

// slowness tells how far the slow readers were behind when the load ended: if they were not, nothing was shown.
func slowness(r *Rig, h verify.History) []Figure {
	end := r.Events[len(r.Events)-1].At // of the load
	written := 0
	for _, w := range h.Written {
		if w.Outcome == verify.Committed && w.At <= end {
			written++
		}
	}
	var most int
	for _, s := range h.Subscribers {
		got := 0
		for i := range s.Events {
			if e := &s.Events[i]; e.Kind == verify.Msg && e.Time <= end {
				got++
			}
		}
		if s.Slow {
			most = max(most, got)
		}
	}
	f := Figure{Name: "records that the fastest slow reader had at the end of the load", Value: fmt.Sprintf("%d of %d", most, written)}
	if most > written/4 {
		f.Breach = "no slow reader"
	}
	return []Figure{f}
}
