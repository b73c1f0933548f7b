package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Load is many WebSocket clients on a few OS threads. It is made to cost less than any server that it
// measures: one epoll instance a thread, one read(2) for all that a connection holds, frames looked at where
// they lie, nothing allocated for a message.
//
// Each thread owns its connections and what it counts. Others ask it by do, which runs between two turns.
type Load struct {
	threads []*thread
	wg      sync.WaitGroup
}

// dialect is what is spoken on the WebSocket.
type dialect uint8

const (
	speakTidewire   dialect = iota
	speakCentrifuge         // JSON, several objects a frame
	speakFloor              // Tidewire's msg frames and nothing else
)

// client is one connection to make.
type client struct {
	dialect dialect
	addr    netip.AddrPort
	other   netip.AddrPort // where it goes when its server is gone, see Load.roam; zero: back to addr
	host    string         // for the Host header
	path    string
	tls     *tls.Config // nil: without
	token   string      // Tidewire's, may be empty
	subject string      // Tidewire's subject or Centrifuge's channel
	group   uint8       // latencies are counted by group
	small   bool        // has a small buffer, so that it is full soon when it stops reading
	several bool        // gets several keys: what is missing shows in sums alone
	resumes bool        // keeps its vector, to resume with
}

// maxGroups bounds client.group.
const maxGroups = 8

// counters are what a thread counts; they only rise, but for open and ready.
type counters struct {
	open       int64 // connections
	ready      int64 // of these, subscribed
	opened     int64 // subscriptions made
	messages   int64
	bytes      int64
	reads      int64
	missing    int64 // records skipped within a key
	repeated   int64 // records that came again
	foreign    int64 // records that this program did not write
	closed     int64 // connections that ended without being asked to
	resumed    int64 // subscriptions taken up again with nothing missing, as the server says
	notResumed int64 // those where it says that something is
	lastReady  int64 // unix nanoseconds
}

// window is what came since the last one was taken.
type window struct {
	groups [maxGroups]histogram
	cpu    time.Duration // of the load's threads
	wait   time.Duration // for a processor, of the same
	count  counters      // totals since the load began
}

// newLoad starts threads threads without any connection.
func newLoad(threads int) (*Load, error) {
	l := &Load{}
	for i := range threads {
		t, err := newThread(i)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.threads = append(l.threads, t)
		l.wg.Go(t.run)
	}
	return l, nil
}

// open makes connections and waits until all are subscribed.
func (l *Load) open(ctx context.Context, clients []client) error {
	before := l.counters()
	parts := make([][]client, len(l.threads))
	for i := range clients {
		p := &parts[i%len(parts)]
		*p = append(*p, clients[i])
	}
	for i, t := range l.threads {
		t.do(func() { t.add(parts[i]) })
	}
	return l.until(ctx, func(c counters) (bool, string) {
		n := c.opened - before.opened // also of those that were closed since
		return n >= int64(len(clients)), fmt.Sprintf("%d of %d clients are subscribed", n, len(clients))
	})
}

// until waits until a condition holds of the counters, or a connection failed for good, or ctx ends.
func (l *Load) until(ctx context.Context, cond func(counters) (done bool, state string)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := cond(l.counters())
		if done {
			return nil
		}
		if err := l.err(); err != nil {
			return fmt.Errorf("%s: %w", state, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", state, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// err is the first thing that went wrong with a connection, other than being closed once subscribed.
func (l *Load) err() error {
	for _, t := range l.threads {
		if p := t.failed.Load(); p != nil {
			return *p
		}
	}
	return nil
}

// counters returns the sums of what the threads published after their last turn.
func (l *Load) counters() counters {
	var sum counters
	for _, t := range l.threads {
		sum.add(t.published.load())
	}
	return sum
}

func (c *counters) add(o counters) {
	c.open += o.open
	c.ready += o.ready
	c.opened += o.opened
	c.messages += o.messages
	c.bytes += o.bytes
	c.reads += o.reads
	c.missing += o.missing
	c.repeated += o.repeated
	c.foreign += o.foreign
	c.closed += o.closed
	c.resumed += o.resumed
	c.notResumed += o.notResumed
	c.lastReady = max(c.lastReady, o.lastReady)
}

// sub returns what was counted since o; open, ready and lastReady are as they are now.
func (c counters) sub(o counters) counters {
	c.opened -= o.opened
	c.messages -= o.messages
	c.bytes -= o.bytes
	c.reads -= o.reads
	c.missing -= o.missing
	c.repeated -= o.repeated
	c.foreign -= o.foreign
	c.closed -= o.closed
	c.resumed -= o.resumed
	c.notResumed -= o.notResumed
	return c
}

// take returns what was counted since the last call, and begins anew.
func (l *Load) take() *window {
	w := &window{}
	for _, t := range l.threads {
		t.do(func() {
			for i := range w.groups {
				w.groups[i].merge(&t.latency[i])
				t.latency[i] = histogram{}
			}
			cpu := threadCPU()
			w.cpu += cpu - t.cpuTaken
			t.cpuTaken = cpu
			wait := threadWait()
			w.wait += wait - t.waitTaken
			t.waitTaken = wait
			w.count.add(t.count)
		})
	}
	return w
}

// roam has clients whose server goes away connect to their next one and resume there.
func (l *Load) roam() {
	for _, t := range l.threads {
		t.do(func() { t.roaming = true })
	}
}

// deaden has the clients of a group stop reading.
func (l *Load) deaden(group uint8) {
	for _, t := range l.threads {
		t.do(func() { t.deaden(group) })
	}
}

// got is how many messages the clients of a group got.
func (l *Load) got(group uint8) (n int64) {
	for _, t := range l.threads {
		t.do(func() { n += t.got[group] })
	}
	return n
}

// cut ends all connections from this side; with roam before, all connect again.
func (l *Load) cut() {
	for _, t := range l.threads {
		t.do(t.cut)
	}
}

// Close ends all connections and threads.
func (l *Load) Close() error {
	for _, t := range l.threads {
		t.do(func() { t.ending = true })
	}
	l.wg.Wait()
	return nil
}

// published is counters for others to read; a torn read between two of its fields does no harm.
type published [13]atomic.Int64

func (p *published) store(c *counters) {
	for i, v := range [...]int64{c.open, c.ready, c.messages, c.bytes, c.reads, c.missing, c.repeated, c.foreign, c.closed, c.resumed, c.notResumed, c.lastReady, c.opened} {
		p[i].Store(v)
	}
}

func (p *published) load() counters {
	return counters{open: p[0].Load(), ready: p[1].Load(), messages: p[2].Load(), bytes: p[3].Load(), reads: p[4].Load(), missing: p[5].Load(),
		repeated: p[6].Load(), foreign: p[7].Load(), closed: p[8].Load(), resumed: p[9].Load(), notResumed: p[10].Load(), lastReady: p[11].Load(), opened: p[12].Load()}
}
