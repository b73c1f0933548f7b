package wsedge

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// Clients that resume from Kafka and read nothing keep, all together, no more than they may; one that reads gets everything
// meanwhile.
func TestPendingIsBounded(t *testing.T) {
	const most = 512 << 10
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) {
		c.Limits.PendingBytes, c.SendBuffer, c.StallTimeout, c.Limits.Positions = most, 64<<10, time.Minute, -1
	})
	const records = 1500
	for range records {
		e.node.put("one", 0, []byte("k"), bytes.Repeat([]byte("x"), 1000))
	}
	const idle = 20 // 128 KiB each, if they were let
	for range idle {
		c := e.dialByHand(4 << 10)
		c.op(`{"op":"sub","subject":"/one/*","resume":[[0,1,1]]}`)
	}
	until(t, "the limit to be reached", func() bool { return e.srv.overHeld() })
	reader := e.dialByHand(0)
	reader.op(`{"op":"sub","subject":"/one/*","resume":[[0,1,1]]}`)
	held := int64(0)
	for n := 1; n < records; {
		held = max(held, e.srv.held.Load())
		m, err := reader.message()
		if err != nil {
			t.Fatal(err)
		}
		if m.Op == "msg" {
			if n++; m.Pos[2] != uint64(n) {
				t.Fatalf("%d, want %d", m.Pos[2], n)
			}
		}
	}
	// One batch each comes on top, and what one record more makes of it.
	if limit := int64(most + (idle+1)*2*replayBatch); held > limit {
		t.Errorf("%d bytes were kept, want at most %d", held, limit)
	}
	if n := e.metric("tidewire_pending_bytes", ""); n == 0 {
		t.Error("not told")
	}
	e.srv.mu.Lock()
	for s := range e.srv.sessions {
		s.conn.Close()
	}
	e.srv.mu.Unlock()
	until(t, "all of it to be given back", func() bool { return e.srv.Stats().Connections == 0 && e.srv.held.Load() == 0 })
}

// Where too much is kept already a frame that a socket has taken a part of is not kept: its client is cut, and comes back for
// it. A small rest is kept.
func TestRestsAreBounded(t *testing.T) {
	for _, secure := range []bool{false, true} {
		overTLS = secure
		e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.PendingBytes, c.SendBuffer = 1<<20, 4<<10 })
		overTLS = false
		e.srv.held.Add(2 << 20) // by others
		stuck := e.dialByHand(4 << 10)
		stuck.op(`{"op":"sub","subject":"/one/*"}`)
		reads := e.dial()
		reads.send(`{"op":"sub","subject":"/one/*"}`)
		until(t, "the subscriptions", func() bool { return e.srv.Stats().Subscriptions == 2 })
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 100)+`"`))
		until(t, "the small one to be sent", func() bool { return e.srv.Stats().Delivered == 2 })
		// Its neighbour goes on; what it has not room for in its socket at once is too large to be kept as well.
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 900<<10)+`"`))
		until(t, "the stuck one to be cut", func() bool { return e.metric("tidewire_limited_total", limitPending) > 0 })
		e.srv.held.Add(-2 << 20)
		reads.ws.CloseNow()
		stuck.conn.Close()
		until(t, "all of it to be given back", func() bool { return e.srv.Stats().Connections == 0 && e.srv.held.Load() == 0 })
	}
}

// A client that asks and does not take its answers is read on for less, when too much is kept already.
func TestAnswersAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.PendingBytes, c.Limits.Frames, c.SendBuffer = 1<<20, -1, 4<<10 })
	e.srv.held.Add(2 << 20)
	defer e.srv.held.Add(-2 << 20)
	c := e.dialByHand(4 << 10)
	s := e.onlySession()
	kept := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.control)
	}
	ops := strings.Repeat(masked(1, `{"op":"ping","id":123456789}`), 1000)
	var writing sync.WaitGroup
	writing.Go(func() {
		for err := error(nil); err == nil; { // more and more, until the connection is closed
			_, err = c.conn.Write([]byte(ops))
		}
	})
	until(t, "the reader to wait", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.room != nil && len(s.control) > fewUnsent })
	if n := kept(); n > 2*fewUnsent {
		t.Errorf("%d bytes of answers are kept", n)
	}
	c.conn.Close()
	writing.Wait()
}

// Messages that come in pieces are kept up to a limit. Beyond it some of their senders are sent elsewhere, and the others go on;
// who sends small ones does not notice.
func TestUnfinishedMessagesAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.PendingBytes, c.CloseTimeout = 1<<20, time.Second })
	frame := masked(1, `{"op":"ping","id":5,"x":"`+strings.Repeat("x", 400<<10)+`"}`)
	const senders = 10
	ended := make(chan string, senders)
	for range senders {
		c := e.dialByHand(0)
		go func() { _, _ = c.conn.Write([]byte(frame[:len(frame)-1])) }()
		go func() {
			last := ""
			for {
				m, err := c.message()
				if err != nil {
					ended <- last + " " + err.Error()
					return
				}
				last = m.Reason
			}
		}()
	}
	until(t, "the limit to be met", func() bool { return e.metric("tidewire_limited_total", limitPending) > 0 })
	if n := e.srv.held.Load(); n > 1<<20+senders*(256<<10) {
		t.Errorf("%d bytes are kept", n)
	}
	small := e.dial()
	small.send(`{"op":"ping"}`)
	small.expect(`{"op":"pong"}`)
	if why := <-ended; why != "overloaded close 1001" {
		t.Error(why)
	}
	until(t, "what is left to be as little as it may", func() bool { return e.srv.held.Load() <= 1<<20 })
	e.srv.held.Add(2 << 20) // by others
	resp, b := e.request("POST", "/publish/one/k", strings.NewReader(frame[:30<<10]))
	e.refusal("no room", resp, b, 503, "unavailable")
	e.srv.held.Add(-2 << 20)
	e.srv.mu.Lock()
	for s := range e.srv.sessions {
		s.conn.Close()
	}
	e.srv.mu.Unlock()
	until(t, "all of it to be given back", func() bool { return e.srv.held.Load() == 0 })
}

