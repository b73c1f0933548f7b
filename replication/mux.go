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
	"github.com/tidewire/tidewire/replication/peertls"
)

const (
	// prefaceTimeout is how long a new connection may take to prove itself and to say what it is for.
	prefaceTimeout = 5 * time.Second
	// acceptQueue is how many connections may wait for one of the listeners behind the mux.
	acceptQueue = 64
)

// mux shares one listener among the Raft groups, gRPC and liveness by the preface of each connection.
// A connection that does not prove itself (protect.go), or has no good preface, is closed and counted.
type mux struct {
	ln         net.Listener
	self       bridge.NodeID
	protection protection
	conns      *connSet
	log        zerolog.Logger

	raft     []*stream // by group
	grpc     *chanListener
	liveness func(context.Context, net.Conn) // serves and closes one connection

	ctx       context.Context // ends with close
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	unproven  *unproven
	strangers atomic.Int64
	refusals  refusals
}

func newMux(ln net.Listener, self bridge.NodeID, p protection, conns *connSet, groups int, liveness func(context.Context, net.Conn), log zerolog.Logger) *mux {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mux{ln: ln, self: self, protection: p, conns: conns, log: log, liveness: liveness, ctx: ctx, cancel: cancel,
		unproven: newUnproven(), grpc: newChanListener(ln.Addr()), raft: make([]*stream, groups)}
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
		if oldest := m.unproven.add(tc); oldest != nil {
			_ = oldest.Close() // counted by its goroutine
		}
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			m.route(tc)
		}()
	}
}

// route has the connection prove itself, reads the preface and hands it on. Liveness is served here.
func (m *mux) route(raw net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(prefaceTimeout))
	c, err := m.protection.accept(raw)
	if err != nil {
		m.unproven.remove(raw)
		m.refuse(raw, err)
		return
	}
	p, err := readPreface(c)
	m.unproven.remove(raw)
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
	total := m.strangers.Add(1)
	_ = c.Close()
	if m.ctx.Err() != nil {
		return
	}
	// Whoever connects and says nothing may be a load balancer that looks whether the port is open. The rest is
	// told, once a minute: a node that is not set up as it should be, or somebody who has no business here.
	l := m.log.Debug()
	if told := errors.Is(err, errOtherVersion) || errors.Is(err, peertls.ErrNotProven) && !errors.Is(err, io.EOF); told && m.refusals.tell(networkOf(c), time.Now()) {
		l = m.log.Warn()
	}
	l.Err(err).Stringer("remote", c.RemoteAddr()).Int64("refused_so_far", total).Msg("connection to the cluster port refused")
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
