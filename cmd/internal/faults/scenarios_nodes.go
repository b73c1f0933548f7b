package faults

import (
	"context"
	"errors"
	"time"
)

// nodeScenarios are those in which processes of nodes die or hang.
func nodeScenarios() []Scenario {
	return []Scenario{
		{Name: "kill-coordinator", About: "kill −9 of a coordinator, which comes back with its disk", Slice: true, Silence: 2 * time.Second,
			Run: repeat(5, killOne(false))},
		{Name: "kill-wiped", About: "kill −9 of a coordinator, which comes back without its disk", Slice: true, Silence: 2 * time.Second,
			Run: repeat(4, killOne(true))},
		{Name: "kill-five", About: "kill −9 of two coordinators of five nodes at once", Nodes: 5, Slice: true, Silence: 5 * time.Second,
			Run: repeat(3, killTwo)},
		{Name: "sigterm", About: "SIGTERM of one node after the other: a rolling restart", Slice: true, Silence: 2 * time.Second,
			Run: rolling},
		{Name: "sigstop-1s", About: "SIGSTOP of a coordinator for 1 s", Slice: true, Silence: 4 * time.Second, Run: repeat(4, freeze(time.Second))},
		{Name: "sigstop-10s", About: "SIGSTOP of a coordinator for 10 s", Silence: 4 * time.Second, Run: repeat(2, freeze(10*time.Second))},
		{Name: "kill-all", About: "kill −9 of all nodes at once", Slice: true, Run: repeat(3, killAll(false))},
		{Name: "kill-all-wiped", About: "kill −9 of all nodes at once, all disks lost", Run: repeat(2, killAll(true))},
		{Name: "kill-random", About: "kill −9 of whatever node, again and again, some while another is not back yet", Run: repeat(25, killSome)},
		{Name: "away-long", About: "a node stays away while the others go on, and comes back with its disk", Run: awayLong},
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
