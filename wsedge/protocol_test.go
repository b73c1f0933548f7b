package wsedge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// The handshake: the subprotocol is offered or not, wscat names none; origins; other paths go to HTTP.
func TestHandshake(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) {
		c.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page "+r.URL.Path) })
		c.AllowedOrigins = []string{"*.example.com"}
	})
	c := e.dialRaw(&websocket.DialOptions{Subprotocols: []string{"other", Subprotocol}})
	if c.ws.Subprotocol() != Subprotocol || c.next().Op != "welcome" {
		t.Error("the subprotocol was not agreed on")
	}
	for origin, ok := range map[string]bool{"http://" + e.addr: true, "https://app.example.com": true, "https://evil.test": false, "": true} {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		ctx, cancel := context.WithTimeout(context.Background(), waitTime)
		ws, resp, err := websocket.Dial(ctx, e.url("ws", "/ws"), &websocket.DialOptions{HTTPHeader: h, HTTPClient: &http.Client{Transport: e.transport()}})
		cancel()
		if ok != (err == nil) || !ok && resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: %v", origin, err)
		}
		if err == nil {
			ws.CloseNow()
		}
	}
	if resp, body := e.get("/"); resp.StatusCode != 200 || body != "page /" {
		t.Error(resp.Status, body)
	}
	if resp, _ := e.get("/ws"); resp.StatusCode != http.StatusUpgradeRequired {
		t.Error(resp.Status)
	}
	if resp, body := e.get("/wsx"); resp.StatusCode != 200 || body != "page /wsx" {
		t.Error(resp.Status, body)
	}
	hurried := newEdge(t, cache.Config{}, func(c *Config) { c.HandshakeTimeout = time.Second })
	for _, raw := range []string{
		"GET /ws HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 20000) + "\r\n\r\n",
		"GET /ws nonsense\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
		"GET /ws", // and nothing more
		"",
	} {
		conn, err := net.Dial("tcp", hurried.addr)
		if err != nil {
			t.Fatal(err)
		}
		if hurried.tls != nil {
			conn = tls.Client(conn, hurried.tls) // its handshake begins with the request: one that comes too late is cut as well
		}
		fmt.Fprint(conn, raw)
		_ = conn.SetReadDeadline(time.Now().Add(waitTime))
		buf := make([]byte, 4096)
		for err == nil {
			_, err = conn.Read(buf)
		}
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			t.Errorf("%.40q was kept waiting", raw)
		}
		conn.Close()
	}
}

// A client that sends its ops together with the handshake, and a later request of a connection that
// was plain HTTP before.
func TestOpsWithTheHandshake(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	const upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	ops := ""
	for i := range 40 {
		ops += masked(1, fmt.Sprintf(`{"op":"ping","id":%d}`, i+1))
	}
	for _, before := range []string{"", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"} {
		conn := e.connect()
		fmt.Fprint(conn, before+upgrade+ops)
		_ = conn.SetReadDeadline(time.Now().Add(waitTime))
		var got []byte
		buf := make([]byte, 4096)
		for !strings.Contains(string(got), `{"op":"pong","id":40}`) {
			n, err := conn.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				t.Fatalf("%v after %q", err, got)
			}
		}
		conn.Close()
	}
}

