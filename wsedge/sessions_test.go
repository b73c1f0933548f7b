package wsedge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

func (e *edge) sessions(q SessionQuery) SessionPage {
	e.t.Helper()
	page, err := e.srv.Sessions(context.Background(), q)
	if err != nil {
		e.t.Fatal(err)
	}
	return page
}

// One client does not read, one reads everything, one waits for a key that gets no records. The first is the
// furthest behind, by the number of records that it was not sent; the others are not behind, however much
// the topic has moved on under the idle one.
func TestSessionsFurthestBehindFirst(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 20}, func(c *Config) { c.SendBuffer = 4 << 10 })
	begun := time.Now().UnixMilli()
	idle, quick, slow := e.dial(), e.dial(), e.dialByHand(4<<10)
	idle.send(`{"op":"sub","subject":"/one/never"}`)
	quick.send(`{"op":"sub","subject":"/one/*"}`)
	slow.op(`{"op":"sub","subject":"/one/*"}` + "\n" + `{"op":"sub","subject":"/prices/never"}`)
	until(t, "the subscriptions", func() bool { return e.srv.Stats().Subscriptions == 4 })
	const records = 500
	big := []byte(`"` + strings.Repeat("x", 4000) + `"`)
	for range records {
		e.node.put("one", 0, []byte("k"), big)
	}
	for n := 0; n < records; {
		if quick.next().Op == "msg" {
			n++
		}
	}
	var page SessionPage
	until(t, "the slow one to be blocked and alone behind", func() bool {
		page = e.sessions(SessionQuery{Limit: 10, Subscriptions: 10})
		return page.Blocked == 1 && page.Behind == 1
	})
	if page.Connections != 3 || page.Subscriptions != 4 || len(page.Sessions) != 3 {
		t.Fatalf("%+v", page)
	}
	s := page.Sessions[0]
	if s.Remote != slow.conn.LocalAddr().String() || !s.Blocked || s.Subscriptions != 2 || s.Since < begun || s.Since > time.Now().UnixMilli() {
		t.Errorf("first is %+v", s)
	}
	if s.Lag < records/2 || s.Lag > records {
		t.Errorf("lag %d of %d records", s.Lag, records)
	}
	if want := []SubscriptionInfo{{Subject: "/one/*", Partitions: 1, Lag: s.Lag}, {Subject: "/prices/never", Partitions: 1}}; !slices.Equal(s.Furthest, want) {
		t.Errorf("subscriptions %+v, want %+v", s.Furthest, want)
	}
	for _, o := range page.Sessions[1:] {
		if o.Lag != 0 || o.Blocked || o.Subscriptions != 1 {
			t.Errorf("%+v is not behind", o)
		}
	}
	// What the slow one reads it is not behind with any more.
	for n := 0; n < 20; {
		m, err := slow.message()
		if err != nil {
			t.Fatal(err)
		}
		if m.Op == "msg" {
			n++
		}
	}
	until(t, "the lag to fall", func() bool { return e.sessions(SessionQuery{Limit: 1}).Sessions[0].Lag < s.Lag })

	if one := e.sessions(SessionQuery{ID: s.ID, Limit: 1, Subscriptions: 1}); len(one.Sessions) != 1 || one.Sessions[0].ID != s.ID || len(one.Sessions[0].Furthest) != 1 || one.Sessions[0].Furthest[0].Subject != "/one/*" {
		t.Errorf("by its id: %+v", one)
	}
	if none := e.sessions(SessionQuery{ID: "none", Limit: 1}); len(none.Sessions) != 0 {
		t.Errorf("by no id: %+v", none)
	}
}

// A subscription that is fed from Kafka says so, and how far that has to go.
func TestSessionFedFromKafka(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.SendBuffer = 4 << 10 })
	const records = 1000
	for range records {
		e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 1000)+`"`))
	}
	c := e.dialByHand(4 << 10)
	c.op(`{"op":"sub","subject":"/one/*","resume":[[0,1,10]]}`)
	until(t, "it to be fed from Kafka", func() bool {
		p := e.sessions(SessionQuery{Limit: 1, Subscriptions: 1})
		return len(p.Sessions) == 1 && len(p.Sessions[0].Furthest) == 1 && p.Sessions[0].Furthest[0] ==
			SubscriptionInfo{Subject: "/one/*", Partitions: 1, Lag: records - 10, FromKafka: true}
	})
}

