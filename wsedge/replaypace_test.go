package wsedge

import (
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// Replays that read as fast as they may, each for itself, read no more together than they are to, and no less.
func TestReplayPace(t *testing.T) {
	const rate, each = 1 << 20, 10_000
	for _, replays := range []int{1, 2, 50} {
		var p replayPace
		begun := int64(1e18)
		free := make([]int64, replays) // when each may go on
		for i := range free {
			free[i] = begun
		}
		read := 0
		for {
			next := 0
			for i := range free {
				if free[i] < free[next] {
					next = i
				}
			}
			now := free[next]
			if now > begun+int64(10*time.Second) {
				break
			}
			read += each
			free[next] = now + int64(p.owe(now, each, rate))
		}
		if most := 10*rate + rate/50 + (replays+1)*each; read > most || read < 10*rate-each {
			t.Errorf("%d replays read %d bytes in 10 s, want %d to %d", replays, read, 10*rate-each, most)
		}
	}
	var p replayPace
	if wait := p.owe(1e18, 1<<30, -1); wait != 0 {
		t.Errorf("no rate: wait %v", wait)
	}
	p.owe(1e18, rate, rate)
	if wait := p.owe(1e18+int64(time.Hour), rate/10, rate); wait.Round(time.Millisecond) != 80*time.Millisecond {
		t.Errorf("a tenth of a second's worth after an hour: wait %v", wait)
	}
}

// What resumes from Kafka is read no faster than all together may, and who waits for it goes at once when its client does.
func TestReplaysKeepToTheirPace(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.Limits.ReplayBytes = 256 << 10 })
	const run = 7 // records at a time
	for range 3 * run {
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 500<<10)+`"`))
	}
	c := e.dial()
	c.send(`{"op":"sub","subject":"/one/k","resume":[[0,1,1]]}`)
	for range 1 + run { // subbed, and what was read before it was counted
		c.next()
	}
	// A quarter of a second's worth was waited for before, and 14 s' worth is now.
	until(t, "it to wait", func() bool { return e.metric("tidewire_limited_total", limitReplayBytes) == 2 })
	late := e.dial()
	late.send(`{"op":"sub","subject":"/one/k","resume":[[0,1,1]]}`)
	until(t, "the next to wait before it reads", func() bool { return e.metric("tidewire_limited_total", limitReplayBytes) == 3 })
	if n := e.node.replayed(); n != 1 {
		t.Errorf("%d read from Kafka, want 1", n)
	}
	// Live records wait for none of that.
	c.send(`{"op":"sub","subject":"/prices/k"}`)
	if m := c.next(); m.Op != "subbed" || !strings.Contains(m.raw, "/prices/k") {
		t.Error(m.raw)
	}
	c.expect(`{"op":"live","subject":"/prices/k"}`)
	e.node.put("prices", bridge.PartitionFor([]byte("k"), 4), []byte("k"), value(1))
	if m := c.next(); m.Op != "msg" || m.Subject != "/prices/k" {
		t.Error(m.raw)
	}
	_ = c.ws.CloseNow()
	_ = late.ws.CloseNow()
	until(t, "nobody to wait", func() bool { return e.srv.replaying.Load() == 0 })
}
