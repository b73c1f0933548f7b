package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// speedScenarios measure how long subscribers on living nodes wait for a record after a coordinator has died,
// at 500 records a second, with few clients, so that as little as can be of the machine is theirs; and that
// nobody is taken for dead who is not. They are the last ones, for they want a machine of their own.
func speedScenarios() []Scenario {
	light := func(o *verify.Options) {
		o.Rate, o.PublishRate, o.Publishers, o.KeySubs = 500, 10, 2, 3
		o.Roamers, o.SlowSubs, o.Histories, o.CutEvery = -1, -1, -1, -1
	}
	return []Scenario{
		{Name: "speed-kill", About: "kill −9 of a coordinator, 50 times, at 500 records/s", Load: light,
			Run: rounds(50, "kill −9", func(ctx context.Context, r *Rig, i int) error {
				r.Nodes.Kill(i)
				r.Kills++
				return nil
			}), Measure: silencesOf("kill −9", goal{median: 200 * time.Millisecond, worst: 500 * time.Millisecond})},
		{Name: "speed-sigterm", About: "SIGTERM of a coordinator, 15 times, at 500 records/s", Load: light,
			Run:     rounds(15, "SIGTERM", func(_ context.Context, r *Rig, i int) error { return r.Nodes.Stop(i) }),
			Measure: silencesOf("SIGTERM", goal{worst: 100 * time.Millisecond})},
		{Name: "speed-sigstop", About: "SIGSTOP of a coordinator for 4 s, 10 times, at 500 records/s", Load: light,
			Run: rounds(10, "SIGSTOP", func(ctx context.Context, r *Rig, i int) error {
				r.Nodes.Freeze(i)
				err := r.Sleep(ctx, 4*time.Second)
				r.Nodes.Thaw(i)
				return err
			}), Measure: silencesOf("SIGSTOP", goal{worst: 2 * time.Second})},
		{Name: "calm", About: "ten minutes with every processor taken: no leader may change", Settle: 2 * time.Minute, Run: calm(10 * time.Minute)},
	}
}

// afterwards is how long after an event a silence still counts as its consequence.
const afterwards = 3 * time.Second

// rounds takes a coordinator away n times, each time when leaderships are back where they belong, and brings
// it back. What happens meanwhile is marked with kind, and "back" for its return.
func rounds(n int, kind string, take func(ctx context.Context, r *Rig, i int) error) step {
	return func(ctx context.Context, r *Rig) error {
		for range n {
			if err := r.Pause(ctx, time.Second, 1500*time.Millisecond); err != nil {
				return err
			}
			i, err := r.Coordinator(ctx)
			if err != nil {
				return err
			}
			r.Note("%s %s", kind, r.Nodes.Name(i))
			from := r.Load.Now()
			if err := take(ctx, r, i); err != nil {
				return err
			}
			if err := r.Sleep(ctx, max(0, afterwards-(r.Load.Now()-from))); err != nil {
				return err
			}
			back := r.Load.Now()
			r.Marks = append(r.Marks, Mark{kind, from, back})
			if err := r.Nodes.Start(i); err != nil {
				return err
			}
			if err := r.Nodes.WaitReady(ctx); err != nil {
				return err
			}
			if err := r.Nodes.Settled(ctx, r.Topic, r.Parts); err != nil {
				return err
			}
			r.Marks = append(r.Marks, Mark{"back", back, r.Load.Now()})
		}
		return r.Sleep(ctx, time.Second)
	}
}

// goal is how long subscribers whose node lives may have to wait; zero: there is none.
type goal struct{ median, worst time.Duration }

// silencesOf makes figures of the longest silence in each mark of a kind, held against the goal, and of those while
// the node comes back.
func silencesOf(kind string, g goal) func(r *Rig, h verify.History) []Figure {
	return func(r *Rig, h verify.History) []Figure {
		all := verify.Silences(h, 0, h.End)
		return []Figure{
			g.figure("longest silence after "+kind, longestIn(all, r.Marks, kind)),
			goal{}.figure("longest silence while the node comes back and leaderships return", longestIn(all, r.Marks, "back")),
		}
	}
}

// longestIn returns the longest silence in each mark of a kind, shortest first.
func longestIn(all []verify.Silence, marks []Mark, kind string) (longest []time.Duration) {
	for _, m := range marks {
		if m.Kind != kind {
			continue
		}
		var l time.Duration
		for _, s := range all {
			// It belongs to the mark in which it began; what was sent just before may be its beginning.
			if s.From >= m.From-50*time.Millisecond && s.From < m.To && s.From+s.For > m.From {
				l = max(l, s.For)
			}
		}
		longest = append(longest, l)
	}
	slices.Sort(longest)
	return longest
}

// figure tells of silences, shortest first, and by how much the goal was met or missed. Without any nothing was
// measured, which is no success.
func (g goal) figure(name string, of []time.Duration) Figure {
	f := Figure{Name: name, Value: "none"}
	if len(of) == 0 {
		f.Breach = "nothing was measured"
		return f
	}
	median, worst := of[len(of)/2], of[len(of)-1]
	f.Value = fmt.Sprintf("median %v, 90%% %v, worst %v of %d", ms(median), ms(of[len(of)*9/10]), ms(worst), len(of))
	var met, missed []string
	for _, c := range []struct {
		what     string
		is, goal time.Duration
	}{{"median", median, g.median}, {"worst", worst, g.worst}} {
		switch {
		case c.goal == 0:
		case c.is > c.goal:
			missed = append(missed, fmt.Sprintf("%s ≤ %v missed by %v", c.what, c.goal, ms(c.is-c.goal)))
		default:
			met = append(met, fmt.Sprintf("%s ≤ %v met by %v", c.what, c.goal, ms(c.goal-c.is)))
		}
	}
	if told := slices.Concat(met, missed); len(told) > 0 {
		f.Value += "; goal: " + strings.Join(told, ", ")
	}
	if len(missed) > 0 {
		f.Breach = "the goal was missed"
	}
	return f
}
