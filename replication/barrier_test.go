package replication

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// A barrier waits for what followers have applied already, whoever asks after it had begun waits for the next, and
// without a majority it fails.
func TestBarrier(t *testing.T) {
	c := newStoppedCluster(t, 3, 1, inMemory, unshaken, unmoved, func(_ int, c *Config) { c.LeaderLease = 5 * time.Second })
	var wg sync.WaitGroup
	defer wg.Wait()
	reached, gate := make(chan string, 2), map[string]chan struct{}{"x": make(chan struct{}), "y": make(chan struct{})}
	open := map[string]func(){}
	for entry, ch := range gate {
		open[entry] = sync.OnceFunc(func() { close(ch) })
		defer open[entry]()
	}
	c.toys[0].onApply = func(_ bridge.GroupID, entry []byte) {
		if ch := gate[string(entry)]; ch != nil {
			reached <- string(entry)
			<-ch
		}
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "a")
	c.waitSame(0, 1)
	ctx, n0 := t.Context(), c.nodes[0]
	if err := n0.Barrier(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.nodes[1].Barrier(ctx, 0); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("a follower: %v", err)
	}
	if err := n0.Barrier(ctx, 1); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("a group that is not there: %v", err)
	}

	// The leader's machine stops in front of an entry. A barrier begins, and the others apply what comes after it.
	n0.Propose(0, []byte("x"))
	<-reached
	first := make(chan error, 1)
	before := n0.groups[0].raft.LastIndex()
	wg.Go(func() { first <- n0.Barrier(ctx, 0) })
	// Handed to the machine by itself: the library answers all of one hand-over together, when the last of it is applied.
	eventually(t, "the barrier begins", func() bool { return n0.groups[0].raft.AppliedIndex() > before })
	n0.Propose(0, []byte("y"))
	all := []string{"a", "x", "y"}
	eventually(t, "the others have it all", func() bool {
		return slices.Equal(c.toys[1].applied(0), all) && slices.Equal(c.toys[2].applied(0), all)
	})
	var ended atomic.Int32
	for range 20 {
		wg.Go(func() {
			err := n0.Barrier(ctx, 0)
			ended.Add(1)
			if got := c.toys[0].applied(0); err != nil || !slices.Equal(got, all) {
				t.Errorf("a barrier ended with %v, after %q", err, got)
			}
		})
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := n0.Barrier(short, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it does not wait: %v", err)
	}
	open["x"]()
	<-reached
	if err := <-first; err != nil {
		t.Error(err)
	}
	for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if n := ended.Load(); n != 0 {
			t.Fatalf("%d did not wait for what was committed when they asked", n)
		}
	}
	open["y"]()
	eventually(t, "the others to end", func() bool { return ended.Load() == 20 })
	if barriers := n0.groups[0].raft.LastIndex() - before; barriers > 2+2 {
		t.Errorf("%d entries for two barriers and what was between them", barriers)
	}

	// Alone, it finds out that it cannot say.
	c.kill(1)
	c.kill(2)
	if err := n0.Barrier(ctx, 0); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("without the others: %v", err)
	}
}
