package wsedge

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// The tests of conflation run in bubbles of their own time, in which a server, its wheel and its clients see
// the same clock and nothing takes long: so what comes when can be compared exactly.

// bubbleEdge is a server without a listener.
func bubbleEdge(t *testing.T, cc cache.Config, change func(*Config)) *edge {
	node := newFakeNode(cc)
	node.topic("prices", TopicView{Partitions: 3, Exposed: true})
	node.topic("one", TopicView{Partitions: 1, Exposed: true})
	cfg := Config{Backend: node, Cache: node.store, Encoder: node.enc, Heartbeat: 5 * time.Second, Shards: 2}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	node.store.OnAppend(srv.LogAppended)
	return &edge{t: t, node: node, srv: srv}
}

// pipeSource asks for a stream over a pipe.
func (e *edge) pipeSource(query url.Values, lastID string) *eventSource {
	ours, theirs := net.Pipe()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /sse?" + query.Encode() + " HTTP/1.1\r\nHost: x\r\n" + lastIDHeader(lastID) + "\r\n")))
	if err != nil {
		e.t.Fatal(err)
	}
	go e.srv.openStream(ours, req, nil)
	s := &eventSource{t: e.t, conn: theirs, r: bufio.NewReaderSize(theirs, 1<<20)}
	resp, err := http.ReadResponse(s.r, nil)
	if err != nil || resp.StatusCode != 200 {
		e.t.Fatalf("%v, %+v", err, resp)
	}
	return s
}

// arrival is a record or gap, and when it came.
type arrival struct {
	at        time.Time
	partition int32
	pos       bridge.Position
	key       string // of a record, with a prefix that tells null from empty
}

func keyName(key []byte) string {
	if key == nil {
		return "null"
	}
	return "k" + string(key)
}

// collect reads a stream until it ends.
func collect(s *eventSource, into func(arrival)) {
	for {
		ev, err := s.read()
		if err != nil {
			if err != io.EOF && err != io.ErrClosedPipe {
				s.t.Errorf("stream: %v", err)
			}
			return
		}
		switch ev.name {
		case "msg":
			subject, _ := ParseSubject(ev.Subject)
			into(arrival{time.Now(), int32(ev.Pos[0]), bridge.Position{Epoch: bridge.Epoch(ev.Pos[1]), Seqno: bridge.Seqno(ev.Pos[2])}, keyName(subject.Key)})
		case "gap":
			into(arrival{time.Now(), int32(ev.At[0][0]), bridge.Position{Epoch: bridge.Epoch(ev.At[0][1]), Seqno: bridge.Seqno(ev.At[0][2])}, "gap"})
		}
	}
}

// A conflated subscription against its naive twin, with random records, gaps, keys and intervals: what comes,
// and when, is what one gets who writes everything down and at each round picks out the last of each key.
func TestConflationIsItsTwin(t *testing.T) {
	subjects := []string{"/prices/*", "/prices/a/*", "/prices/a/1", "/prices"}
	for round := range 40 {
		synctest.Test(t, func(t *testing.T) {
			e := bubbleEdge(t, cache.Config{Budget: 8 << 20}, nil)
			defer e.srv.Close()
			text := subjects[round%len(subjects)]
			subject, _ := ParseSubject(text)
			every := time.Duration(1+rand.IntN(200)) * time.Millisecond
			s := e.pipeSource(url.Values{"subject": {text}, "conflate_ms": {fmt.Sprint(every.Milliseconds())}}, "")
			var got []arrival
			go collect(s, func(a arrival) { got = append(got, a) })
			synctest.Wait()

			var put []arrival
			for range 300 {
				time.Sleep(time.Microsecond) // a time of its own for each
				switch rand.IntN(6) {
				case 0: // a burst
				case 1:
					time.Sleep(time.Duration(rand.Int64N(int64(3 * every))))
				default:
					time.Sleep(time.Duration(rand.Int64N(int64(every/4) + 1)))
				}
				keys := [][]byte{nil, {}, []byte("a/1"), []byte("a/2"), []byte("a/"), []byte("b")}
				key := keys[rand.IntN(len(keys))]
				partition := int32(len(keyName(key)) % 3)
				if text == "/prices/a/1" {
					partition = bridge.PartitionFor([]byte("a/1"), 3)
				}
				if rand.IntN(40) == 0 {
					tp := bridge.TopicPartition{Topic: "prices", Partition: partition}
					e.node.mu.Lock()
					head := &e.node.part(tp).head
					head.Epoch, head.Seqno = head.Epoch+1, 0
					pos := *head
					e.node.mu.Unlock()
					put = append(put, arrival{time.Now(), partition, pos, "gap"})
					e.node.store.Log("prices", partition).AppendGap(cache.Gap{At: pos, Reason: "truncated"})
				} else {
					pos := e.node.put("prices", partition, key, value(1))
					if subject.Matches(key) {
						put = append(put, arrival{time.Now(), partition, pos, keyName(key)})
					}
				}
				synctest.Wait()
			}
			time.Sleep(2*every + time.Second)
			synctest.Wait()
			s.conn.Close()
			synctest.Wait()
			for partition := range int32(3) {
				checkRounds(t, fmt.Sprintf("%s every %v, partition %d", text, every, partition), every, of(put, partition), of(got, partition))
			}
		})
	}
}

