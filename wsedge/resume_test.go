package wsedge

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// follower is a client as PROTOCOL.md wants it: it keeps its vector, and it minds every rule.
type follower struct {
	t       *testing.T
	subject Subject
	vector  map[int32]bridge.Position
	got     map[int32][]bridge.Position
	began   bool
}

func (f *follower) vectorText() string {
	var v Vector
	for p, pos := range f.vector {
		v = append(v, PartitionPosition{p, pos})
	}
	return string(appendVector(nil, v))
}

// visit connects, resumes, and takes n messages or what comes until stop says it has all.
func (f *follower) visit(e *edge, n int, all func() bool) {
	c := e.dial()
	defer c.ws.CloseNow()
	if !f.began {
		c.send(`{"op":"sub","id":1,"subject":%q}`, f.subject.String())
	} else {
		c.send(`{"op":"sub","id":1,"subject":%q,"resume":%s}`, f.subject.String(), f.vectorText())
	}
	m := c.next()
	if m.Op != "subbed" || f.began && (m.Recovered == nil || !*m.Recovered) {
		f.t.Fatalf("resume with %s: %s", f.vectorText(), m.raw)
	}
	for _, at := range m.At {
		pos := bridge.Position{Epoch: bridge.Epoch(at[1]), Seqno: bridge.Seqno(at[2])}
		if was, ok := f.vector[int32(at[0])]; ok && pos != was {
			f.t.Fatalf("resumed at %s from %s", m.raw, f.vectorText())
		}
		f.vector[int32(at[0])] = pos
	}
	f.began = true
	for i := 0; i < n && !all(); i++ {
		m := c.next()
		if m.Op == "live" || m.Op == "hb" {
			i--
			continue
		}
		if m.Op != "msg" {
			f.t.Fatalf("%s", m.raw)
		}
		p, pos := int32(m.Pos[0]), bridge.Position{Epoch: bridge.Epoch(m.Pos[1]), Seqno: bridge.Seqno(m.Pos[2])}
		if !pos.After(f.vector[p]) {
			f.t.Fatalf("repeated: %s at %v", m.raw, f.vector[p])
		}
		if m.Prev != nil && (bridge.Position{Epoch: bridge.Epoch(m.Prev[0]), Seqno: bridge.Seqno(m.Prev[1])}).After(f.vector[p]) {
			f.t.Fatalf("missed what is before %s: at %v", m.raw, f.vector[p])
		}
		f.vector[p] = pos
		f.got[p] = append(f.got[p], pos)
	}
}

// wanted is what a subscriber that began at the start has to have, by partition.
func (n *fakeNode) wanted(subject Subject) map[int32][]bridge.Position {
	n.mu.Lock()
	defer n.mu.Unlock()
	want := make(map[int32][]bridge.Position)
	for tp, p := range n.parts {
		for _, r := range p.records {
			if tp.Topic == subject.Topic && subject.Matches(r.Key) {
				want[tp.Partition] = append(want[tp.Partition], r.Pos)
			}
		}
	}
	return want
}