// Every wrong thing a client can send gets an answer that says so, costs it nothing else, and does not
// touch the neighbour; enough of it ends the session with 4009.
func TestBadInput(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.MaxSubscriptions, c.MaxBadRequests = 2, 30 })
	e.node.topic("closed", TopicView{Partitions: 1, Publish: true})
	e.node.topic("quiet", TopicView{Partitions: 1, Exposed: true})
	c := e.dial()
	code := func(want string, id uint64) {
		t.Helper()
		if m := c.next(); m.Op != "error" || m.Code != want || m.ID != id || m.Message == "" {
			t.Errorf("%s, not %s", m.raw, want)
		}
	}
	c.send(`rubbish`)
	code("bad_request", 0)
	ctx := context.Background()
	_ = c.ws.Write(ctx, websocket.MessageBinary, []byte(`{"op":"ping"}`))
	code("bad_request", 0)
	c.send("{\"op\":\"ping\",\"id\":1}\n{\"op\":\"x\",\"id\":2}\n{\"op\":\"ping\",\"id\":3}")
	c.expect(`{"op":"pong","id":1}`)
	code("bad_request", 2)
	c.expect(`{"op":"pong","id":3}`)
	for _, bad := range []struct{ op, code string }{
		{`"sub","subject":"/none/a"`, "bad_subject"}, {`"sub","subject":"/closed/a"`, "bad_subject"},
		{`"pub","subject":"/quiet/a"`, "bad_subject"}, {`"pub","subject":"/none/a"`, "bad_subject"},
		{`"unsub","subject":"/one/a"`, "not_subscribed"},
		{`"sub","subject":"/one/a","resume":[[1,1,1]]`, "bad_request"},
		{`"sub","subject":"/prices/*","resume":[[4,1,1]]`, "bad_request"},
		{`"sub","subject":"/prices/*","conflate_ms":-50`, "bad_request"},
	} {
		c.send(`{"op":%s,"id":9}`, bad.op)
		code(bad.code, 9)
	}
	c.send(`{"op":"sub","subject":"/one/a"}` + "\n" + `{"op":"sub","subject":"/one/b"}`)
	for range 4 {
		c.next()
	}
	c.send(`{"op":"sub","subject":"/one/a","id":4}`)
	code("already_subscribed", 4)
	c.send(`{"op":"sub","subject":"/one/c","id":5}`)
	code("limit", 5)
	e.node.put("one", 0, []byte("a"), []byte("1"))
	if m := c.next(); m.Op != "msg" {
		t.Error(m.raw)
	}
	for range 40 {
		if c.ws.Write(ctx, websocket.MessageText, []byte(`{`)) != nil {
			break
		}
	}
	if status, bye := c.closes(); status != 4009 || bye.Op != "bye" || bye.RetryMS < 1 {
		t.Errorf("%d after %s", status, bye.raw)
	}

	c = e.dial()
	_ = c.ws.Write(ctx, websocket.MessageText, []byte("{\"op\":\"\xff\"}"))
	if status, bye := c.closes(); status != 1007 || bye.Op != "bye" {
		t.Errorf("%d after %s", status, bye.raw)
	}
	for _, extra := range []int{1, 100, 3 << 20} {
		c = e.dial()
		_ = c.ws.Write(ctx, websocket.MessageText, []byte(strings.Repeat(" ", 1<<20+extra)))
		if status, bye := c.closes(); status != 1009 || bye.Op != "bye" {
			t.Errorf("%d over: %d after %s", extra, status, bye.raw)
		}
	}
	c = e.dial()
	c.send("%s", `{"op":"ping"}`+strings.Repeat(" ", 1<<20-13))
	c.expect(`{"op":"pong"}`)
}

// history, in all its forms.
func TestHistory(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	put := func(p int32, key string, ts int64) {
		e.node.putRecord("prices", p, bridge.Record{Timestamp: ts, Key: []byte(key), Value: fmt.Append(nil, ts)})
	}
	// Timestamps go back within partition 1: its records stay in order, and are taken from its end.
	put(0, "a/1", 10)
	put(1, "a/2", 50)
	put(1, "a/3", 20)
	put(2, "b", 30)
	put(0, "a/1", 40)
	home := bridge.PartitionFor([]byte("k"), 4)
	put(home, "k", 60)
	put(home, "k", 61)
	for _, c := range []struct {
		sub  string
		want map[string]bool // any of
	}{
		{`"/prices/*","history":2`, map[string]bool{"60 61": true}},
		{`"/prices/a/*","history":2`, map[string]bool{"40 20": true, "20 40": true}},
		{`"/prices/a/*","history":3`, map[string]bool{"40 50 20": true, "50 20 40": true}},
		{`"/prices/k","history":1`, map[string]bool{"61": true}},
		{`"/prices/k","history":100`, map[string]bool{"60 61": true}},
		{`"/prices/k","history":-1`, map[string]bool{"60 61": true}},
		{`"/prices/k"`, map[string]bool{"": true}},
		{`"/prices/none","history":5`, map[string]bool{"": true}},
	} {
		cl := e.dial()
		cl.send(`{"op":"sub","subject":%s}`, c.sub)
		if m := cl.next(); m.Op != "subbed" {
			t.Fatal(m.raw)
		}
		var got []string
		for m := cl.next(); m.Op != "live"; m = cl.next() {
			got = append(got, string(m.Data))
		}
		if !c.want[strings.Join(got, " ")] {
			t.Errorf("%s: %v", c.sub, got)
		}
	}
}

