package wsedge

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// The whole way of a stream: what it begins with, each kind of event, what the ids say, a resume.
func TestStream(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	home := bridge.PartitionFor([]byte("k"), 4)
	for i := range 3 {
		e.node.put("prices", home, []byte("k"), value(i))
	}
	s := e.source("", "subject", "/prices/k", "subject", "/one/*", "history", "2")
	if s.status != 200 || s.header.Get("Content-Type") != "text/event-stream" || s.header.Get("Content-Length") != "" ||
		!strings.Contains(s.header.Get("Cache-Control"), "no-cache") || s.header.Get("Content-Encoding") != "" {
		t.Fatalf("%d %v", s.status, s.header)
	}
	if ev := s.want("subbed"); ev.Subject != "/prices/k" || ev.Recovered != nil || ev.At[0][2] != 1 {
		t.Fatal(ev.raw)
	}
	if len(s.retry) != 1 || s.retry[0] < 250 {
		t.Errorf("retry %v", s.retry)
	}
	s.want("subbed")
	ev := s.want("live")
	if ev.Subject != "/one/*" {
		t.Error(ev.raw)
	}
	if got := at(t, ev.id, "/prices/k")[home]; got.Seqno != 1 {
		t.Errorf("before the history the id says %v", got)
	}
	for i := 2; i <= 3; i++ {
		ev := s.want("msg")
		if string(ev.Data) != string(value(i-1)) || at(t, ev.id, "/prices/k")[home].Seqno != bridge.Seqno(i) {
			t.Fatal(ev.raw, ev.id)
		}
	}
	s.want("live")
	e.node.put("one", 0, []byte("x"), value(7))
	ev = s.want("msg")
	if ev.Subject != "/one/x" || at(t, ev.id, "/one/*")[0].Seqno != 1 || at(t, ev.id, "/prices/k")[home].Seqno != 3 {
		t.Fatal(ev.raw, ev.id)
	}
	s.conn.Close()
	until(t, "the end of the session", func() bool { return e.srv.Stats().Connections == 0 })
	if n := e.srv.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}

	e.node.put("one", 0, []byte("y"), value(8))
	e.node.put("prices", home, []byte("k"), value(3))
	for _, how := range []string{"header", "query", "header before query"} {
		q := []string{"subject", "/prices/k", "subject", "/one/*", "history", "2"}
		header := s.lastID
		switch how {
		case "query":
			q, header = append(q, "resume", s.lastID), ""
		case "header before query":
			q = append(q, "resume", "1AAAAAA")
		}
		r := e.source(header, q...)
		seen := map[string]bool{}
		for len(seen) < 6 {
			switch ev := r.next(); ev.name {
			case "subbed":
				if ev.Recovered == nil || !*ev.Recovered {
					t.Fatalf("%s: %s", how, ev.raw)
				}
				seen[ev.raw] = true
			case "live":
				seen[ev.raw] = true
			case "msg":
				if ev.Subject != "/one/y" && string(ev.Data) != string(value(3)) {
					t.Fatalf("%s: repeated %s", how, ev.raw)
				}
				seen[ev.raw] = true
			}
		}
		r.conn.Close()
	}
	// A subject that the token does not know begins anew, with its history.
	r := e.source(s.lastID, "subject", "/prices/k", "subject", "/one/x", "history", "5")
	var got []string
	for lives := 0; lives < 2; {
		switch ev := r.next(); ev.name {
		case "live":
			lives++
		case "msg":
			got = append(got, ev.Subject)
		}
	}
	if fmt.Sprint(got) != "[/prices/k /one/x]" && fmt.Sprint(got) != "[/one/x /prices/k]" {
		t.Error(got)
	}
}