// A subscriber that is cut at random again and again, with a cache so small that it often has to be read
// from Kafka, misses nothing and sees nothing twice: one key, a prefix, a whole topic, null keys.
func TestCutAndResume(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 20 << 10, SegmentBytes: 1 << 10}, nil)
	subjects := []string{"/prices/k/3", "/prices/k/*", "/prices/*", "/prices"}
	var followers sync.WaitGroup
	stop := make(chan struct{})
	var writing sync.WaitGroup
	begun, cut := make(chan struct{}, len(subjects)), make(chan struct{}, len(subjects))
	for _, text := range subjects {
		subject, err := ParseSubject(text)
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{t: t, subject: subject, vector: make(map[int32]bridge.Position), got: make(map[int32][]bridge.Position)}
		followers.Go(func() {
			var once, twice sync.Once // a follower that fails must not keep the others waiting
			defer once.Do(func() { begun <- struct{}{} })
			defer twice.Do(func() { cut <- struct{}{} })
			f.visit(e, 0, func() bool { return true })
			once.Do(func() { begun <- struct{}{} })
			for range 20 {
				f.visit(e, rand.IntN(50), func() bool { return false })
				time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // the records go on meanwhile
			}
			twice.Do(func() { cut <- struct{}{} })
			<-stop
			want := e.node.wanted(subject)
			f.visit(e, 1<<30, func() bool {
				for p, list := range want {
					if len(f.got[p]) < len(list) {
						return false
					}
				}
				return true
			})
			for p, list := range want {
				if fmt.Sprint(list) != fmt.Sprint(f.got[p]) {
					t.Errorf("%s, partition %d: got %d of %d", subject, p, len(f.got[p]), len(list))
				}
			}
		})
	}
	for range subjects {
		<-begun
	}
	quit := make(chan struct{})
	writing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			key := fmt.Appendf(nil, "k/%d", i%11)
			if i%13 == 0 {
				e.node.put("prices", int32(i%4), nil, value(i))
			} else {
				e.node.put("prices", bridge.PartitionFor(key, 4), key, value(i))
			}
			if i%3 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for range subjects {
		<-cut
	}
	close(quit)
	writing.Wait()
	close(stop)
	followers.Wait()
	e.node.mu.Lock()
	replays := e.node.replays
	e.node.mu.Unlock()
	if replays == 0 {
		t.Error("nobody had to be read from Kafka: the test shows less than it says")
	}
	t.Logf("%d replays", replays)
}

// A client comes from a node that was a little ahead: its position is good, but the records up to it are
// still on their way to the cache here. They must not be sent to it again.
func TestResumeAheadOfTheCache(t *testing.T) {
	for _, subject := range []string{"/one/a/k", "/one/a/*", "/one/*"} {
		e := newEdge(t, cache.Config{}, nil)
		tp := bridge.TopicPartition{Topic: "one"}
		for i := range 5 {
			e.node.put("one", 0, []byte("a/k"), value(i))
		}
		e.node.mu.Lock()
		e.node.part(tp).head.Seqno = 8
		e.node.mu.Unlock()
		c := e.dial()
		c.send(`{"op":"sub","subject":%q,"resume":[[0,1,8]]}`, subject)
		if m := c.next(); m.Recovered == nil || !*m.Recovered || m.At[0] != [3]uint64{0, 1, 8} {
			t.Fatal(m.raw)
		}
		c.expect(fmt.Sprintf(`{"op":"live","subject":%q}`, subject))
		e.node.mu.Lock()
		e.node.part(tp).head.Seqno = 5
		e.node.mu.Unlock()
		for i := 5; i < 8; i++ {
			e.node.put("one", 0, []byte("a/k"), value(i))
			c.send(`{"op":"ping"}`)
			c.expect(`{"op":"pong"}`) // and no msg
		}
		for i := 8; i < 12; i++ {
			e.node.put("one", 0, []byte("a/k"), value(i))
		}
		for i := uint64(9); i <= 12; i++ {
			if m := c.next(); m.Pos[2] != i {
				t.Fatalf("%s: %s, not %d", subject, m.raw, i)
			}
		}
	}
}

// A node that has just started fills its cache while clients come back to it that were ahead of it. Records
// that were appended between the look at how far the cache had got and the reading of it were sent again.
func TestResumeWhileTheCacheIsFilled(t *testing.T) {
	const had = 20000
	for _, subject := range []string{"/one/a/k", "/one/a/*", "/one/*"} {
		e := newEdge(t, cache.Config{}, nil)
		tp := bridge.TopicPartition{Topic: "one"}
		setHead := func(seqno bridge.Seqno) {
			e.node.mu.Lock()
			defer e.node.mu.Unlock()
			e.node.part(tp).head.Seqno = seqno
		}
		setHead(had)
		c := e.dial()
		c.send(`{"op":"sub","subject":%q,"resume":[[0,1,%d]]}`, subject, had)
		if m := c.next(); m.Recovered == nil || !*m.Recovered {
			t.Fatal(m.raw)
		}
		c.expect(fmt.Sprintf(`{"op":"live","subject":%q}`, subject))
		setHead(0)
		for i := range had + 3 {
			e.node.put("one", 0, []byte("a/k"), value(i))
		}
		for i := uint64(had + 1); i <= had+3; i++ {
			if m := c.next(); m.Pos[2] != i {
				t.Fatalf("%s: %s, not %d", subject, m.raw, i)
			}
		}
	}
}