func of(all []arrival, partition int32) (list []arrival) {
	for _, a := range all {
		if a.partition == partition {
			list = append(list, a)
		}
	}
	return list
}

// checkRounds is the twin.
func checkRounds(t *testing.T, what string, every time.Duration, put, got []arrival) {
	t.Helper()
	const late = 2 * wheelTick * time.Millisecond
	due := time.Time{} // not before
	for len(got) > 0 || len(put) > 0 {
		if len(got) == 0 {
			t.Fatalf("%s: %d records are left, the first of %v", what, len(put), put[0])
		}
		// A round is what comes at one time. It is of everything that had been put by then.
		now, n, k := got[0].at, 0, 0
		for n < len(got) && got[n].at.Equal(now) {
			n++
		}
		for k < len(put) && !put[k].at.After(now) {
			k++
		}
		var want []arrival
		sent := false
		for i, a := range put[:k] {
			latest := true
			for _, later := range put[i+1 : k] {
				latest = latest && (a.key == "gap" || later.key != a.key)
			}
			if latest {
				want = append(want, a)
				sent = sent || a.key != "gap"
			}
		}
		if len(want) != n {
			t.Fatalf("%s: %d came at %v, want %d: %v, %v", what, n, now, len(want), got[:n], want)
		}
		for i := range want {
			if want[i].pos != got[i].pos || want[i].key != got[i].key {
				t.Fatalf("%s: %v, want %v", what, got[:n], want)
			}
		}
		first := put[0].at
		if first.Before(due) {
			first = due
		}
		if now.Before(due) || now.Sub(first) > late {
			t.Fatalf("%s: a round at %v, %v after it was due", what, now, now.Sub(first))
		}
		if sent {
			due = now.Add(every)
		}
		put, got = put[k:], got[n:]
	}
}

// Clients that are slow, are cut off in the midst of rounds and come back with their vector, conflated or not,
// with a cache that forgets what they have missed: nothing comes twice or out of order, each key's last record
// arrives, and what the chain of a key leaves out is followed by something newer.
func TestConflationCutAndResume(t *testing.T) {
	for round := range 12 {
		synctest.Test(t, func(t *testing.T) {
			cc := cache.Config{Budget: 8 << 20}
			if round%2 == 1 {
				cc = cache.Config{Budget: 40 << 10, SegmentBytes: 2 << 10}
			}
			e := bubbleEdge(t, cc, nil)
			defer e.srv.Close()
			text := []string{"/one/*", "/one/a/*", "/one/a/7"}[round%3]
			subject, _ := ParseSubject(text)
			var got []arrival
			last := map[string]arrival{}
			lastID := ""
			take := func(a arrival) {
				if n := len(got); n > 0 && !a.pos.After(got[n-1].pos) {
					t.Fatalf("%s: %v after %v", text, a, got[n-1])
				}
				if a.key == "gap" {
					t.Fatalf("a gap: %v", a)
				}
				got, last[a.key] = append(got, a), a
			}
			wrote := map[string]bridge.Position{}
			write := func(n int) {
				for range n {
					key := fmt.Appendf(nil, "a/%d", rand.IntN(20))
					pos := e.node.put("one", 0, key, []byte(`"`+strings.Repeat("x", rand.IntN(200))+`"`))
					if subject.Matches(key) {
						wrote[keyName(key)] = pos
					}
				}
			}
			for visit := range 25 {
				q := url.Values{"subject": {text}}
				if visit%5 != 4 {
					q.Set("conflate_ms", fmt.Sprint(1+rand.IntN(50)))
				}
				s := e.pipeSource(q, lastID)
				cut := rand.IntN(30)
				done := make(chan struct{})
				go func() {
					defer close(done)
					defer s.conn.Close()
					for n := 0; n < cut; {
						ev, err := s.read()
						if err != nil {
							return
						}
						switch ev.name {
						case "msg":
							n++
							sub, _ := ParseSubject(ev.Subject)
							take(arrival{time.Now(), 0, bridge.Position{Epoch: bridge.Epoch(ev.Pos[1]), Seqno: bridge.Seqno(ev.Pos[2])}, keyName(sub.Key)})
						case "subbed":
							if ev.Recovered != nil && !*ev.Recovered {
								t.Errorf("%s", ev.raw)
							}
						case "gap":
							t.Errorf("%s", ev.raw)
						}
						lastID = s.lastID
						if rand.IntN(4) == 0 {
							time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
						}
					}
				}()
				for range 10 {
					write(rand.IntN(40))
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				}
				time.Sleep(time.Second) // a session that has all waits for more than it will get
				s.conn.Close()
				<-done
				synctest.Wait()
				if visit%8 == 7 {
					write(1000) // more than the small cache holds
				}
			}
			s := e.pipeSource(url.Values{"subject": {text}, "conflate_ms": {"20"}}, lastID)
			write(10)
			go collect(s, take)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			s.conn.Close()
			synctest.Wait()
			for key, pos := range wrote {
				if last[key].pos != pos {
					t.Errorf("%s: the last of %s is %v, got %v", text, key, pos, last[key].pos)
				}
			}
			if len(got) == 0 || cc.Budget < 1<<20 && e.node.replayed() == 0 {
				t.Errorf("%d came, %d replays: the test shows less than it says", len(got), e.node.replayed())
			}
		})
	}
}

