package faults

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// nodeScenarios are those in which processes of nodes die or hang.
func nodeScenarios() []Scenario {
	return []Scenario{
		{Name: "kill-coordinator", About: "kill −9 of a coordinator, which comes back with its disk", Slice: true, Silence: 2 * time.Second,
			Run: repeat(5, killOne(false))},
		{Name: "kill-wiped", About: "kill −9 of a coordinator, which comes back without its disk", Slice: true, Silence: 2 * time.Second,
			Run: repeat(4, killOne(true))},
		{Name: "kill-five", About: "kill −9 of two coordinators of five nodes at once", Nodes: 5, Silence: 5 * time.Second,
			Run: repeat(3, killTwo)},
		{Name: "sigterm", About: "SIGTERM of one node after the other: a rolling restart", Slice: true, Silence: 2 * time.Second,
			Run: rolling},
		{Name: "sigstop-1s", About: "SIGSTOP of a coordinator for 1 s", Slice: true, Silence: 4 * time.Second, Run: repeat(4, freeze(time.Second))},
		{Name: "sigstop-10s", About: "SIGSTOP of a coordinator for 10 s", Silence: 4 * time.Second, Run: repeat(2, freeze(10*time.Second))},
		{Name: "kill-all", About: "kill −9 of all nodes at once", Run: repeat(3, killAll(false))},
		{Name: "kill-all-wiped", About: "kill −9 of all nodes at once, all disks lost", Run: repeat(2, killAll(true))},
		{Name: "kill-random", About: "kill −9 of whatever node, again and again, some while another is not back yet", Run: repeat(70, killSome)},
		{Name: "sigterm-five", About: "SIGTERM of two of five nodes at once", Nodes: 5, Silence: 4 * time.Second, Run: repeat(2, twoOfFive("SIGTERM"))},
		{Name: "sigstop-five", About: "SIGSTOP of two of five nodes at once for 5 s", Nodes: 5, Silence: 6 * time.Second, Run: repeat(2, twoOfFive("SIGSTOP"))},
		{Name: "sigterm-all", About: "SIGTERM of all nodes at once", Run: repeat(2, stopAll)},
		{Name: "away-long", About: "a node stays away while the others go on, and comes back with its disk", Run: awayLong},
		{Name: "away-hour", About: "a node comes back after as many records as the load writes in an hour", Settle: 5 * time.Minute,
			Load: fewReaders, Run: awayHour},
	}
}

// step is one round of a scenario.
type step func(ctx context.Context, r *Rig) error

// repeat does a step n times, with some time in between.
func repeat(n int, f step) step {
	return func(ctx context.Context, r *Rig) error {
		for range n {
			if err := r.Pause(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
				return err
			}
			if err := f(ctx, r); err != nil {
				return err
			}
		}
		return r.Sleep(ctx, time.Second)
	}
}

func killOne(wiped bool) step {
	return func(ctx context.Context, r *Rig) error {
		i, err := r.Coordinator(ctx)
		if err != nil {
			return err
		}
		r.Note("kill %s", r.Nodes.Name(i))
		r.Nodes.Kill(i)
		r.Kills++
		if err := r.Pause(ctx, 0, 3*time.Second); err != nil {
			return err
		}
		return restart(ctx, r, wiped, i)
	}
}

func restart(ctx context.Context, r *Rig, wiped bool, nodes ...int) error {
	for _, i := range nodes {
		if wiped {
			if err := r.Nodes.Wipe(i); err != nil {
				return err
			}
		}
		r.Note("start %s", r.Nodes.Name(i))
		if err := r.Nodes.Start(i); err != nil {
			return err
		}
	}
	if err := r.Nodes.WaitReady(ctx); err != nil {
		return err
	}
	r.Note("all ready")
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}

func killTwo(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	j := (i + 1 + r.Rand.IntN(r.Nodes.Len()-1)) % r.Nodes.Len()
	r.Note("kill %s and %s", r.Nodes.Name(i), r.Nodes.Name(j))
	r.Nodes.Kill(i)
	r.Nodes.Kill(j)
	r.Kills += 2
	if err := r.Pause(ctx, 0, 5*time.Second); err != nil {
		return err
	}
	return restart(ctx, r, false, i, j)
}

func rolling(ctx context.Context, r *Rig) error {
	for _, i := range r.Some(r.Nodes.Len()) {
		if err := r.Pause(ctx, time.Second, 2*time.Second); err != nil {
			return err
		}
		r.Note("SIGTERM %s", r.Nodes.Name(i))
		if err := r.Nodes.Stop(i); err != nil {
			return err
		}
		r.Note("%s has ended", r.Nodes.Name(i))
		if err := restart(ctx, r, false, i); err != nil {
			return err
		}
	}
	return r.Sleep(ctx, time.Second)
}

func freeze(d time.Duration) step {
	return func(ctx context.Context, r *Rig) error {
		i, err := r.Coordinator(ctx)
		if err != nil {
			return err
		}
		r.Note("SIGSTOP %s for %v", r.Nodes.Name(i), d)
		r.Nodes.Freeze(i)
		err = r.Sleep(ctx, d)
		r.Note("SIGCONT %s", r.Nodes.Name(i))
		r.Nodes.Thaw(i)
		if err != nil {
			return err
		}
		if err := r.Nodes.WaitReady(ctx); err != nil {
			return err
		}
		return r.Nodes.Settled(ctx, r.Topic, r.Parts)
	}
}