// Where delivery starts, for every verdict on a resume, and what is said about it.
func TestResumeVerdicts(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 16 << 10, SegmentBytes: 1 << 10}, nil)
	const n = 300
	for i := range n {
		e.node.put("one", 0, fmt.Appendf(nil, "k%d", i%3), value(i))
	}
	e.node.part(bridge.TopicPartition{Topic: "one"}).logStart = 50
	base := e.node.store.Log("one", 0).Bounds().Base.Seqno
	if base < 60 {
		t.Fatal("the cache holds too much for this test")
	}
	for _, c := range []struct {
		resume, want string
		first        uint64 // the first record that comes, 0 for none
	}{
		{`[[0,1,300]]`, `"at":[[0,1,300]],"recovered":true}`, 0},
		{`[[0,1,290]]`, `"at":[[0,1,290]],"recovered":true}`, 291},
		{`[[0,1,60]]`, `"at":[[0,1,60]],"recovered":true}`, 61},
		{`[[0,1,0]]`, `"at":[[0,1,50]],"recovered":false,"gap":"evicted","lost":[{"partition":0,"from":[1,1],"to":[1,50]}]}`, 51},
		{`[[0,0,0]]`, `"at":[[0,1,50]],"recovered":false,"gap":"evicted","lost":[{"partition":0,"from":[1,1],"to":[1,50]}]}`, 51},
		{`[[0,1,301]]`, `"at":[[0,1,300]],"recovered":false,"gap":"unknown_epoch"}`, 0},
		{`[[0,9,1]],"history":2`, `"at":[[0,1,298]],"recovered":false,"gap":"unknown_epoch"}`, 299},
		{`[]`, fmt.Sprintf(`"at":[[0,1,%d]],"recovered":true}`, base), uint64(base) + 1},
	} {
		cl := e.dial()
		cl.send(`{"op":"sub","subject":"/one/*","resume":%s}`, c.resume)
		if m := cl.next(); !strings.HasSuffix(m.raw, c.want) {
			t.Errorf("%s: %s", c.resume, m.raw)
		}
		next := c.first
		for m := cl.next(); m.Op != "live"; m = cl.next() {
			if m.Op != "msg" || m.Pos[2] != next {
				t.Fatalf("%s: %s, not %d", c.resume, m.raw, next)
			}
			next++
		}
		if c.first > 0 && next != n+1 {
			t.Errorf("%s: live after %d", c.resume, next-1)
		}
		cl.ws.CloseNow()
	}

	// Kafka is away: the sub is told to try again. It goes away in the midst: the session waits.
	cl := e.dial()
	e.node.mu.Lock()
	e.node.down = true
	e.node.mu.Unlock()
	cl.send(`{"op":"sub","id":1,"subject":"/one/*","resume":[[0,1,60]]}`)
	if m := cl.next(); m.Code != "unavailable" || m.RetryMS < 1 {
		t.Error(m.raw)
	}
	e.node.mu.Lock()
	e.node.down = false
	e.node.stale = 1 // says that the cache will do, and by then it will not
	e.node.mu.Unlock()
	cl.send(`{"op":"sub","id":1,"subject":"/one/*","resume":[[0,1,60]]}`)
	if m := cl.next(); m.Recovered == nil || !*m.Recovered {
		t.Error(m.raw)
	}
	for i := uint64(61); i <= n; i++ {
		if m := cl.next(); m.Pos[2] != i {
			t.Fatalf("%s, not %d", m.raw, i)
		}
	}
}