// What cannot become a stream is refused with a status and the error object; what passes with time is told to
// an EventSource as a stream that ends, since on any other status it would give up for good.
func TestStreamRefused(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.MaxSubscriptions = 3; c.Nodes = []string{"ws://other/ws"} })
	e.node.topic("wide", TopicView{Partitions: maxStreamPositions + 1, Exposed: true})
	e.node.topic("closed", TopicView{Partitions: 1, Publish: true})
	for _, c := range []struct {
		query  string
		last   string
		status int
		code   string
	}{
		{"", "", 400, "bad_request"}, {"subject=", "", 400, "bad_subject"}, {"subject=one", "", 400, "bad_subject"}, {"subject=/one/a%", "", 400, "bad_request"},
		{"subject=/one/a%25", "", 400, "bad_subject"}, {"subject=/one/%FF", "", 400, "bad_subject"}, {"subject=/one/a%0Ab", "", 400, "bad_subject"},
		{"subject=/none/a", "", 404, "bad_subject"}, {"subject=/closed/a", "", 404, "bad_subject"},
		{"subject=/one/a&subject=/one/a", "", 400, "already_subscribed"}, {"subject=/one/a&history=x", "", 400, "bad_request"}, {"subject=/one/a&history=-2", "", 400, "bad_request"},
		{"subject=/one/a&history=1&history=1", "", 400, "bad_request"}, {"subject=/one/a&conflate_ms=x", "", 400, "bad_request"}, {"subject=/one/a&conflate_ms=3600001", "", 400, "bad_request"},
		{"subject=/one/a&resume=x", "", 400, "bad_request"}, {"subject=/one/a", "x", 400, "bad_request"}, {"subject=/one/a", "1AAAAAA", 400, "bad_request"},
		{"subject=/one/a", tokenOf([]uint64{subjectHash("/one/a")}, []Vector{{pp(1, 1, 1)}}), 400, "bad_request"}, // a partition that the topic has not
		{"subject=/wide/*", "", 400, "limit"}, {"subject=/one/a&subject=/one/b&subject=/one/c&subject=/one/d", "", 400, "limit"},
		{strings.Repeat("subject=/one/a&", maxStreamSubjects+1), "", 400, "limit"},
	} {
		s := e.sourceRaw("GET /sse?"+c.query+" HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"+lastIDHeader(c.last)+"\r\n", 0)
		m := s.error()
		if s.status != c.status || m.Code != c.code || m.Message == "" || s.header.Get("Content-Type") != "application/json" {
			t.Errorf("%.60s %s: %d %+v, want %d %s", c.query, c.last, s.status, m, c.status, c.code)
		}
		if _, err := s.r.ReadByte(); err == nil {
			t.Errorf("%.60s: more after the error", c.query)
		}
	}
	if st := e.srv.Stats(); st.Subscriptions != 0 || st.Connections != 0 {
		t.Errorf("%+v are left of what was refused", st)
	}

	e.srv.SetAway("isolated")
	s := e.source("", "subject", "/one/a")
	if ev := s.want("bye"); s.status != 200 || ev.Reason != "isolated" || ev.RetryMS < 250 || len(s.retry) != 1 || int64(s.retry[0]) != ev.RetryMS || len(ev.Nodes) != 1 || ev.id != "" {
		t.Errorf("%d %s, retry %v", s.status, ev.raw, s.retry)
	}
	if _, err := s.read(); err != io.EOF {
		t.Errorf("after the bye: %v", err)
	}
	s = e.sourceRaw("GET /sse?subject=/one/a HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	if m := s.error(); s.status != 503 || m.Code != "unavailable" || m.RetryMS < 1 || s.header.Get("Retry-After") == "" {
		t.Errorf("%d %+v %v", s.status, m, s.header)
	}
	e.srv.SetAway("")
	e.node.mu.Lock()
	e.node.down = true
	e.node.mu.Unlock()
	s = e.source(tokenOf([]uint64{subjectHash("/one/a")}, []Vector{{pp(0, 1, 0)}}), "subject", "/one/a")
	if ev := s.want("bye"); ev.Reason != "unavailable" || ev.RetryMS < 1 {
		t.Error(ev.raw)
	}
}

// Nothing that stands in a key, a value or a header can end a line of a stream, or an event.
func TestStreamKeepsItsLines(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	s := e.source("", "subject", "/one/*")
	s.want("subbed")
	s.want("live")
	nasty := []string{"\n", "\r", "\r\n", "\n\n", "\n\ndata: {}\n\n", "\x00", "\u2028", "\u0085", "\xff\n", ": x\n", "\nid: 1AAAAAA\n", "é\r"}
	for i, n := range nasty {
		for _, v := range [][]byte{
			[]byte(n), []byte("a" + n + "b"), []byte("{" + n + "}"), []byte("[1," + "\r\n\t" + `{"a":` + "\n\n" + "2}]"), []byte(`"` + n + `"`), []byte("\n1\n"), nil, {},
		} {
			key := []byte(n + "k" + n)
			e.node.putRecord("one", 0, bridge.Record{Key: key, Value: v, Headers: []bridge.Header{{Key: "h" + n, Value: []byte(n)}, {Key: n, Value: nil}}})
			ev := s.want("msg")
			subject, err := ParseSubject(ev.Subject)
			if err != nil || !bytes.Equal(subject.Key, key) {
				t.Fatalf("%d: key %q came as %q", i, key, ev.Subject)
			}
			switch {
			case ev.Text != nil && *ev.Text != string(v), ev.Null != (v == nil):
				t.Fatalf("%d: %q came as %s", i, v, ev.raw)
			case ev.Data != nil && (strings.Join(strings.Fields(string(ev.Data)), "") != strings.Join(strings.Fields(string(v)), "")):
				t.Fatalf("%d: %q came as %s", i, v, ev.raw)
			}
			parseTokenOf(t, ev.id)
		}
	}
}

