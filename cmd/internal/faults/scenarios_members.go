package faults

import (
	"context"
	"errors"
	"slices"
	"time"
)

// memberScenarios are those in which the cluster's nodes become others.
func memberScenarios() []Scenario {
	return []Scenario{
		{Name: "member-swap", About: "a node is added and a coordinator removed, then stopped", Spare: 1, Silence: 2 * time.Second,
			Run: repeat(1, swapMember)},
		{Name: "member-replace", About: "kill −9 of a coordinator for good; one of another name takes its place", Spare: 1, Silence: 2 * time.Second,
			Run: repeat(1, replaceMember)},
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
	asked := member(r, append(but, i)...)
	r.Note("%s is started; %s is asked to add it", r.Nodes.Name(i), r.Nodes.Name(asked))
	adding, cancel := context.WithTimeout(ctx, membersTime) // it may not listen yet
	defer cancel()
	if err := poll(adding, func() error { return r.Nodes.AddMember(adding, asked, i) }); err != nil {
		return err
	}
	r.Note("%s is a member", r.Nodes.Name(i))
	if err := r.Nodes.WaitReady(ctx); err != nil {
		return err
	}
	r.Note("all ready")
	return nil
}

func swapMember(ctx context.Context, r *Rig) error {
	if err := errors.Join(join(ctx, r), r.Pause(ctx, time.Second, 3*time.Second)); err != nil {
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
	remove := func() error {
		asked := member(r, i)
		r.Note("%s is asked to remove %s", r.Nodes.Name(asked), r.Nodes.Name(i))
		removing, cancel := context.WithTimeout(ctx, membersTime)
		defer cancel()
		return poll(removing, func() error { return r.Nodes.RemoveMember(removing, asked, i) })
	}
	if r.Rand.IntN(2) == 0 {
		err = errors.Join(remove(), join(ctx, r, i))
	} else {
		err = errors.Join(join(ctx, r, i), remove())
	}
	if err != nil {
		return err
	}
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}
