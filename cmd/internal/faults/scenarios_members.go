package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// memberScenarios are those in which the cluster's nodes become others.
func memberScenarios() []Scenario {
	return []Scenario{
		{Name: "member-swap", About: "a node is added and a coordinator removed, then stopped", Spare: 1, Silence: 2 * time.Second,
			Run: repeat(1, swapMember)},
		{Name: "member-replace", About: "kill −9 of a coordinator for good; one of another name takes its place", Spare: 1, Silence: 2 * time.Second,
			Run: repeat(1, replaceMember)},
		{Name: "member-kill", About: "kill −9 half way through the adding of a node, of the one that drives it, then of the leader of group 0; run again, it is finished",
			Spare: 2, Silence: 5 * time.Second, Run: repeat(1, brokenOffAdd)},
	}
}

// member returns the number of a node that runs and is none of those, as the seed says.
func member(r *Rig, but ...int) int {
	for {
		i := r.Rand.IntN(r.Nodes.Len())
		if r.Nodes.Running(i) && !slices.Contains(but, i) {
			return i
		}
	}
}

// join starts a node, has another one take it in, and waits until it serves.
func join(ctx context.Context, r *Rig, but ...int) error {
	i, err := r.Nodes.Join()
	if err != nil {
		return err
	}
	r.Note("%s is started", r.Nodes.Name(i))
	if err := takeIn(ctx, r, i, member(r, append(but, i)...)); err != nil {
		return err
	}
	if err := r.Nodes.WaitReady(ctx); err != nil {
		return err
	}
	r.Note("all ready")
	return nil
}

// takeIn has a node take in one that has been started, when that waits for it. It is asked once: to ask until it is
// granted would hide that it was refused.
func takeIn(ctx context.Context, r *Rig, i, asked int) error {
	if err := r.Nodes.WaitJoinable(ctx, i); err != nil {
		return err
	}
	r.Note("%s is asked to add %s", r.Nodes.Name(asked), r.Nodes.Name(i))
	if err := r.Nodes.AddMember(ctx, asked, i, nil); err != nil {
		return err
	}
	r.Note("%s is a member", r.Nodes.Name(i))
	return nil
}

func swapMember(ctx context.Context, r *Rig) error {
	if err := join(ctx, r); err != nil {
		return err
	}
	if err := r.Pause(ctx, time.Second, 3*time.Second); err != nil {
		return err
	}
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	asked := member(r) // which may be the one that goes
	r.Note("%s is asked to remove %s", r.Nodes.Name(asked), r.Nodes.Name(i))
	if err := r.Nodes.RemoveMember(ctx, asked, i); err != nil {
		return err
	}
	r.Note("SIGTERM %s", r.Nodes.Name(i))
	if err := r.Nodes.Stop(i); err != nil {
		return err
	}
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}

func replaceMember(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	r.Note("kill %s, for good", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	if err := r.Pause(ctx, 0, 3*time.Second); err != nil {
		return err
	}
	if err := replace(ctx, r, i, r.Rand.IntN(2) == 0); err != nil {
		return err
	}
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}

// replace removes a dead node and adds another, or the other way round. What is refused ends it.
func replace(ctx context.Context, r *Rig, i int, addFirst bool) error {
	remove := func() error {
		asked := member(r, i)
		r.Note("%s is asked to remove %s", r.Nodes.Name(asked), r.Nodes.Name(i))
		return r.Nodes.RemoveMember(ctx, asked, i)
	}
	add := func() error { return join(ctx, r, i) }
	first, second := remove, add
	if addFirst {
		first, second = add, remove
	}
	if err := first(); err != nil {
		return err
	}
	return second()
}

// brokenOffAdd kills a node half way through the adding of another: the one that drives it, and then the one that
// leads group 0, whose log says that a change is on its way. The same command, run again through a node that lives,
// finishes it, while the dead one is still dead.
func brokenOffAdd(ctx context.Context, r *Rig) error {
	for _, driver := range []bool{true, false} {
		i, err := r.Nodes.Join()
		if err != nil {
			return err
		}
		r.Note("%s is started", r.Nodes.Name(i))
		if err := r.Nodes.WaitJoinable(ctx, i); err != nil {
			return err
		}
		asked := member(r, i)
		victim := asked
		if !driver {
			if victim, err = r.Nodes.Leader(ctx, asked, 0); err != nil {
				return err
			}
			asked = member(r, i, victim)
		}
		if err := r.addAndKill(ctx, i, asked, victim); err != nil {
			return err
		}
		again := member(r, i)
		r.Note("%s is asked to add %s", r.Nodes.Name(again), r.Nodes.Name(i))
		if err := r.Nodes.AddMember(ctx, again, i, nil); err != nil {
			return fmt.Errorf("run again, after %s was killed: %w", r.Nodes.Name(victim), err)
		}
		r.Note("%s is a member", r.Nodes.Name(i))
		if err := restart(ctx, r, false, victim); err != nil {
			return err
		}
		switch votes, groups, err := r.Nodes.Votes(ctx, victim, i); {
		case err != nil:
			return err
		case votes != groups || groups == 0:
			return fmt.Errorf("%s was added, and votes in %d of %d groups", r.Nodes.Name(i), votes, groups)
		}
		if err := r.Pause(ctx, time.Second, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// halfWay is in how many groups the new node votes before the kill, of eight.
const halfWay = 4

// addAndKill has node asked add node i, and kills the victim when half of it is done. What becomes of this attempt is
// nobody's to say, unless it was the victim that drove it.
func (r *Rig) addAndKill(ctx context.Context, i, asked, victim int) error {
	r.Note("%s is asked to add %s", r.Nodes.Name(asked), r.Nodes.Name(i))
	votes := 0
	err := r.Nodes.AddMember(ctx, asked, i, func(progress string) {
		r.Note("  %s", progress)
		if !strings.Contains(progress, " votes (") {
			return
		}
		if votes++; votes == halfWay {
			r.Note("kill %s", r.Nodes.Name(victim))
			r.Nodes.Kill(victim)
			r.Kills++
		}
	})
	switch {
	case votes < halfWay && err != nil:
		return err
	case votes < halfWay:
		return fmt.Errorf("%s was added with the votes of %d groups: nobody was killed half way", r.Nodes.Name(i), votes)
	case err == nil && asked == victim:
		return fmt.Errorf("%s finished what it was killed in the middle of", r.Nodes.Name(asked))
	}
	r.Note("it ended with: %v", err)
	return nil
}
