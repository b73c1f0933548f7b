package wsedge

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// clientConn is the lowest layer of a connection that was accepted: the socket, and what TLS has sealed for it.
//
// TLS must not meet a socket that takes half of what it is given: a record of which a part was sent can neither be
// taken back nor sealed again. So once a session has the connection, Write takes whatever TLS gives it and sends nothing;
// the session's worker sends what lies there with send, which does not wait. The worker seals a little at a time and goes
// on only when the socket has taken it (see flusher.seal), so what lies here is no more than one step of that.
type clientConn struct {
	net.Conn

	// Set before anybody else has it.
	srv     *Server
	counted netip.Addr     // whom it counts for; not valid: nobody, as for a trusted proxy
	entered bool           // it counts at all
	remote  netip.AddrPort // whose it is by the word of a proxy; not valid: the socket's peer's
	refusal *OpError       // not nil: it is let in no further than to be told this

	left sync.Once

	mu      sync.Mutex
	held    bool   // Write keeps what it is given
	dropped bool   // and from now on takes nothing
	sealed  []byte // what was given and not sent
	sent    int    // bytes of sealed that the socket has taken
	pooled  *[]byte
}

const (
	// sealStep is how many bytes are sealed before the socket is asked to take them: one record of TLS.
	sealStep = 16 << 10
	// sealedStep has room for a step sealed as records of the smallest size that TLS begins a connection with.
	sealedStep = sealStep + 2<<10
	// maxSealed bounds what TLS itself adds to a step: answers to key updates, while the client takes nothing.
	maxSealed = 64 << 10
)

var sealedBuffers = sync.Pool{New: func() any { b := make([]byte, 0, sealedStep); return &b }}

var errSealedFull = errors.New("the client asks for more than it takes")

// hold makes Write keep what it is given. Who calls it sees to it that send is called.
func (c *clientConn) hold() {
	c.mu.Lock()
	c.held = true
	c.mu.Unlock()
}

func (c *clientConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if !c.held {
		c.mu.Unlock()
		return c.Conn.Write(p)
	}
	defer c.mu.Unlock()
	if c.dropped {
		return 0, net.ErrClosed
	}
	if len(c.sealed)-c.sent+len(p) > maxSealed {
		return 0, errSealedFull
	}
	if c.sealed == nil {
		c.pooled = sealedBuffers.Get().(*[]byte)
		c.sealed = (*c.pooled)[:0]
	}
	c.sealed = append(c.sealed, p...)
	return len(p), nil
}

// send has the socket take what it will and says whether that was all.
func (c *clientConn) send(w *tryWriter, raw syscall.RawConn) (all bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent < len(c.sealed) {
		w.reset()
		w.add(c.sealed[c.sent:])
		n, err := w.write(raw)
		w.reset()
		if err != nil {
			return false, err
		}
		c.sent += n
	}
	if c.sent < len(c.sealed) {
		return false, nil
	}
	if c.sealed != nil {
		if *c.pooled = c.sealed[:0]; cap(c.sealed) <= 2*sealedStep {
			sealedBuffers.Put(c.pooled)
		}
		c.sealed, c.sent, c.pooled = nil, 0, nil
	}
	return true, nil
}

// drop forgets what the socket has not taken, and whatever may come after it: nothing more is sent.
func (c *clientConn) drop() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.dropped = true, true
	c.sealed, c.sent, c.pooled = nil, 0, nil
}

// unsent is how many sealed bytes the socket has not taken.
func (c *clientConn) unsent() int {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sealed) - c.sent
}

// Close gives the socket what is left, which is TLS's goodbye at least, but waits for nobody.
func (c *clientConn) Close() error {
	if raw := rawConn(c); raw != nil && c.unsent() > 0 {
		var w tryWriter
		w.init()
		_, _ = c.send(&w, raw)
	}
	c.drop()
	c.left.Do(func() {
		if c.entered {
			c.srv.gate.leave(c.counted)
		}
	})
	return c.Conn.Close()
}

// RemoteAddr is the address of the client, where a proxy has told it.
func (c *clientConn) RemoteAddr() net.Addr {
	if c.remote.IsValid() {
		return net.TCPAddrFromAddrPort(c.remote)
	}
	return c.Conn.RemoteAddr()
}

func (srv *Server) newClientConn(conn net.Conn) *clientConn {
	c := &clientConn{Conn: conn, srv: srv}
	if addr := addressOf(conn.RemoteAddr()); !srv.cfg.Limits.trusted(addr) {
		c.counted = addr
	}
	return c
}

// hearProxy reads what a trusted proxy says of the connection, if it has to, and counts it for who it is for. It returns
// false when the connection must be closed.
func (srv *Server) hearProxy(c *clientConn) bool {
	if !srv.cfg.Limits.ProxyProtocol || !srv.cfg.Limits.trusted(addressOf(c.Conn.RemoteAddr())) {
		return true
	}
	from, err := readProxyHeader(c.Conn)
	if err != nil {
		srv.limited(limitProxy)
		srv.log.Debug().Err(err).Str("remote", c.Conn.RemoteAddr().String()).Msg("connection refused")
		return false
	}
	if !from.IsValid() {
		return true
	}
	c.remote = from
	if srv.cfg.Limits.trusted(from.Addr()) || !c.entered {
		return true
	}
	if !srv.gate.enterAddress(from.Addr()) {
		srv.limited(limitAddress)
		if !srv.turned.begin() {
			return false
		}
		srv.turned.end() // answered in this goroutine, which the limits on connections bound
		c.refusal = refusalFor(limitAddress)
		return true
	}
	c.counted = from.Addr()
	return true
}

// layers takes a connection apart: the socket as it was accepted, nil for one that was not accepted here, and the
// TLS around it, nil if there is none.
func layers(conn net.Conn) (sock *clientConn, sealed *tls.Conn) {
	for {
		switch c := conn.(type) {
		case *prefixConn:
			conn = c.Conn
		case *tls.Conn:
			sealed, conn = c, c.NetConn()
		case *clientConn:
			return c, sealed
		default:
			return nil, sealed
		}
	}
}

// bottom is the connection beneath everything that was put around it in the handshake.
func bottom(conn net.Conn) net.Conn {
	for {
		switch c := conn.(type) {
		case *prefixConn:
			conn = c.Conn
		case *tls.Conn:
			conn = c.NetConn()
		case *clientConn:
			conn = c.Conn
		default:
			return conn
		}
	}
}

// rawConn returns the raw side of a socket, nil where a write cannot be tried.
func rawConn(conn net.Conn) syscall.RawConn {
	conn = bottom(conn)
	sc, ok := conn.(syscall.Conn)
	if !ok || !canTryWrite {
		return nil
	}
	if _, tcp := conn.(*net.TCPConn); !tcp {
		if _, unix := conn.(*net.UnixConn); !unix {
			return nil
		}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tcpConn returns the TCP connection beneath conn, nil if there is none.
func tcpConn(conn net.Conn) *net.TCPConn {
	tcp, _ := bottom(conn).(*net.TCPConn)
	return tcp
}