// Which partitions a vector holds.
func TestVectors(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	e.node.topic("scattered", TopicView{Partitions: 3, Exposed: true, Scattered: true})
	home := uint64(bridge.PartitionFor([]byte("k"), 4))
	other := (home + 1) % 4
	at := func(sub string) string {
		c := e.dial()
		c.send(`{"op":"sub","subject":%s}`, sub)
		m := c.next()
		return fmt.Sprint(m.At)
	}
	for sub, want := range map[string]string{
		`"/prices/k"`: fmt.Sprintf("[[%d 0 0]]", home),
		`"/prices/*"`: "[[0 0 0] [1 0 0] [2 0 0] [3 0 0]]", `"/prices/k/*"`: "[[0 0 0] [1 0 0] [2 0 0] [3 0 0]]", `"/prices"`: "[[0 0 0] [1 0 0] [2 0 0] [3 0 0]]",
		`"/scattered/k"`: "[[0 0 0] [1 0 0] [2 0 0]]",
	} {
		if got := at(sub); got != want {
			t.Errorf("%s: %s, not %s", sub, got, want)
		}
	}
	if got := at(fmt.Sprintf(`"/prices/k","resume":[[%d,0,0]]`, other)); strings.Count(got, "[")-1 != 2 {
		t.Errorf("home and the one named: %s", got)
	}

	// A record of the key where none was expected comes all the same, once, and its partition stays.
	c := e.dial()
	c.send(`{"op":"sub","subject":"/prices/k"}`)
	c.next()
	c.next()
	for i, p := range []uint64{other, home, other, home} {
		e.node.put("prices", int32(p), []byte("k"), value(i))
		if m := c.next(); m.Op != "msg" || m.Pos[0] != p || string(m.Data) != string(value(i)) {
			t.Fatalf("%d: %s", i, m.raw)
		}
	}

	// A topic gains partitions: the subscribers of a pattern get the new ones from their first record.
	c.send(`{"op":"sub","subject":"/one/*"}`)
	c.next()
	c.next()
	e.node.topic("one", TopicView{Partitions: 3, Exposed: true})
	e.node.put("one", 2, []byte("new"), value(1))
	e.srv.TopicsChanged()
	e.node.put("one", 2, []byte("new"), value(2))
	for i := uint64(1); i <= 2; i++ {
		if m := c.next(); m.Op != "msg" || m.Pos != [3]uint64{2, 1, i} {
			t.Fatal(m.raw)
		}
	}
}

// Gaps in the log, a log that is reset under a subscriber, and a topic that goes.
func TestGapsResetAndTopicGone(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c, k := e.dial(), e.dial()
	c.send(`{"op":"sub","subject":"/one/*"}`)
	k.send(`{"op":"sub","subject":"/one/k"}`)
	for _, cl := range []*client{c, k} {
		cl.next()
		cl.next()
	}
	log := e.node.store.Log("one", 0)
	tp := bridge.TopicPartition{Topic: "one"}
	e.node.put("one", 0, []byte("k"), value(1))
	log.AppendGap(cache.Gap{At: bridge.Position{Epoch: 2}, Reason: "truncated"})
	e.node.mu.Lock()
	e.node.part(tp).head = bridge.Position{Epoch: 2}
	e.node.mu.Unlock()
	e.node.put("one", 0, []byte("k"), value(2))
	for cl, subject := range map[*client]string{c: "/one/*", k: "/one/k"} {
		if m := cl.next(); m.Op != "msg" || m.Pos != [3]uint64{0, 1, 1} {
			t.Fatal(m.raw)
		}
		cl.expect(fmt.Sprintf(`{"op":"gap","subject":%q,"at":[[0,2,0]],"reason":"truncated"}`, subject))
		if m := cl.next(); m.Op != "msg" || m.Pos != [3]uint64{0, 2, 1} {
			t.Fatal(m.raw)
		}
	}

	// The node has to start its cache anew, further on: what lies between comes from Kafka.
	e.node.mu.Lock()
	p := e.node.part(tp)
	for i := range 40 {
		p.head.Seqno++
		p.records = append(p.records, ReplayedRecord{Record: bridge.Record{Offset: p.next, Key: fmt.Appendf(nil, "%c", 'j'+i%2), Value: value(i)}, Pos: p.head})
		p.next++
	}
	head := p.head
	e.node.mu.Unlock()
	log.Reset(head)
	e.node.put("one", 0, []byte("k"), value(3))
	for i := uint64(2); i <= 42; i++ {
		if m := c.next(); m.Op != "msg" || m.Pos != [3]uint64{0, 2, i} {
			t.Fatalf("%s, not %d", m.raw, i)
		}
	}
	for i := uint64(3); i <= 42; i += 2 {
		i := min(i, 42)
		if m := k.next(); m.Op != "msg" || m.Pos != [3]uint64{0, 2, i} {
			t.Fatalf("%s, not %d", m.raw, i)
		}
	}
	if m := k.next(); m.Pos != [3]uint64{0, 2, 42} {
		t.Fatal(m.raw)
	}

	e.node.mu.Lock()
	delete(e.node.topics, "one")
	e.node.mu.Unlock()
	e.node.store.Drop("one", 0)
	e.srv.TopicsChanged()
	c.expect(`{"op":"unsubbed","subject":"/one/*","reason":"topic_gone"}`)
	k.expect(`{"op":"unsubbed","subject":"/one/k","reason":"topic_gone"}`)
	c.send(`{"op":"sub","subject":"/one/*"}`)
	if m := c.next(); m.Code != "bad_subject" {
		t.Fatal(m.raw)
	}
}

