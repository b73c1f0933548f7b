package faults

import (
	"context"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// clientScenarios are those in which it is the clients who make trouble.
func clientScenarios() []Scenario {
	return []Scenario{
		{Name: "thrown-out", About: "5,000 subscribers lose their node at once and resume on another", Slice: true, Resume: 5 * time.Second,
			Load: func(o *verify.Options) {
				o.Crowd, o.Rate, o.PublishRate, o.Publishers = 5000, 40, 5, 1
				o.KeySubs, o.Roamers, o.SlowSubs, o.Histories = 2, -1, -1, -1
			}, Run: repeat(2, throwOut)},
		{Name: "slow-readers", About: "ten readers at 1 KB/s, with a cache too small for them, while a coordinator is killed", Settle: 2 * time.Minute,
			Load: func(o *verify.Options) { o.SlowSubs, o.SlowRate, o.Rate = 10, 1024, 400 },
			Env:  []string{"TIDEWIRE_CACHE_BYTES=4MiB"}, Run: repeat(2, killOne(false))},
		{Name: "flood", About: "publishers that send as fast as they can, while a coordinator is killed",
			Load: func(o *verify.Options) { o.Publishers, o.PublishRate = 8, 800 }, Run: repeat(2, killOne(false))},
	}
}

// throwOut kills the node on which the crowd is.
func throwOut(ctx context.Context, r *Rig) error {
	i, err := r.crowded(ctx)
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

// crowded returns the node with most clients.
func (r *Rig) crowded(ctx context.Context) (most int, err error) {
	clients := int64(-1)
	for i := range r.Nodes.Len() {
		s, err := r.Nodes.Status(ctx, i)
		if err != nil {
			return 0, err
		}
		r.Note("%s has %d clients", r.Nodes.Name(i), s.Connections)
		if s.Connections > clients {
			most, clients = i, s.Connections
		}
	}
	return most, nil
}
