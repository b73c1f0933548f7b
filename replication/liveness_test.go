package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fakePeer answers liveness connections as node "b" with an incarnation of the test's choice.
type fakePeer struct {
	ln    net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	inc   uint64
	mute  bool     // says nothing after the hello
	told  greeting // zero: a build that says nothing of itself
	conns []net.Conn
}

func newFakePeer(t *testing.T) *fakePeer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePeer{ln: ln, inc: 1}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			hello := append(binary.BigEndian.AppendUint64([]byte{1, 'b'}, p.inc), 0) // and it has data
			if p.told.Wire != 0 {
				told := p.told.encode()
				hello[len(hello)-1] = helloGreeting
				hello = append(binary.BigEndian.AppendUint16(hello, uint16(len(told))), told...)
			}
			mute := p.mute
			p.mu.Unlock()
			p.wg.Add(1)
			go func() {
				defer p.wg.Done()
				if mute {
					return
				}
				_, _ = readPreface(c)
				_, _ = c.Write(hello)
				b := make([]byte, 1)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); p.cut(); p.wg.Wait() })
	return p
}

// cut breaks the connections there are.
func (p *fakePeer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *fakePeer) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func TestWatcherTellsABreakFromADeath(t *testing.T) {
	p := newFakePeer(t)
	conns := newConnSet()
	deaths, births, meetings := make(chan death, 10), make(chan struct{}, 10), make(chan struct{}, 1000)
	w := &watcher{
		id: "b", route: newRoute(p.ln.Addr().String()), dialer: dialer{conns: conns}, log: testLog(),
		cfg: Config{PingEvery: 10 * time.Millisecond, Silence: 2 * time.Second},
		met: func(hello) { meetings <- struct{}{} }, born: func() { births <- struct{}{} }, died: func(d death) { deaths <- d },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	defer func() { cancel(); <-done }()
	connected := func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) > 0 }

	// An answer that takes longer than handshakeTimeout, on a machine that stood still, is a death like another: then
	// nothing is shown.
	var began time.Time
	begin := func() { began = time.Now() }
	closed := func(what string) {
		t.Helper()
		if d := <-deaths; d != deathClosed && time.Since(began) < handshakeTimeout {
			t.Errorf("%s: %v", what, d)
		}
	}
	<-births
	<-meetings
	// A connection that breaks and is made again is no death.
	for {
		begin()
		p.cut()
		<-meetings
		if _, ok := w.alive(); ok && len(deaths) == 0 {
			break
		}
		if time.Since(began) < handshakeTimeout {
			t.Fatal("a break was taken for a death")
		}
		<-deaths
		<-births
	}
	// One that is made to another process is.
	p.set(func() { p.inc = 2 })
	begin()
	p.cut()
	closed("restarted")
	<-births
	// One that is accepted but not answered: it may be stopped.
	p.set(func() { p.mute = true })
	eventually(t, "connected", connected)
	p.cut()
	if d := <-deaths; d != deathSilent {
		t.Errorf("does not answer: %v", d)
	}
	if _, ok := w.alive(); ok {
		t.Error("alive although it does not answer")
	}
	p.set(func() { p.mute = false })
	p.cut()
	<-births
	// One that is refused.
	_ = p.ln.Close()
	begin()
	p.cut()
	closed("refused")
}

// stallConn is a connection of a process that stands still for a while: its read ends by its deadline long
// after, although there is something to read.
type stallConn struct {
	net.Conn
	reads atomic.Int32
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if c.reads.Add(1) == 3 {
		time.Sleep(c.stall)
		return 0, os.ErrDeadlineExceeded
	}
	return c.Conn.Read(p)
}

// A process that did not get to run for longer than Silence took all others for dead (the calm run of ten
// minutes on a busy machine: all three nodes of each other, at the same moment).
func TestStandingStillIsNoSilenceOfOthers(t *testing.T) {
	p := newFakePeer(t)
	conn, err := net.Dial("tcp", p.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(preface{kind: kindLiveness}.encode()); err != nil {
		t.Fatal(err)
	}
	w := &watcher{cfg: Config{PingEvery: 5 * time.Millisecond, Silence: 2 * time.Second}, log: testLog()}
	c := &stallConn{Conn: conn, stall: 3 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- w.hold(t.Context(), c) }()
	eventually(t, "it goes on after a standstill of its own", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("ended after a standstill of our own: %v", err)
		default:
		}
		return c.reads.Load() > 10
	})
	p.cut()
	if err := <-ended; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a break counts as silence: %v", err)
	}
}