// Publishes to one subject arrive in the order in which they were sent; a subject that hangs holds up no
// other, nor pings; every outcome has its answer.
func TestPublish(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	hang := make(chan struct{})
	var mu sync.Mutex
	var order []string
	outcomes := map[string]error{
		"large": bridge.ErrTooLarge, "closed": fmt.Errorf("publish: %w", bridge.ErrNotExposed),
		"refused": &bridge.RejectedError{Err: errors.New("no")}, "refused large": &bridge.RejectedError{TooLarge: true, Err: errors.New("no")},
		"away": &bridge.UnavailableError{RetryAfter: 123 * time.Millisecond, Err: errors.New("no")}, "bug": errors.New("no"),
	}
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		if string(r.Key) == "hang" {
			<-hang
		}
		if err := outcomes[string(r.Key)]; err != nil {
			return bridge.PublishResult{}, err
		}
		mu.Lock()
		defer mu.Unlock()
		order = append(order, string(r.Value))
		if r.Mid == "again" {
			return bridge.PublishResult{Partition: 3, Offset: 7, Duplicate: true}, nil
		}
		return bridge.PublishResult{Partition: 3, Offset: bridge.Offset(len(order)), Pos: bridge.Position{Epoch: 1, Seqno: 2}}, nil
	}
	c := e.dial()
	c.send(`{"op":"pub","id":1,"subject":"/prices/hang"}`)
	c.send(`{"op":"ping"}`)
	c.expect(`{"op":"pong"}`)
	ops := ""
	for i := range 50 {
		ops += fmt.Sprintf(`{"op":"pub","id":%d,"subject":"/prices/k","data":%d}`+"\n", i+10, i)
	}
	c.send("%s", ops)
	for i := range 50 {
		if m := c.next(); m.Op != "acked" || m.ID != uint64(i+10) || m.Offset != int64(i+1) || m.Pos != [3]uint64{3, 1, 2} {
			t.Fatal(m.raw)
		}
	}
	mu.Lock()
	for i, v := range order {
		if v != fmt.Sprint(i) {
			t.Fatalf("%d came as number %d", i, i)
		}
	}
	mu.Unlock()
	c.send(`{"op":"pub","id":2,"subject":"/prices/k","mid":"again"}`)
	c.expect(`{"op":"acked","id":2,"partition":3,"offset":7,"duplicate":true}`)
	for key, code := range map[string]string{"large": "too_large", "closed": "bad_subject", "refused": "bad_request", "refused large": "too_large", "away": "unavailable", "bug": "unavailable"} {
		c.send(`{"op":"pub","id":3,"subject":"/prices/%s"}`, key)
		if m := c.next(); m.Op != "error" || m.ID != 3 || m.Code != code || (m.RetryMS > 0) != (code == "unavailable") || key == "away" && m.RetryMS != 123 {
			t.Errorf("%s: %s", key, m.raw)
		}
	}
	close(hang)
	if m := c.next(); m.Op != "acked" || m.ID != 1 {
		t.Error(m.raw)
	}
}

// A node that is still filling its cache: the sub waits, or is told to try again.
func TestSubWaitsForTheCache(t *testing.T) {
	filled := make(chan struct{})
	for _, timeout := range []time.Duration{150 * time.Millisecond, waitTime} {
		e := newEdge(t, cache.Config{}, func(c *Config) { c.ReadyTimeout = timeout })
		e.node.ready["one"] = filled
		c := e.dial()
		c.send(`{"op":"sub","id":1,"subject":"/one/*"}`)
		if timeout < waitTime {
			if m := c.next(); m.Code != "unavailable" || m.RetryMS != 700 {
				t.Fatal(m.raw)
			}
			continue
		}
		until(t, "the sub to wait", func() bool { e.node.mu.Lock(); defer e.node.mu.Unlock(); return e.node.waiting == 1 })
		close(filled)
		if m := c.next(); m.Op != "subbed" {
			t.Fatal(m.raw)
		}
	}
}

// A node that is stopped says goodbye to all, each with a time of its own, and lets nobody in.
func TestDrain(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Nodes, c.CloseTimeout = []string{"ws://other:1/ws"}, waitTime })
	var clients []*client
	for range 20 {
		clients = append(clients, e.dial())
	}
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitTime)
		defer cancel()
		drained <- e.srv.Drain(ctx)
	}()
	times := make(map[int64]bool)
	for _, c := range clients {
		status, bye := c.closes()
		if status != 1001 || bye.Op != "bye" || bye.Reason != "draining" || fmt.Sprint(bye.Nodes) != "[ws://other:1/ws]" {
			t.Errorf("%d after %s", status, bye.raw)
		}
		times[bye.RetryMS] = true
	}
	if len(times) < 10 {
		t.Errorf("20 clients come back at %d different times", len(times))
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", e.addr); err == nil {
		conn.Close()
		t.Error("a draining node lets somebody in")
	}
}