func parseTokenOf(t *testing.T, id string) {
	t.Helper()
	if _, err := parseToken(id); err != nil {
		t.Fatalf("id %q", id)
	}
}

// Silence is broken by heartbeats, which carry the id as well. A key that is quiet while its partition is not
// keeps up in them: else its position would be as old as its last record, and Kafka would not know it any more.
func TestStreamHeartbeat(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 16 << 10, SegmentBytes: 1 << 10}, func(c *Config) { c.Heartbeat = 50 * time.Millisecond })
	s := e.source("", "subject", "/one/quiet", "subject", "/one/quiet/*")
	for range 4 {
		s.next()
	}
	for i := range 300 {
		pos := e.node.put("one", 0, []byte("other"), value(i))
		if i%10 == 0 { // the dispatcher must not lose track, which is another story
			until(t, "the dispatcher", func() bool { return !pos.After(e.srv.hub.topic("one").dispatcher(0).dispatched()) })
		}
	}
	beats := 0
	for {
		ev, err := s.read()
		if err != nil || ev.name != "hb" || ev.raw != `{"op":"hb"}` {
			t.Fatalf("%v, %+v", err, ev)
		}
		if beats++; beats > 10 && at(t, ev.id, "/one/quiet")[0].Seqno == 300 && at(t, ev.id, "/one/quiet/*")[0].Seqno == 300 {
			break // more than three beats without any pong, too: a stream has none
		}
		if beats > 200 {
			t.Fatalf("the id says %v", at(t, ev.id, "/one/quiet"))
		}
	}
	e.node.put("one", 0, []byte("quiet"), value(9))
	if ev := s.want("msg"); ev.Pos[2] != 301 {
		t.Fatal(ev.raw)
	}
	if e.node.replayed() != 0 {
		t.Error("Kafka was read for it")
	}
}

// A node that drains says bye with a time to come back, ends the stream, and waits for nobody.
func TestStreamDrain(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Nodes = []string{"ws://b/ws"} })
	const n = 20
	var all []*eventSource
	for range n {
		s := e.source("", "subject", "/one/*")
		s.want("subbed")
		s.want("live")
		all = append(all, s)
	}
	e.node.put("one", 0, []byte("k"), value(1))
	for _, s := range all {
		s.want("msg")
	}
	drained := make(chan error, 1)
	go func() { drained <- e.srv.Drain(t.Context()) }()
	retries := map[int]bool{}
	for _, s := range all {
		ev := s.want("bye")
		if ev.Reason != "draining" || ev.RetryMS < 1 || int64(s.retry[1]) != ev.RetryMS || len(ev.Nodes) != 1 || at(t, ev.id, "/one/*")[0].Seqno != 1 {
			t.Fatalf("%s, retry %v", ev.raw, s.retry)
		}
		if _, err := s.read(); err != io.EOF {
			t.Fatalf("after the bye: %v", err)
		}
		retries[s.retry[0]], retries[s.retry[1]] = true, true
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if len(retries) < n {
		t.Errorf("%d clients come back at %d times", n, len(retries)/2)
	}
}