// However many sessions there are, a page is as long as was asked for, the pages follow each other, and a
// session that comes or goes meanwhile does no harm. Run with -race.
func TestSessionsArePagedWhileTheyComeAndGo(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	add := func() *session {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		s := newSession(e.srv, a)
		if !e.srv.register(s) {
			t.Fatal("not registered")
		}
		return s
	}
	const n = 5*sessionStep + 7
	want := map[string]bool{}
	var all []*session
	for range n {
		s := add()
		all = append(all, s)
		want[s.name()] = true
	}
	stop := make(chan struct{})
	var guests sync.WaitGroup
	guests.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				e.srv.unregister(add())
			}
		}
	})
	seen := map[string]int{}
	if err := e.srv.eachSession(t.Context(), func(s *session) { seen[s.name()]++ }); err != nil {
		t.Fatal(err)
	}
	close(stop)
	guests.Wait()
	for name := range want {
		if seen[name] != 1 {
			t.Fatalf("a session that was there all the time was seen %d times", seen[name])
		}
	}
	listed := map[string]bool{}
	for offset := 0; offset < MaxSessionsListed; offset += 300 {
		page := e.sessions(SessionQuery{Offset: offset, Limit: 300})
		if len(page.Sessions) != min(300, MaxSessionsListed-offset) {
			t.Fatalf("%d sessions from %d on", len(page.Sessions), offset)
		}
		for _, s := range page.Sessions {
			if listed[s.ID] {
				t.Fatal("a session is on two pages")
			}
			listed[s.ID] = true
		}
	}
	if page := e.sessions(SessionQuery{Offset: MaxSessionsListed, Limit: 10}); len(page.Sessions) != 0 || page.Connections != n {
		t.Errorf("past the end: %d of %d", len(page.Sessions), page.Connections)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.srv.Sessions(ctx, SessionQuery{Limit: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	for _, s := range all {
		e.srv.unregister(s)
	}
}

// A session with very many subscriptions tells a few of them, each at a bounded length.
func TestSubscriptionsListedAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dial()
	const n = 3 * cursorStep
	// No answers are made for who does not read them, and not everything fits into the sockets meanwhile.
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for i := range n {
			c.send(`{"op":"sub","subject":"/one/%04d%s"}`, i, strings.Repeat("ä", 200))
		}
	})
	for c.next().Subject != fmt.Sprintf("/one/%04d%s", n-1, strings.Repeat("ä", 200)) {
	}
	until(t, "the subscriptions", func() bool { return e.srv.Stats().Subscriptions == n })
	s := e.sessions(SessionQuery{Limit: 1, Subscriptions: 1 << 30}).Sessions[0]
	if s.Subscriptions != n || len(s.Furthest) != MaxSubscriptionsListed {
		t.Fatalf("%d subscriptions, %d told", s.Subscriptions, len(s.Furthest))
	}
	if want := (SubscriptionInfo{Subject: "/one/0000" + strings.Repeat("ä", 123), Cut: true, Partitions: 1}); s.Furthest[0] != want {
		t.Errorf("%+v", s.Furthest[0])
	}
	// A record is behind its subscriber from when it is found for it until it is sent.
	var sess *session
	if err := e.srv.eachSession(t.Context(), func(s *session) { sess = s }); err != nil {
		t.Fatal(err)
	}
	sess.mu.Lock()
	e.node.put("one", 0, fmt.Appendf(nil, "0777%s", strings.Repeat("ä", 200)), value(1))
	cur := (*sess.subs["/one/0777"+strings.Repeat("ä", 200)].cursors.Load())[0]
	until(t, "the record to be found", func() bool { return cur.found.Load() != 0 })
	behind, _ := cur.behind()
	sess.mu.Unlock()
	if behind != 1 {
		t.Errorf("behind by %d", behind)
	}
}

// The epoch of a place that is older than the log's counts for nothing: what is certain is told.
func TestBehindAcrossEpochs(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	log := e.node.store.Log("one", 0)
	log.Reset(bridge.Position{Epoch: 3, Seqno: 40})
	c := &cursor{log: log, pos: bridge.Position{Epoch: 2, Seqno: 100}, replay: &replay{}}
	if n, fromKafka := c.behind(); n != 40 || !fromKafka {
		t.Errorf("%d, %v", n, fromKafka)
	}
}

// A handshake that comes to another port makes an ordinary session, which ends with the server.
func TestServeWS(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	other := httptest.NewServer(http.HandlerFunc(e.srv.ServeWS))
	defer other.Close()
	ws, resp, err := websocket.Dial(t.Context(), other.URL, nil)
	if err != nil {
		t.Fatalf("%v (%v)", err, resp)
	}
	defer ws.CloseNow()
	c := &client{t: t, ws: ws}
	if m := c.next(); m.Op != "welcome" {
		t.Fatal(m.raw)
	}
	c.send(`{"op":"sub","subject":"/one/*"}`)
	c.next()
	c.next()
	e.node.put("one", 0, []byte("k"), value(1))
	if m := c.next(); m.Op != "msg" {
		t.Fatal(m.raw)
	}
	if p := e.sessions(SessionQuery{Limit: 5}); len(p.Sessions) != 1 || p.Connections != 1 {
		t.Errorf("%+v", p)
	}
	drained := make(chan error, 1)
	go func() { drained <- e.srv.Drain(t.Context()) }()
	if code, last := c.closes(); code != websocket.StatusGoingAway || last.Op != "bye" {
		t.Errorf("closed with %v after %s", code, last.raw)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A stream is in the list as such; and a conflated subscription that waits for its interval to be over is not
// behind, for it is where it asked to be.
func TestSessionsOfStreamsAndConflation(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	e.sourceRaw("GET /sse?subject=/one/*&conflate_ms=3600000 HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	until(t, "the stream", func() bool { return e.srv.Stats().Subscriptions == 1 })
	e.node.put("one", 0, []byte("k"), value(1))
	until(t, "the first round", func() bool { return e.srv.Stats().Delivered == 1 })
	e.node.put("one", 0, []byte("k"), value(2))
	var sess *session
	if err := e.srv.eachSession(t.Context(), func(s *session) { sess = s }); err != nil {
		t.Fatal(err)
	}
	until(t, "the second round to wait", func() bool {
		sess.mu.Lock()
		defer sess.mu.Unlock()
		return len(sess.parked) == 1
	})
	p := e.sessions(SessionQuery{Limit: 1, Subscriptions: 1})
	if len(p.Sessions) != 1 || !p.Sessions[0].Stream || p.Sessions[0].Lag != 0 || p.Behind != 0 {
		t.Errorf("%+v", p)
	}
}
