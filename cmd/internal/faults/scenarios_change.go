package faults

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// changeScenarios are those in which people change a cluster that works.
func changeScenarios() []Scenario {
	return []Scenario{
		{Name: "upgrade", About: "an earlier build is replaced node by node, and one is killed while both are at work", Slice: true, Silence: 4 * time.Second, Old: true,
			Run: upgrade},
		{Name: "new-settings", About: "one node after the other is restarted with another cache and another heartbeat", Slice: true, Silence: 2 * time.Second,
			Run: newSettings},
	}
}

func newSettings(ctx context.Context, r *Rig) error {
	const cache = 96 << 20
	for _, i := range r.Some(r.Nodes.Len()) {
		if err := r.Pause(ctx, time.Second, 2*time.Second); err != nil {
			return err
		}
		n := r.Nodes.list[i]
		r.Note("SIGTERM %s", n.name)
		if err := r.Nodes.Stop(i); err != nil {
			return err
		}
		n.env = []string{"TIDEWIRE_CACHE_BYTES=96MiB", "TIDEWIRE_HEARTBEAT=5s"}
		r.Note("with %v", n.env)
		if err := restart(ctx, r, false, i); err != nil {
			return err
		}
		s, err := r.Nodes.Status(ctx, i)
		if err != nil {
			return err
		}
		if s.Cache.Budget != cache {
			return fmt.Errorf("%s was started with a cache of %d bytes, and says %d", n.name, cache, s.Cache.Budget)
		}
	}
	return r.Sleep(ctx, time.Second)
}

func upgrade(ctx context.Context, r *Rig) error {
	for k, i := range r.Some(r.Nodes.Len()) {
		if err := r.Pause(ctx, time.Second, 2*time.Second); err != nil {
			return err
		}
		r.Note("SIGTERM %s", r.Nodes.Name(i))
		if err := r.Nodes.Stop(i); err != nil {
			return err
		}
		r.Nodes.list[i].path = ""
		r.Note("%s gets the new build", r.Nodes.Name(i))
		if err := restart(ctx, r, false, i); err != nil {
			return err
		}
		if k == r.Nodes.Len()-1 {
			break
		}
		// Whoever it is has followers or a leader of the other build.
		if err := errors.Join(r.Pause(ctx, time.Second, 2*time.Second), killOne(false)(ctx, r)); err != nil {
			return err
		}
	}
	return r.Sleep(ctx, 2*time.Second)
}
