package wsedge

import (
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
)

// Silence is broken by hb; a client that answers no ping is let go, one that does is kept.
func TestHeartbeats(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Heartbeat = time.Second })
	c := e.dial()
	silent := e.dialByHand(0)
	ended := make(chan struct{})
	var answering sync.WaitGroup // which it does while it reads
	answering.Go(func() {
		for over := false; !over; {
			select {
			case <-ended:
				over = true
			default:
			}
			c.expect(`{"op":"hb"}`)
		}
	})
	hb, pings := 0, 0
	for {
		opcode, payload, err := silent.frame()
		if err != nil {
			break
		}
		switch {
		case opcode == 9:
			pings++
		case string(payload) == `{"op":"hb"}`:
			hb++
		}
	}
	if hb == 0 || pings == 0 {
		t.Errorf("%d heartbeats and %d pings before the silent one was let go", hb, pings)
	}
	close(ended)
	answering.Wait()
	until(t, "the silent one to be gone", func() bool { return e.srv.Stats().Connections == 1 })
}

// A node that stood still for longer than a client may be silent takes nobody's silence for the end of it: their answers lie
// unread, and it asked them nothing meanwhile.
func TestHeartbeatsAfterTheNodeStoodStill(t *testing.T) {
	const beat = 300 * time.Millisecond
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Heartbeat = beat })
	c := e.dial()
	c.expect(`{"op":"hb"}`)
	e.srv.mu.Lock() // the sweep stands still
	time.Sleep((beatsUntilDead + 2) * beat)
	e.srv.mu.Unlock()
	for range 2 * beatsUntilDead {
		c.expect(`{"op":"hb"}`)
	}
}

// Nor does it take a message that lay unread meanwhile for one that comes too slowly.
func TestFrameTimeAfterTheNodeStoodStill(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Heartbeat, c.Limits.FrameTimeout = time.Hour, time.Second })
	e.dial()
	s := e.onlySession()
	now, beat := time.Now().UnixMilli(), time.Hour.Milliseconds()
	s.frameSince.Store(now - 5000)
	if s.pulse(now, beat, now-500); s.frameSince.Load() == 0 {
		t.Error("half a second after it awoke: too slow")
	}
	if s.pulse(now, beat, 0); s.frameSince.Load() != 0 {
		t.Error("not too slow, with a node that did not stand still")
	}
}

func TestAwakeSince(t *testing.T) {
	for _, c := range []struct{ awake, last, now, want int64 }{
		{5, 100, 110, 5},
		{5, 100, 120, 5}, // a beat is 20
		{5, 100, 121, 121},
		{1000, 1000, 130, 130}, // it was ahead, and set back
	} {
		if got := awakeSince(c.awake, c.last, c.now, 20); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