func killAll(wiped bool) step {
	return func(ctx context.Context, r *Rig) error {
		all := r.Some(r.Nodes.Len())
		r.Note("kill all, in the order %v", all)
		for _, i := range all {
			r.Nodes.Kill(i)
			r.Kills++
		}
		if err := r.Pause(ctx, 0, 2*time.Second); err != nil {
			return err
		}
		return restart(ctx, r, wiped, all...)
	}
}

// killSome kills a node, and sometimes another one before the first is ready again, so that for a moment no
// majority may be left.
func killSome(ctx context.Context, r *Rig) error {
	i := r.Rand.IntN(r.Nodes.Len())
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	if err := r.Pause(ctx, 0, time.Second); err != nil {
		return err
	}
	wiped := r.Rand.IntN(5) == 0
	if wiped {
		r.Note("%s loses its disk", r.Nodes.Name(i))
		if err := r.Nodes.Wipe(i); err != nil {
			return err
		}
	}
	if err := r.Nodes.Start(i); err != nil {
		return err
	}
	if r.Rand.IntN(3) == 0 && !wiped { // a wiped one counts as lost until it is back: two at once is another scenario
		j := (i + 1) % r.Nodes.Len()
		if err := r.Pause(ctx, 0, time.Second); err != nil {
			return err
		}
		r.Note("kill %s", r.Nodes.Name(j))
		r.Nodes.Kill(j)
		r.Kills++
		if err := r.Nodes.Start(j); err != nil {
			return err
		}
	}
	if err := r.Nodes.WaitReady(ctx); err != nil {
		return err
	}
	r.Note("all ready")
	return nil
}

// twoOfFive takes a coordinator and another node away at once, and brings them back.
func twoOfFive(signal string) step {
	return func(ctx context.Context, r *Rig) error {
		i, err := r.Coordinator(ctx)
		if err != nil {
			return err
		}
		j := (i + 1 + r.Rand.IntN(r.Nodes.Len()-1)) % r.Nodes.Len()
		r.Note("%s %s and %s", signal, r.Nodes.Name(i), r.Nodes.Name(j))
		if signal == "SIGTERM" {
			if err := errors.Join(r.Nodes.StopAll(i, j), r.Pause(ctx, 0, 2*time.Second)); err != nil {
				return err
			}
			return restart(ctx, r, false, i, j)
		}
		r.Nodes.Freeze(i)
		r.Nodes.Freeze(j)
		err = r.Sleep(ctx, 5*time.Second)
		r.Note("SIGCONT")
		r.Nodes.Thaw(i)
		r.Nodes.Thaw(j)
		return errors.Join(err, r.Nodes.WaitReady(ctx), r.Nodes.Settled(ctx, r.Topic, r.Parts))
	}
}

func stopAll(ctx context.Context, r *Rig) error {
	all := r.Some(r.Nodes.Len())
	r.Note("SIGTERM all")
	if err := r.Nodes.StopAll(all...); err != nil {
		return err
	}
	r.Note("all have ended")
	if err := r.Pause(ctx, 0, 2*time.Second); err != nil {
		return err
	}
	return restart(ctx, r, false, all...)
}

// fewReaders is for scenarios that write so much that every further reader costs seconds.
func fewReaders(o *verify.Options) {
	o.KeySubs, o.Roamers, o.SlowSubs, o.Histories = 2, 1, -1, -1
}

// hour is how many records the load writes in an hour, at its usual rate.
const hour = 200 * 3600

func awayHour(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	r.Note("write %d records", hour)
	for range 20 { // in parts, so that Kafka and the nodes do the other work too
		if err := r.Load.Burst(ctx, hour/20, 0); err != nil {
			return err
		}
	}
	return errors.Join(restart(ctx, r, false, i), r.Sleep(ctx, 2*time.Second))
}

// calm takes every processor with something else that runs as Tidewire does, and demands that leaderships stay
// where they are.
func calm(d time.Duration) step {
	return func(ctx context.Context, r *Rig) error {
		if err := errors.Join(r.Nodes.Settled(ctx, r.Topic, r.Parts), r.Sleep(ctx, 5*time.Second)); err != nil {
			return err
		}
		before, err := r.Nodes.Terms(ctx)
		if err != nil {
			return err
		}
		stop, err := burn(r.Nodes.dir, runtime.NumCPU(), d)
		if err != nil {
			return err
		}
		r.Note("%d processes take all time that they get, for %v", runtime.NumCPU(), d)
		err = r.Sleep(ctx, d)
		stop()
		if err != nil {
			return err
		}
		after, err := r.Nodes.Terms(ctx)
		if err != nil {
			return err
		}
		r.Note("terms of the groups: %v, then %v", before, after)
		if !slices.Equal(before, after) {
			return fmt.Errorf("leaders changed although every node lived: terms %v, then %v", before, after)
		}
		return nil
	}
}

func awayLong(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	return errors.Join(r.Sleep(ctx, 45*time.Second), restart(ctx, r, false, i), r.Sleep(ctx, 2*time.Second))
}