// A client that stops reading loses its place in the cache, is told so and resumes from its own id; the others
// notice nothing.
func TestStreamSlowReader(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 1 << 20, SegmentBytes: 32 << 10}, func(c *Config) { c.SendBuffer, c.CloseTimeout = 4<<10, waitTime })
	slow := e.sourceRaw("GET /sse?subject=/one/*&subject=/prices/k HTTP/1.1\r\nHost: x\r\n\r\n", 4<<10)
	quick := e.source("", "subject", "/one/*")
	quick.want("subbed")
	quick.want("live")
	until(t, "both to be subscribed", func() bool { return e.srv.Stats().Subscriptions == 3 })
	big := []byte(`"` + strings.Repeat("x", 4000) + `"`)
	n := 0
	for e.srv.Stats().SlowCloses == 0 {
		e.node.put("one", 0, []byte("k"), big)
		n++
		if m := quick.want("msg"); m.Pos[2] != uint64(n) {
			t.Fatalf("the quick one got %v after %d", m.Pos, n)
		}
		if n == 5000 { // it has been left behind long ago: all that is missing is that the sweep looks
			until(t, "the slow one to be closed", func() bool { return e.srv.Stats().SlowCloses > 0 })
		}
		if n%64 == 0 {
			time.Sleep(5 * time.Millisecond) // time for the sweep
		}
	}
	last, bye := uint64(0), false
	for {
		ev, err := slow.read()
		if err != nil {
			if err != io.EOF || !bye {
				t.Fatalf("ended with %v, bye: %v", err, bye)
			}
			break
		}
		switch ev.name {
		case "msg":
			if last++; ev.Pos[2] != last || at(t, ev.id, "/one/*")[0].Seqno != bridge.Seqno(last) {
				t.Fatalf("%v after %d, id %s", ev.Pos, last-1, ev.id)
			}
		case "bye":
			bye = ev.Reason == "slow" && ev.RetryMS > 0
		}
	}
	if last == 0 || last == uint64(n) {
		t.Fatalf("the slow one had %d of %d", last, n)
	}
	until(t, "the slow one to be gone", func() bool { return e.srv.Stats().Connections == 1 })
	again := e.source(slow.lastID, "subject", "/one/*", "subject", "/prices/k")
	for last < uint64(n) {
		if ev := again.next(); ev.name == "msg" {
			if last++; ev.Pos[2] != last || at(t, ev.id, "/one/*")[0].Seqno != bridge.Seqno(last) {
				t.Fatalf("%.60s after %d, id %s", ev.raw, last-1, ev.id)
			}
		}
	}
}

// A stream of several subjects is cut at random again and again, in the midst of events too, over a socket that
// takes a few bytes at a time and with a cache so small that it often has to be read from Kafka. Who comes back
// with the id of the last whole event misses nothing and gets nothing twice, of any subject.
func TestStreamCutAndResume(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 40 << 10, SegmentBytes: 1 << 10}, func(c *Config) { c.SendBuffer = 8 << 10 })
	texts := []string{"/prices/k/3", "/prices", "/one/a/*", "/one/b"}
	var subjects []Subject
	query := "GET /sse?"
	for _, text := range texts {
		subject, _ := ParseSubject(text)
		subjects = append(subjects, subject)
		query += "subject=" + text + "&"
	}
	type place struct {
		subject   int
		partition int32
	}
	got := map[place][]bridge.Position{}
	type claim struct { // of an id: so many records of each place had come by then
		id    string
		count map[place]int
	}
	var claims []claim
	lastID := ""
	// visit reads n records, or until stop says that it has all.
	visit := func(n int, stop func() bool) {
		s := e.sourceRaw(query+" HTTP/1.1\r\nHost: x\r\n"+lastIDHeader(lastID)+"\r\n", 8<<10)
		defer s.conn.Close()
		for i := 0; i < n && !stop(); {
			ev := s.next()
			lastID = s.lastID
			switch ev.name {
			case "subbed":
				if ev.Recovered != nil && !*ev.Recovered {
					t.Fatal(ev.raw)
				}
			case "live":
			case "bye": // too slow for a cache so small
				return
			case "msg":
				if i++; i%16 == 0 {
					time.Sleep(5 * time.Millisecond) // the socket fills, in the midst of a turn
				}
				record, _ := ParseSubject(ev.Subject)
				k := slices.IndexFunc(subjects, func(s Subject) bool { return s.Topic == record.Topic && s.Matches(record.Key) })
				at := place{k, int32(ev.Pos[0])}
				pos := bridge.Position{Epoch: bridge.Epoch(ev.Pos[1]), Seqno: bridge.Seqno(ev.Pos[2])}
				if list := got[at]; len(list) > 0 && !pos.After(list[len(list)-1]) {
					t.Fatalf("repeated: %.80s after %v", ev.raw, list[len(list)-1])
				}
				got[at] = append(got[at], pos)
			default:
				t.Fatalf("%s", ev.raw)
			}
			count := map[place]int{}
			for at, list := range got {
				count[at] = len(list)
			}
			claims = append(claims, claim{ev.id, count})
		}
	}
	begin := e.sourceRaw(query+" HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	lastID = begin.want("subbed").id
	begin.conn.Close()
	n := 0
	write := func() { // a burst: several cursors have more than the socket takes
		for range 100 {
			v := fmt.Appendf(nil, `"%d%s"`, n, strings.Repeat("x", n*7919%300))
			switch n % 4 {
			case 0:
				e.node.put("prices", int32(n/4%4), nil, v)
			case 1:
				key := fmt.Appendf(nil, "k/%d", n%11)
				e.node.put("prices", bridge.PartitionFor(key, 4), key, v)
			default:
				e.node.put("one", 0, fmt.Appendf(nil, "%c", 'a'+n%3), v)
				e.node.put("one", 0, fmt.Appendf(nil, "a/%d", n%5), v)
			}
			n++
		}
	}
	for range 10 {
		var writing sync.WaitGroup
		writing.Go(func() { write(); write() })
		visit(50+rand.IntN(100), func() bool { return false })
		writing.Wait()
	}
	want := map[place][]bridge.Position{}
	for k, subject := range subjects {
		for partition, list := range e.node.wanted(subject) {
			want[place{k, partition}] = list
		}
	}
	all := func() bool {
		for at, list := range want {
			if len(got[at]) < len(list) {
				return false
			}
		}
		return true
	}
	for !all() {
		visit(1<<30, all)
	}
	for at, list := range want {
		if fmt.Sprint(list) != fmt.Sprint(got[at]) {
			t.Errorf("%s, partition %d: got %d of %d", texts[at.subject], at.partition, len(got[at]), len(list))
		}
	}
	for i, c := range claims {
		for k, text := range texts {
			for partition, pos := range at(t, c.id, text) {
				n, _ := slices.BinarySearchFunc(want[place{k, partition}], pos, func(p, pos bridge.Position) int {
					if p.After(pos) {
						return 1
					}
					return -1
				})
				if n != c.count[place{k, partition}] {
					t.Fatalf("id %d, %s, says that %d records of %s in partition %d have come; %d had", i, c.id, n, text, partition, c.count[place{k, partition}])
				}
			}
		}
	}
	if e.node.replayed() == 0 {
		t.Error("nobody had to be read from Kafka: the test shows less than it says")
	}
}

