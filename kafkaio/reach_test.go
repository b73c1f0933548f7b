package kafkaio

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// A gate stands before a broker. What passes through it can be held, as by a network that loses everything or by
// a broker that hangs, and it can be shut, as by a broker that is gone.
type gate struct {
	t    *testing.T
	to   string
	addr string

	mu    sync.Mutex
	free  *sync.Cond
	held  bool
	ln    net.Listener // nil: shut
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newGate(t *testing.T, to string) *gate {
	g := &gate{t: t, to: to, addr: kafkatest.Address(t), conns: map[net.Conn]bool{}}
	g.free = sync.NewCond(&g.mu)
	g.open()
	t.Cleanup(func() { g.shut(); g.wg.Wait() })
	return g
}

// open lets everything through.
func (g *gate) open() {
	g.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	g.free.Broadcast()
	if g.ln != nil {
		return
	}
	ln, err := net.Listen("tcp", g.addr)
	must(g.t, err)
	g.ln = ln
	g.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", g.to)
			if err != nil {
				_ = c.Close()
				continue
			}
			g.pass(c, up)
			g.pass(up, c)
		}
	})
}

func (g *gate) pass(from, to net.Conn) {
	g.mu.Lock()
	g.conns[from] = true
	g.mu.Unlock()
	g.wg.Go(func() {
		_, _ = io.Copy(to, &gated{from, g})
		_, _ = from.Close(), to.Close()
		g.mu.Lock()
		delete(g.conns, from)
		g.mu.Unlock()
	})
}

// gated is the reading side of a connection that passes through.
type gated struct {
	net.Conn
	g *gate
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.mu.Lock()
	defer c.g.mu.Unlock()
	for err == nil && c.g.held {
		c.g.free.Wait()
	}
	return n, err
}

// hold accepts connections, and lets nothing through.
func (g *gate) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

// shut refuses connections, and breaks those there are.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln != nil {
		_ = g.ln.Close()
		g.ln = nil
	}
	for c := range g.conns {
		_ = c.Close()
	}
	g.held = false
	g.free.Broadcast()
}

func (g *gate) connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// TestReach: a node knows which groups it could coordinate, also where it reads nothing now.
func TestReach(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := kafkatest.Fake(t, kfake.NumBrokers(2))
	client, err := NewClient(Config{Brokers: c.Brokers()})
	must(t, err)
	a, b := newGate(t, c.Brokers()[0]), newGate(t, c.Brokers()[1])
	topics := NewTopics(client, TopicsConfig{}) // not run: it knows what is told here
	know := func(brokers []string, leaders ...string) {
		topics.mu.Lock()
		defer topics.mu.Unlock()
		topics.brokers = brokers
		for p, addr := range leaders {
			topics.leaders[bridge.TopicPartition{Topic: "t", Partition: int32(p)}] = leaderInfo{addr: addr}
		}
	}
	r := NewReach(client, topics, func(tp bridge.TopicPartition) bridge.GroupID { return bridge.GroupID(tp.Partition) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	// The group of partition 0 is led by a, that of 1 by b, 2 has no leader, and group 3 no partition.
	until := func(what string, want ...bool) {
		t.Helper()
		deadline := time.Now().Add(waitTimeout)
		for {
			var got []bool
			same := true
			for g := range want {
				got = append(got, r.Fit(bridge.GroupID(g)))
				same = same && got[g] == want[g]
			}
			if same {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: fit %v, want %v", what, got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	until("nothing is known", false, false, false, false)
	know([]string{a.addr, b.addr}, a.addr, b.addr, "")
	until("both answer", true, true, true, true)
	a.hold()
	until("a hangs", false, true, true, true)
	a.open()
	until("a answers again", true, true, true, true)
	a.shut()
	until("a refuses connections", false, true, true, true)
	a.open()
	until("a is back", true, true, true, true)
	b.hold()
	a.shut()
	until("none can be reached", false, false, false, false)
	a.open()
	until("a alone is back", true, false, true, true)
	know([]string{a.addr, b.addr}, a.addr, a.addr)
	until("a leads all", true, true, true, true)
	know([]string{a.addr})
	deadline := time.Now().Add(waitTimeout)
	for b.open(); b.connections() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a broker that has left the cluster is still asked")
		}
	}
}