// The cache reaches a client's position while the subscription is still being made, since another partition
// had to be asked about. The place that was found for it before lay in front of everything that came since,
// which was sent again.
func TestResumeCaughtUpWithMeanwhile(t *testing.T) {
	for _, subject := range []string{"/prices/a/*", "/prices/*"} {
		e := newEdge(t, cache.Config{}, nil)
		tp := bridge.TopicPartition{Topic: "prices"}
		e.node.mu.Lock()
		e.node.part(tp).head.Seqno = 5
		e.node.mu.Unlock()
		e.node.onResolve = func(other bridge.TopicPartition) {
			if other.Partition != 1 {
				return
			}
			e.node.mu.Lock()
			e.node.part(tp).head.Seqno = 0
			e.node.mu.Unlock()
			for i := range 8 {
				e.node.put("prices", 0, []byte("a/k"), value(i))
			}
		}
		c := e.dial()
		c.send(`{"op":"sub","subject":%q,"resume":[[0,1,5],[1,1,0]]}`, subject)
		if m := c.next(); m.Recovered == nil || !*m.Recovered || m.At[0] != [3]uint64{0, 1, 5} {
			t.Fatal(m.raw)
		}
		for i := uint64(6); i <= 8; i++ {
			if m := c.next(); m.Pos[2] != i {
				t.Fatalf("%s: %s, not %d", subject, m.raw, i)
			}
		}
	}
}

// A topic grows, and a client comes with the vector of a node that has learned of that sooner. Before, it was
// answered bad_request, after which clients give up.
func TestResumeFromANodeThatKnowsMorePartitions(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	const sub = `{"op":"sub","id":1,"subject":"/prices/*","resume":[[0,0,0],[4,0,0]]}`
	ask := func() message {
		c := e.dial()
		defer c.ws.CloseNow()
		c.send(sub)
		return c.next()
	}
	e.node.mu.Lock()
	e.node.down = true
	e.node.mu.Unlock()
	if m := ask(); m.Op != "error" || m.Code != "unavailable" || m.RetryMS == 0 {
		t.Errorf("with Kafka away: %s", m.raw)
	}
	e.node.mu.Lock()
	e.node.down = false
	e.node.mu.Unlock()
	if m := ask(); m.Op != "error" || m.Code != "bad_request" {
		t.Errorf("a partition that there is not: %s", m.raw)
	}
	e.node.mu.Lock()
	e.node.grown = map[string]TopicView{"prices": {Partitions: 5, Exposed: true}}
	e.node.mu.Unlock()
	if m := ask(); m.Op != "subbed" || m.Recovered == nil || !*m.Recovered || len(m.At) != 5 {
		t.Errorf("an added partition: %s", m.raw)
	}
}

// The partitions of one sub are asked for side by side: a node that is behind asks a coordinator for each of them. Where
// one of them cannot be looked up, the client is to try again.
func TestPlacesAreResolvedSideBySide(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	const partitions = 4 // of prices
	var asked atomic.Int32
	all := make(chan struct{})
	e.node.onResolve = func(bridge.TopicPartition) {
		if asked.Add(1) == partitions {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(waitTime):
			t.Errorf("%d of %d are asked for at a time", asked.Load(), partitions)
		}
	}
	c := e.dial()
	const sub = `{"op":"sub","subject":"/prices/*","resume":[[0,1,0],[1,1,0],[2,1,0],[3,1,0]]}`
	c.send(sub)
	if m := c.next(); m.Op != "subbed" || len(m.At) != partitions {
		t.Error(m.raw)
	}
	c.send(`{"op":"unsub","subject":"/prices/*"}`)
	for c.next().Op != "unsubbed" {
	}
	e.node.mu.Lock()
	e.node.down = true
	e.node.mu.Unlock()
	c.send(sub)
	if m := c.next(); m.Code != "unavailable" || m.RetryMS != 20 {
		t.Error(m.raw)
	}
}