// A stream that is refused gives back what was read for it already.
func TestRefusedStreamKeepsNothing(t *testing.T) {
	asked, no := make(chan struct{}), make(chan struct{})
	d := &fakeDecider{answer: func(q auth.Question) (auth.Decision, error) {
		if q.Subject == "/one/*" {
			return auth.Decision{Allow: true, For: time.Hour}, nil
		}
		close(asked)
		<-no
		return auth.Decision{For: time.Hour}, nil
	}}
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.Decider = d })
	for range 500 {
		e.node.put("one", 0, []byte("k"), bytes.Repeat([]byte("x"), 1000))
	}
	conn := e.connect()
	defer conn.Close()
	word := tokenOf([]uint64{subjectHash("/one/*")}, []Vector{{pp(0, 1, 1)}})
	fmt.Fprintf(conn, "GET /sse?subject=/one/*&subject=/prices/k HTTP/1.1\r\nHost: x\r\nLast-Event-ID: %s\r\n\r\n", word)
	<-asked // about the second subject
	until(t, "the first one to be read from Kafka", func() bool { return e.srv.held.Load() > maxPending })
	close(no)
	if resp, body := readAnswer(t, conn); resp.StatusCode != http.StatusForbidden {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if n := e.srv.held.Load(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// What TLS had sealed is not counted any more once the socket has taken it, though nothing else is sent.
func TestSealedIsCountedWhileItWaits(t *testing.T) {
	e := secureEdge(t, func(c *Config) { c.SendBuffer, c.Heartbeat = 4<<10, time.Hour })
	c := e.dialByHand(4 << 10)
	c.op(`{"op":"sub","subject":"/one/*"}`)
	read := func(want string) {
		for op := ""; op != want; {
			m, err := c.message()
			if err != nil {
				t.Fatal(err)
			}
			op = m.Op
		}
	}
	read("live")
	s := e.onlySession()
	// Records that are smaller than a step of sealing: the last of them is sealed whole, and the socket takes a part of it.
	v := []byte(`"` + strings.Repeat("x", sealStep/2) + `"`)
	sent := 0
	for s.sock.unsent() == 0 {
		e.node.put("one", 0, []byte("k"), v)
		sent++
		until(t, "it to be sealed", func() bool { return e.srv.Stats().Delivered == int64(sent) })
	}
	s.mu.Lock()
	if n := s.sock.unsent(); s.weighed < n {
		t.Errorf("%d bytes are sealed, %d are counted", n, s.weighed)
	}
	s.mu.Unlock()
	for range sent {
		read("msg")
	}
	until(t, "it to be given back", func() bool { return e.srv.held.Load() == 0 })
}

// Publishes that are on their way to Kafka, which may take its time, have no more bytes together than they may.
func TestPublishesOnTheirWayAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.PendingBytes = 100 << 10 })
	begun, on := make(chan struct{}, 10), make(chan struct{})
	release := sync.OnceFunc(func() { close(on) })
	defer release()
	e.node.publish = func(bridge.PublishRequest) (bridge.PublishResult, error) {
		begun <- struct{}{}
		<-on
		return bridge.PublishResult{}, nil
	}
	a, b := e.dial(), e.dial()
	publish := func(c *client, id, size int) {
		c.send(`{"op":"pub","id":%d,"subject":"/one/%d","text":"%s"}`, id, id, strings.Repeat("x", size))
	}
	publish(a, 1, 70<<10)
	<-begun
	publish(b, 2, 40<<10)
	if m := b.next(); m.Code != "rate_limited" || m.RetryMS == 0 || m.ID != 2 {
		t.Error(m.raw)
	}
	resp, body := e.request("POST", "/publish/one/k", strings.NewReader(strings.Repeat("x", 40<<10)))
	e.refusal("over HTTP", resp, body, 429, "rate_limited")
	on <- struct{}{}
	if m := a.next(); m.Op != "acked" {
		t.Error(m.raw)
	}
	publish(a, 3, 60<<10)
	publish(b, 4, 30<<10)
	<-begun
	<-begun
	publish(b, 5, 30<<10)
	if m := b.next(); m.Code != "rate_limited" || m.ID != 5 {
		t.Error(m.raw)
	}
	release()
	if m := b.next(); m.Op != "acked" || m.ID != 4 {
		t.Error(m.raw)
	}
	if n := e.metric("tidewire_limited_total", limitPublishes); n != 3 {
		t.Errorf("%v were counted", n)
	}
}
