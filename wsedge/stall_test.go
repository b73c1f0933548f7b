package wsedge

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
)

// nested has a node hold records of a key that as many patterns match, and returns what subscribes a client to all of them,
// from the first record on.
func (e *edge) nested(patterns, records int) (subscribe func(*rawClient)) {
	key := []byte(strings.Repeat("a/", patterns) + "k")
	for range records {
		e.node.put("one", 0, key, bytes.Repeat([]byte("x"), 1000))
	}
	return func(c *rawClient) {
		for i := range patterns {
			c.op(`{"op":"sub","id":%d,"subject":"/one/%s*","resume":[[0,1,1]]}`, i+1, strings.Repeat("a/", i+1))
		}
	}
}

// Each subscription that was read from Kafka let 128 KB wait for its client, however many there were: one
// that resumed a thousand of them and read nothing cost 128 MB, and was kept as long as it answered pings.
// What waits is bounded for a session, and a client that takes nothing at all is closed as slow.
func TestReplaysOfOneSessionAreBounded(t *testing.T) {
	for _, stall := range []time.Duration{time.Hour, 2 * time.Second} {
		e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) {
			c.StallTimeout, c.CloseTimeout, c.SendBuffer = stall, 100*time.Millisecond, 4<<10
		})
		const patterns = 24
		subscribe := e.nested(patterns, 1000)
		subscribe(e.dialByHand(4 << 10))
		if stall < time.Hour {
			until(t, "the client to be closed as slow", func() bool { return e.srv.Stats().SlowCloses == 1 })
			continue
		}
		s, waits := e.onlySession(), 0
		until(t, "all to wait for the client that read from Kafka", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			waits = s.pending
			return waits > maxSessionPending && len(e.srv.replays) == 0 && e.srv.Stats().Subscriptions == patterns
		})
		if limit := maxSessionPending + e.srv.cfg.SessionReplays*(maxPending+2*replayBatch); waits > limit {
			t.Errorf("%d bytes wait, want at most %d", waits, limit)
		}
	}
}

// A client that reads gets all of them, though they take turns.
func TestReplaysOfOneSessionTakeTurns(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.SendBuffer = 64 << 10 })
	const patterns, records = 8, 400
	subscribe := e.nested(patterns, records)
	c := e.dialByHand(64 << 10)
	subscribe(c)
	seen, live := map[string]int{}, 0
	for live < patterns || len(seen) < records-1 {
		m, err := c.message()
		if err != nil {
			t.Fatal(err)
		}
		switch m.Op {
		case "live":
			live++
		case "msg":
			seen[fmt.Sprint(m.Pos)]++
		case "error", "bye", "gap":
			t.Fatalf("%+v", m)
		}
	}
	for pos, n := range seen {
		if n != patterns {
			t.Fatalf("%s came %d times to %d subscriptions", pos, n, patterns)
		}
	}
}

// A topic that went while a sub for it was under way left a subscription that nothing would ever come to
// and that nobody ended: those who were told had found none yet.
func TestTopicGoesDuringSub(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	filled := make(chan struct{})
	e.node.mu.Lock()
	e.node.ready["prices"] = filled
	e.node.mu.Unlock()
	c := e.dial()
	c.send(`{"op":"sub","id":1,"subject":"/prices/k"}`)
	c.send(`{"op":"ping"}`)
	until(t, "the sub to be under way", func() bool {
		e.node.mu.Lock()
		defer e.node.mu.Unlock()
		return e.node.waiting > 0
	})
	e.node.mu.Lock()
	delete(e.node.topics, "prices")
	e.node.mu.Unlock()
	e.srv.TopicsChanged()
	close(filled)
	for _, want := range []string{"subbed", "live", "unsubbed", "pong"} {
		if m := c.next(); m.Op != want || (want == "unsubbed" && m.Reason != "topic_gone") {
			t.Fatalf("want %s, got %s", want, m.raw)
		}
	}
	if n := e.srv.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// The number of a session's subscriptions was bounded, not their length: ten thousand keys of 64 KB made a
// gigabyte. What unsub gives back can be used again.
func TestSubjectsOfOneSessionAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dial()
	subject := func(i int) string { return fmt.Sprintf("/one/%d/%s", i, strings.Repeat("k", 60<<10)) }
	answer := func(op string, i int) message {
		c.send(`{"op":%q,"id":%d,"subject":%q}`, op, i+1, subject(i))
		for {
			if m := c.next(); m.ID == uint64(i+1) {
				return m
			}
		}
	}
	n := 0
	m := answer("sub", n)
	for ; m.Op == "subbed" && n < 200; m = answer("sub", n) {
		n++
	}
	if m.Code != "limit" || n < 50 || n > maxSubjects/(60<<10) {
		t.Fatalf("subscription %d: %.100s", n, m.raw)
	}
	if m := answer("unsub", 0); m.Op != "unsubbed" {
		t.Fatalf("%.100s", m.raw)
	}
	if m := answer("sub", n); m.Op != "subbed" {
		t.Errorf("after an unsub: %.200s", m.raw)
	}
}

// A session that a draining node learned of before its own goroutine had run said bye and never welcome.
func TestWelcomeComesBeforeBye(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	s := newSession(e.srv, ours)
	s.greet() // as upgrade does, before anyone else sees the session
	s.mu.Lock()
	s.closeLocked(1001, "draining", "draining")
	s.mu.Unlock()
	welcome, bye := bytes.Index(s.control, []byte(`"welcome"`)), bytes.Index(s.control, []byte(`"bye"`))
	if welcome < 0 || bye < welcome {
		t.Errorf("sent is %q", s.control)
	}
}
