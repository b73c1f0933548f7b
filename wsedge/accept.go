package wsedge

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// This file is the way of a connection from the listener to whoever serves it. The accept loop is our
// own because net/http's costs 16 KB more a connection than the WebSocket needs: it looks at the first
// line of the request, keeps what asks for /ws or /sse, and hands everything else, with the bytes read so far,
// to an ordinary net/http server.

// ErrServerClosed is what Serve returns after Drain or Close.
var ErrServerClosed = errors.New("wsedge: server closed")

const (
	firstRead = 2 << 10
	// writeTimeout bounds an HTTP answer to a client that does not read it.
	writeTimeout = time.Minute
)

// Serve accepts connections from ln until Drain or Close, and closes it. It returns ErrServerClosed then,
// and otherwise the listener's error. It may be called for several listeners.
func (srv *Server) Serve(ln net.Listener) error {
	srv.mu.Lock()
	if srv.closed || srv.draining {
		srv.mu.Unlock()
		ln.Close()
		return ErrServerClosed
	}
	srv.listeners[ln] = true
	srv.wg.Add(1)
	srv.mu.Unlock()
	defer srv.wg.Done()
	defer func() {
		ln.Close()
		srv.mu.Lock()
		delete(srv.listeners, ln)
		srv.mu.Unlock()
	}()
	var pause time.Duration
	for {
		conn, err := ln.Accept()
		if err != nil {
			srv.mu.Lock()
			ended := srv.closed || srv.draining
			srv.mu.Unlock()
			if ended {
				return ErrServerClosed
			}
			// Out of file descriptors, or the peer was gone before we came: both pass. net.Error's
			// Temporary is deprecated for good reasons, but Accept is where it still has a meaning.
			var temporary interface{ Temporary() bool }
			if !errors.As(err, &temporary) || !temporary.Temporary() {
				return fmt.Errorf("accept: %w", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			srv.log.Warn().Err(err).Dur("pause", pause).Msg("accept failed")
			select {
			case <-time.After(pause):
			case <-srv.ctx.Done():
			}
			continue
		}
		pause = 0
		if !srv.welcome(conn) {
			return ErrServerClosed
		}
	}
}

// welcome lets an accepted connection in, or refuses it; false when the server takes none any more. Nothing here waits.
func (srv *Server) welcome(conn net.Conn) bool {
	sock := srv.newClientConn(conn)
	limit := srv.gate.enter(sock.counted)
	sock.entered = limit == ""
	if !sock.entered {
		srv.limited(limit)
		if !srv.turned.begin() {
			sock.Close()
			return true
		}
		sock.refusal = refusalFor(limit)
	}
	srv.mu.Lock()
	open := !srv.closed && !srv.draining
	var goes net.Conn
	begun := false
	if open {
		if goes, begun = srv.gate.begin(conn); begun {
			srv.wg.Add(1)
		}
	}
	srv.mu.Unlock()
	if goes != nil {
		cut(goes)
	}
	if open && (goes != nil || !begun) {
		srv.limited(limitHandshakes)
	}
	if !begun {
		if sock.refusal != nil {
			srv.turned.end()
		}
		sock.Close()
		return open
	}
	refused := sock.refusal != nil
	go func() {
		defer srv.wg.Done()
		if refused {
			defer srv.turned.end()
		}
		srv.meet(sock)
	}()
	return true
}

// cut ends a connection that is in its handshake; its own goroutine does the rest. Only the socket is closed: TLS would say goodbye, and
// might wait for a client that does not read.
func cut(conn net.Conn) { bottom(conn).Close() }

// mostUnsent is how many bytes wait in the kernel for a client that does not take them, beside what is on its way.
const mostUnsent = 256 << 10

// meet reads what stands in front of a connection's first request, a proxy's word and the handshake of TLS, then the
// request's head, and passes the connection on.
func (srv *Server) meet(sock *clientConn) {
	defer srv.gate.end(sock.Conn)
	if tcp := tcpConn(sock); tcp != nil {
		setMostUnsent(tcp, mostUnsent)
		if srv.cfg.SendBuffer > 0 {
			_ = tcp.SetWriteBuffer(srv.cfg.SendBuffer)
		}
	}
	_ = sock.SetDeadline(time.Now().Add(srv.cfg.HandshakeTimeout))
	if !srv.hearProxy(sock) {
		sock.Close()
		return
	}
	conn := net.Conn(sock)
	if srv.tls != nil {
		sealed := srv.shakeTLS(sock)
		if sealed == nil {
			return
		}
		conn = sealed
	}
	head, ours, err := readHead(conn, srv.cfg.Limits.HeaderBytes)
	if err != nil {
		if isTimeout(err) {
			srv.limited(limitHandshakeTime)
		}
		conn.Close()
		return
	}
	if sock.refusal != nil {
		srv.refuseRequest(conn, head, ours, sock.refusal)
		return
	}
	if !ours {
		_ = conn.SetDeadline(time.Time{})
		srv.httpIn.hand(&prefixConn{Conn: conn, prefix: head})
		return
	}
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end < 0 {
		srv.limited(limitHeaderBytes)
		fmt.Fprintf(conn, "HTTP/1.1 431 %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", http.StatusText(http.StatusRequestHeaderFieldsTooLarge))
		conn.Close()
		return
	}
	srv.shake(conn, head[:end+4], head[end+4:])
}

// readHead reads until the first line shows that the request is not for us, or to the end of the
// headers; a head that is too long is returned as far as it was read.
func readHead(conn net.Conn, limit int) (head []byte, ours bool, err error) {
	head = make([]byte, 0, min(firstRead, limit))
	for {
		if len(head) == cap(head) {
			head = append(make([]byte, 0, min(2*cap(head), limit)), head...)
		}
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if !maybeOurs(head) {
			return head, false, nil
		}
		if bytes.Contains(head[max(0, len(head)-n-3):], []byte("\r\n\r\n")) || len(head) == limit {
			return head, true, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// ourPaths are those whose connections are ours from the first request on.
var ourPaths = [...]string{"GET " + pathWS, "GET " + pathSSE}

// maybeOurs says whether what has come so far can be the beginning of a request for /ws or a stream.
func maybeOurs(head []byte) bool {
	for _, line := range ourPaths {
		n := min(len(head), len(line))
		if string(head[:n]) == line[:n] && (len(head) <= len(line) || head[len(line)] == ' ' || head[len(line)] == '?') {
			return true
		}
	}
	return false
}

// takeOver gives the connection of a request that came through net/http, as it does behind a proxy that keeps
// connections open, to who serves it from here on.
func (srv *Server) takeOver(w http.ResponseWriter, r *http.Request, serve func(conn net.Conn, r *http.Request, ahead []byte)) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		srv.answerErrorAs(w, http.StatusInternalServerError, &OpError{Code: codeBadRequest, Message: "the connection cannot be upgraded: use HTTP/1.1"})
		return
	}
	ahead, _ := rw.Reader.Peek(rw.Reader.Buffered())
	_ = conn.SetDeadline(time.Now().Add(srv.cfg.HandshakeTimeout))
	srv.mu.Lock()
	ok := !srv.closed
	var goes net.Conn
	if ok {
		if goes, ok = srv.gate.begin(conn); ok {
			srv.wg.Add(1)
		}
	}
	srv.mu.Unlock()
	if goes != nil || !ok {
		srv.limited(limitHandshakes)
	}
	if goes != nil {
		cut(goes)
	}
	if !ok {
		conn.Close()
		return
	}
	defer srv.wg.Done()
	defer srv.gate.end(conn)
	serve(conn, r, bytes.Clone(ahead))
}

// newHTTPServer serves what does not come for /ws or /sse first.
func (srv *Server) newHTTPServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(srv.route),
		ReadHeaderTimeout: srv.cfg.HandshakeTimeout,
		// A body that never comes would be waited for without end, even after it was answered 404. A
		// handler that streams sets deadlines of its own (http.ResponseController).
		ReadTimeout:    srv.cfg.HandshakeTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: srv.cfg.Limits.HeaderBytes,
	}
}

// prefixConn is a connection of which some bytes have been read already.
type prefixConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
			c.prefix = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// connQueue is a net.Listener whose connections are handed to it.
type connQueue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue() *connQueue {
	return &connQueue{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *connQueue) hand(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *connQueue) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero} }