// Gaps, and a topic that goes.
func TestStreamGapsAndTopicGone(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	s := e.source("", "subject", "/one/*", "subject", "/prices/k")
	for range 4 {
		s.next()
	}
	log := e.node.store.Log("one", 0)
	e.node.put("one", 0, []byte("k"), value(1))
	if ev := s.want("msg"); at(t, ev.id, "/one/*")[0].Epoch != 1 {
		t.Fatal(ev.id)
	}
	log.AppendGap(cache.Gap{At: bridge.Position{Epoch: 2}, Reason: "truncated"})
	if ev := s.want("gap"); ev.Reason != "truncated" || at(t, ev.id, "/one/*")[0] != (bridge.Position{Epoch: 2}) {
		t.Fatal(ev.raw, at(t, ev.id, "/one/*"))
	}
	e.node.mu.Lock()
	delete(e.node.topics, "one")
	e.node.mu.Unlock()
	e.node.store.Drop("one", 0)
	e.srv.TopicsChanged()
	if ev := s.want("unsubbed"); ev.Reason != "topic_gone" {
		t.Fatal(ev.raw)
	}
	e.node.put("prices", bridge.PartitionFor([]byte("k"), 4), []byte("k"), value(1))
	s.want("msg")
	e.node.mu.Lock()
	delete(e.node.topics, "prices")
	e.node.mu.Unlock()
	e.srv.TopicsChanged()
	s.want("unsubbed")
	if ev := s.want("bye"); ev.Reason != "topic_gone" {
		t.Fatal(ev.raw)
	}
	if _, err := s.read(); err != io.EOF {
		t.Fatal(err)
	}
	if s := e.source("", "subject", "/one/*"); s.status != http.StatusNotFound {
		t.Fatal(s.status)
	}
}

// A client that talks on after its request is not listened to for long.
func TestStreamClientThatTalks(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	s := e.source("", "subject", "/one/*")
	s.want("subbed")
	go func() {
		for {
			if _, err := s.conn.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100)); err != nil {
				return
			}
		}
	}()
	until(t, "it to be cut", func() bool { return e.srv.Stats().Connections == 0 })
}

// A stream as a later request of a connection that was plain HTTP before, as behind a proxy.
func TestStreamAsALaterRequest(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	s := e.sourceRaw("GET /history/one HTTP/1.1\r\nHost: x\r\n\r\nGET /sse?subject=/one/* HTTP/1.1\r\nHost: x\r\n\r\n", 0)
	if b, err := s.r.ReadString('\n'); err != nil || b != "[]\n" && !strings.Contains(b, "3") {
		t.Fatalf("%q %v", b, err)
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "HTTP/1.1 200") {
			break
		}
	}
	for line := ""; line != "\r\n"; {
		line, _ = s.r.ReadString('\n')
	}
	s.want("subbed")
	s.want("live")
	e.node.put("one", 0, nil, value(1))
	s.want("msg")
}