// A ping is answered in the midst of a backlog that takes long to go out.
func TestPingDuringBacklog(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 256 << 20}, func(c *Config) { c.SendBuffer = 16 << 10 })
	big := []byte(`"` + strings.Repeat("x", 50_000) + `"`)
	for range 400 {
		e.node.put("one", 0, []byte("k"), big)
	}
	c := e.dialByHand(0)
	c.op(`{"op":"sub","subject":"/one/*","history":-1}`)
	settled(t, e)
	c.op(`{"op":"ping"}`)
	// Nothing is read before the ping has been: else all of the backlog might be out before the node gets to it.
	s := e.onlySession()
	until(t, "the ping to be read", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return bytes.Contains(s.control, []byte("pong")) })
	n := 0
	for m, err := c.message(); m.Op != "pong"; m, err = c.message() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n > 350 {
		t.Errorf("the answer came after %d of 400 records", n)
	}
}

// Over a connection that cannot be tried, a pipe, everything is as over TCP.
func TestPipe(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	ln := newConnQueue()
	go func() { served <- e.srv.Serve(ln) }()
	go ln.hand(theirs)
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws://pipe/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil },
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	c := &client{t, ws}
	c.next()
	c.send(`{"op":"sub","subject":"/one/*"}`)
	c.next()
	c.next()
	for i := range 100 {
		e.node.put("one", 0, []byte("k"), value(i))
	}
	for i := range 100 {
		if m := c.next(); m.Pos[2] != uint64(i+1) {
			t.Fatal(m.raw)
		}
	}
	c.send(`{"op":"ping"}`)
	c.expect(`{"op":"pong"}`)
	e.srv.Close()
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Error(err)
	}
}

// Retention passes a subscriber by while it is read from Kafka: it is told of the gap where it is, and
// goes on after it, in the cache as soon as that serves.
func TestRetentionPassesAReplayBy(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dial()
	c.send(`{"op":"sub","subject":"/one/*"}`)
	c.next()
	c.next()
	tp := bridge.TopicPartition{Topic: "one"}
	e.node.put("one", 0, []byte("k"), value(1))
	if m := c.next(); m.Pos[2] != 1 {
		t.Fatal(m.raw)
	}
	e.node.mu.Lock()
	p := e.node.part(tp)
	for i := range 40 {
		p.head.Seqno++
		p.records = append(p.records, ReplayedRecord{Record: bridge.Record{Offset: p.next, Key: []byte("k"), Value: value(i)}, Pos: p.head})
		p.next++
	}
	p.logStart = 20
	head := p.head
	e.node.mu.Unlock()
	e.node.store.Log("one", 0).Reset(head)
	c.expect(`{"op":"gap","subject":"/one/*","at":[[0,1,20]],"reason":"evicted"}`)
	e.node.put("one", 0, []byte("k"), value(2))
	for i := uint64(21); i <= 42; i++ {
		if m := c.next(); m.Pos[2] != i {
			t.Fatalf("%s, not %d", m.raw, i)
		}
	}
}

// The same, between the answer to a resume and the reading: what the answer promised is taken back by a
// gap, and nothing else.
func TestRetentionBetweenAnswerAndReplay(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 16 << 10, SegmentBytes: 1 << 10}, nil)
	for i := range 300 {
		e.node.put("one", 0, []byte("k"), value(i))
	}
	e.node.onReplay = func() { e.node.part(bridge.TopicPartition{Topic: "one"}).logStart = 30 }
	c := e.dial()
	c.send(`{"op":"sub","subject":"/one/k","resume":[[0,1,10]]}`)
	if m := c.next(); m.Recovered == nil || !*m.Recovered || m.At[0] != [3]uint64{0, 1, 10} {
		t.Fatal(m.raw)
	}
	c.expect(`{"op":"gap","subject":"/one/k","at":[[0,1,30]],"reason":"evicted"}`)
	for i := uint64(31); i <= 300; i++ {
		if m := c.next(); m.Pos[2] != i {
			t.Fatalf("%s, not %d", m.raw, i)
		}
	}
	c.expect(`{"op":"live","subject":"/one/k"}`)
}
