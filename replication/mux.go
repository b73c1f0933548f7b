package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

const (
	// prefaceTimeout is how long a new connection may take to say what it is for.
	prefaceTimeout = 5 * time.Second
	// maxPending bounds the connections that have not said it yet, and so what strangers can hold.
	maxPending = 256
	// acceptQueue is how many connections may wait for one of the listeners behind the mux.
	acceptQueue = 64
)

// mux shares one listener among the Raft groups, gRPC and liveness by the preface of each connection.
// A connection without a good preface is closed, counted and logged at debug: the port may be scanned.
type mux struct {
	ln    net.Listener
	self  bridge.NodeID
	conns *connSet
	log   zerolog.Logger

	raft     []*stream // by group
	grpc     *chanListener
	liveness func(context.Context, net.Conn) // serves and closes one connection

	ctx       context.Context // ends with close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	pending   chan struct{}
	strangers atomic.Int64

	mu  sync.Mutex
	odd map[string]bool // hosts with nodes of other versions that were told of
}

func newMux(ln net.Listener, self bridge.NodeID, conns *connSet, groups int, liveness func(context.Context, net.Conn), log zerolog.Logger) *mux {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mux{ln: ln, self: self, conns: conns, odd: map[string]bool{}, log: log, liveness: liveness, ctx: ctx, cancel: cancel,
		pending: make(chan struct{}, maxPending), grpc: newChanListener(ln.Addr()), raft: make([]*stream, groups)}
	return m
}

// start begins to accept. raft must be filled in.
func (m *mux) start() {
	m.wg.Add(1)
	go m.accept()
}

func (m *mux) accept() {
	defer m.wg.Done()
	for {
		c, err := m.ln.Accept()
		if err != nil {
			if m.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: it passes.
			m.log.Warn().Err(err).Msg("accept failed")
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-m.ctx.Done():
				return
			}
		}
		tc, err := m.conns.add(c)
		if err != nil {
			return
		}
		select {
		case m.pending <- struct{}{}:
		default:
			m.strangers.Add(1)
			_ = tc.Close()
			continue
		}
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			m.route(tc)
		}()
	}
}

// route reads the preface and hands the connection on. Liveness is served here.
func (m *mux) route(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(prefaceTimeout))
	p, err := readPreface(c)
	<-m.pending
	if err != nil {
		m.refuse(c, err)
		return
	}
	if p.to != "" && p.to != m.self {
		m.refuse(c, fmt.Errorf("for node %q, which this one, %q, has taken the place of", p.to, m.self))
		return
	}
	_ = c.SetDeadline(time.Time{})
	switch p.kind {
	case kindRaft:
		if int(p.group) >= len(m.raft) {
			m.refuse(c, errPreface)
			return
		}
		m.raft[p.group].in.put(newLimitConn(c, maxRaftMessage))
	case kindGRPC:
		m.grpc.put(c)
	case kindLiveness:
		m.liveness(m.ctx, c)
	}
}

func (m *mux) refuse(c net.Conn, err error) {
	m.strangers.Add(1)
	if errors.Is(err, errOtherVersion) && m.first(c) {
		m.log.Error().Err(err).Stringer("remote", c.RemoteAddr()).Msg("connection refused: use builds that go together")
	} else if m.ctx.Err() == nil && !errors.Is(err, io.EOF) {
		m.log.Debug().Err(err).Stringer("remote", c.RemoteAddr()).Msg("connection refused")
	}
	_ = c.Close()
}

// first says whether this host has not been told of yet; some dozens are.
func (m *mux) first(c net.Conn) bool {
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.odd[host] || len(m.odd) >= maxPending {
		return false
	}
	m.odd[host] = true
	return true
}

// close ends accepting and the liveness connections; those of Raft and gRPC end with the connSet.
func (m *mux) close() {
	m.cancel()
	_ = m.ln.Close()
	_ = m.grpc.Close()
	m.conns.close()
	m.wg.Wait()
}

// chanListener is a net.Listener fed by the mux.
type chanListener struct {
	addr net.Addr
	ch   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newChanListener(addr net.Addr) *chanListener {
	return &chanListener{addr: addr, ch: make(chan net.Conn, acceptQueue), done: make(chan struct{})}
}

// put hands over a connection; one that nobody takes is closed.
func (l *chanListener) put(c net.Conn) {
	select {
	case <-l.done:
		_ = c.Close()
		return
	default:
	}
	select {
	case l.ch <- c:
	case <-l.done:
		_ = c.Close()
	default:
		_ = c.Close()
	}
}

func (l *chanListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.ch:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *chanListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *chanListener) Addr() net.Addr { return l.addr }