// A thousand keys in a round that takes many turns of a small socket: each once, in order.
func TestConflatedRoundOverManyTurns(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 16 << 20}, func(c *Config) { c.SendBuffer = 4 << 10 })
	v := []byte(`"` + strings.Repeat("x", 1000) + `"`)
	const keys, times = 1000, 5
	want := []uint64{}
	for i := range times * keys {
		pos := e.node.put("one", 0, fmt.Append(nil, i*7919%keys), v)
		if i >= (times-1)*keys {
			want = append(want, uint64(pos.Seqno))
		}
	}
	c := e.dial()
	c.send(`{"op":"sub","subject":"/one/*","history":-1,"conflate_ms":3600000}`)
	c.next()
	var got []uint64
	for len(got) < len(want) {
		got = append(got, c.next().Pos[2])
	}
	if !sort.SliceIsSorted(got, func(i, j int) bool { return got[i] < got[j] }) || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d came, from %d to %d", len(got), got[0], got[len(got)-1])
	}
}

// A round takes a slow client long, and every key gets a new record meanwhile. The round stays what it was when
// it began: else a key that was sent in it would be sent again at once, and one that is written faster than the
// client reads would never be sent.
func TestConflatedRoundStaysWhatItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, every = 1500, time.Minute
		e := bubbleEdge(t, cache.Config{Budget: 32 << 20}, nil)
		defer e.srv.Close()
		v := []byte(`"` + strings.Repeat("x", 1000) + `"`)
		write := func() {
			for i := range keys {
				e.node.put("one", 0, fmt.Append(nil, i), v)
			}
		}
		write()
		s := e.pipeSource(url.Values{"subject": {"/one/*"}, "history": {"-1"}, "conflate_ms": {fmt.Sprint(every.Milliseconds())}}, "")
		last := map[string]time.Time{}
		n := 0
		for n < 2*keys {
			ev, err := s.read()
			if err != nil {
				t.Fatal(err)
			}
			if ev.name != "msg" {
				continue
			}
			n++
			if n%300 == 150 {
				time.Sleep(2 * time.Second) // the pipe is full, and the server waits
				if n < keys {
					write()
				}
			}
			if was, ok := last[ev.Subject]; ok && time.Since(was) < every/2 || !ok && n > keys {
				t.Fatalf("record %d is %s, which came %v ago (%v)", n, ev.Subject, time.Since(was), ok)
			}
			last[ev.Subject] = time.Now()
		}
	})
}

// What waits costs nothing after it has gone: neither unsub nor the end of a session leaves an alarm or a cursor.
func TestConflationLeavesNothingBehind(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dial()
	waiting := func() (alarms, parked int) {
		e.srv.wheel.mu.Lock()
		alarms = e.srv.wheel.count
		e.srv.wheel.mu.Unlock()
		e.srv.mu.Lock()
		defer e.srv.mu.Unlock()
		for s := range e.srv.sessions {
			s.mu.Lock()
			parked += len(s.parked)
			s.mu.Unlock()
		}
		return alarms, parked
	}
	for i := range 3 {
		c.send(`{"op":"sub","subject":"/one/k","conflate_ms":3600000}`)
		c.next()
		c.next()
		for range 2 {
			e.node.put("one", 0, []byte("k"), value(i))
		}
		if m := c.next(); m.Op != "msg" {
			t.Fatal(m.raw)
		}
		e.node.put("one", 0, []byte("k"), value(i))
		until(t, "the cursor to wait", func() bool { _, parked := waiting(); return parked == 1 })
		c.send(`{"op":"unsub","subject":"/one/k"}`)
		if m := c.next(); m.Op != "unsubbed" {
			t.Fatal(m.raw)
		}
		if alarms, parked := waiting(); parked != 0 || alarms != 1 {
			t.Fatalf("%d cursors wait, %d alarms", parked, alarms)
		}
	}
	c.ws.CloseNow()
	until(t, "the alarm to go", func() bool { alarms, _ := waiting(); return alarms == 0 })
}
