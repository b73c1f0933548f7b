package wsedge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// Replays that read as fast as they may, each for itself, read no more together than they are to, and no less.
func TestReplayPace(t *testing.T) {
	const rate, piece = 1 << 20, 10_000
	for _, ahead := range []int{1000, piece, 100_000} {
		var now time.Duration
		p := newReplayPace(rate, func() time.Duration { return now })
		read := 0
		for ; now < 10*time.Second; now += time.Millisecond {
			for p.wait() == 0 {
				p.add(ahead)
				p.add(piece - ahead)
				read += piece
			}
		}
		if most := 10*rate + rate/50 + piece; read > most || read < 10*rate-piece {
			t.Errorf("%d bytes in 10 s, want %d to %d", read, 10*rate-piece, most)
		}
		now += time.Hour
		if p.add(rate / 10); p.wait().Round(time.Millisecond) != 80*time.Millisecond {
			t.Errorf("a tenth of a second's worth after an hour: wait %v", p.wait())
		}
		if p.add(-rate / 20); p.wait().Round(time.Millisecond) != 30*time.Millisecond {
			t.Errorf("half of it given back: wait %v", p.wait())
		}
	}
}

// Without a setting there is a bound.
func TestReplayPaceHasADefault(t *testing.T) {
	if p := newEdge(t, cache.Config{}, nil).srv.replayPace; p.perSecond != DefaultReplayBytes() || p.perSecond < 64<<20 {
		t.Errorf("%d bytes a second", p.perSecond)
	}
}

// Who gives up while it waits, or has counted more than came, owes nothing, and the next goes on.
func TestReplaysThatEndOweNothing(t *testing.T) {
	srv := &Server{replayPace: newReplayPace(1<<10, func() time.Duration { return 0 })}
	unread := pacedReader{srv: srv}
	if err := unread.before(t.Context()); err != nil || srv.replayPace.empty == 0 {
		t.Errorf("nothing was counted before it was read: %v", err)
	}
	if unread.end(); srv.replayPace.empty != 0 {
		t.Fatalf("%v are owed for nothing", srv.replayPace.empty)
	}
	first := pacedReader{srv: srv}
	if err := first.before(t.Context()); err != nil {
		t.Fatal(err)
	}
	owed := srv.replayPace.empty
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for range 2 { // the second finds that the turn is free, and its own time over
		second := pacedReader{srv: srv}
		if err := second.before(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a minute's worth is owed: %v", err)
		}
		second.end()
	}
	if srv.replayPace.empty != owed || owed != minReplayAhead*time.Second>>10 {
		t.Errorf("owed %v, then %v", owed, srv.replayPace.empty)
	}
	first.read(Replayed{Records: []ReplayedRecord{{Record: bridge.Record{Key: []byte("k"), Value: make([]byte, 1<<10-recordBytes-1)}}}})
	if srv.replayPace.empty != time.Second {
		t.Errorf("a record of a second's worth: %v are owed", srv.replayPace.empty)
	}
	if err := first.before(short); err == nil {
		t.Error("it goes on at once")
	}
	first.end()
	if srv.replayPace.empty != time.Second {
		t.Errorf("%v are owed at the end", srv.replayPace.empty)
	}
}

// What resumes from Kafka is read no faster than all together may, and who waits for it goes at once when its client does.
func TestReplaysKeepToTheirPace(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.Limits.ReplayBytes = 1 << 10 })
	const run = 7 // records at a time
	for range 3 * run {
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 10_000)+`"`))
	}
	var clients []*client
	for i := range 2 {
		c := e.dial()
		clients = append(clients, c)
		c.send(`{"op":"sub","subject":"/one/k","resume":[[0,1,1]]}`)
		c.next()
		if i == 0 { // who comes first reads a minute's worth at once
			for n := range run {
				if m := c.next(); m.Op != "msg" {
					t.Errorf("record %d: %s", n, m.raw)
				}
			}
		}
		until(t, "it to wait", func() bool {
			return e.metric("tidewire_replays", "") == float64(i+1) && len(e.srv.replayPace.turn) == 1
		})
	}
	// The one gets no more and the other nothing, and live records wait for none of that.
	for _, c := range clients {
		c.send(`{"op":"sub","subject":"/prices/k"}`)
		if m := c.next(); m.Op != "subbed" || !strings.Contains(m.raw, "/prices/k") {
			t.Error(m.raw)
		}
		c.expect(`{"op":"live","subject":"/prices/k"}`)
	}
	e.node.put("prices", bridge.PartitionFor([]byte("k"), 4), []byte("k"), value(1))
	for _, c := range clients {
		if m := c.next(); m.Op != "msg" || m.Subject != "/prices/k" {
			t.Error(m.raw)
		}
		_ = c.ws.CloseNow()
	}
	until(t, "nobody to wait", func() bool { return e.srv.replaying.Load() == 0 })
}

// Every wait that others notice is counted.
func TestLongWaitsOfReplaysAreCounted(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.Limits.ReplayBytes = 256 << 10 })
	for range 20 {
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 10_000)+`"`))
	}
	// A quarter of a second is to be waited for, twice, unless the machine stands still for as long anyway.
	until(t, "a long wait to be counted", func() bool {
		c := e.dial()
		defer c.ws.CloseNow()
		c.send(`{"op":"sub","subject":"/one/k","resume":[[0,1,1]]}`)
		for c.next().Op != "live" {
		}
		return e.metric("tidewire_limited_total", limitReplayBytes) > 0
	})
}
