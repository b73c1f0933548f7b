package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file is a connection's TLS. The thread goes on to read sockets as epoll says; crypto/tls gets the bytes from
// a wire, which is its socket as it were, and gives back what they say.
//
// A handshake that finds nothing to read cannot be taken up again later. So it has a goroutine of its own, whose wire
// waits, and the thread has the connection back when it is over: from then on its wire says at once that there is
// nothing more, an error that crypto/tls takes for a timeout, after which one may read on.

const (
	// maxShake bounds what a server may send in a handshake before it is read: a flight of it has a few KiB.
	maxShake = 64 << 10
	// plainSize is what one read from TLS takes: no record holds more.
	plainSize = 16 << 10
)

// wire is what lies below a connection's TLS.
type wire struct {
	// Of a net.Conn a handshake without time limit, Read and Write of crypto/tls call Read and Write alone.
	net.Conn

	mu     sync.Mutex
	more   sync.Cond // in or ended have changed
	fd     int       // -1: closed
	in     []byte    // read from the socket, and not yet by crypto/tls
	ended  error     // nothing follows in
	shaken bool      // the handshake is over: Read does not wait
}

// errDry says that a wire has nothing to read now.
var errDry error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "nothing was received" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }

func newWire(fd int) *wire {
	w := &wire{fd: fd}
	w.more.L = &w.mu
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.in) == 0 {
		switch {
		case w.ended != nil:
			return 0, w.ended
		case w.shaken:
			return 0, errDry
		}
		w.more.Wait()
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// Write does not wait: what a client says is little, see thread.send.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return 0, net.ErrClosed // the number may be another connection's by now
	}
	n, err := unix.Write(w.fd, p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	return max(0, n), err
}

// push adds what was read from the socket during the handshake.
func (w *wire) push(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.in)+len(b) > maxShake {
		return fmt.Errorf("the server sent more than %d bytes into a TLS handshake", maxShake)
	}
	w.in = append(w.in, b...)
	w.more.Signal()
	return nil
}

// end says that the server sends nothing more.
func (w *wire) end(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = why
	w.more.Signal()
}

// close ends the handshake if it is not over; the socket is its owner's to close.
func (w *wire) close() {
	w.end(net.ErrClosed)
	w.mu.Lock()
	w.fd = -1
	w.mu.Unlock()
}

// secure begins the TLS handshake of a connection.
func (t *thread) secure(c *conn) {
	w := newWire(c.fd)
	sealed := tls.Client(w, c.tls)
	c.state, c.wire, c.sealed = stateSecuring, w, sealed
	t.shaking.Go(func() {
		err := sealed.Handshake()
		t.post(func() { t.secured(c, w, err) })
	})
}

// secured goes on after it, with the WebSocket handshake.
func (t *thread) secured(c *conn, w *wire, err error) {
	if c.wire != w {
		return // it was lost meanwhile
	}
	if err != nil {
		t.lost(c, fmt.Errorf("TLS with %s: %w", c.host, err))
		return
	}
	if t.agreed == "" {
		s := c.sealed.ConnectionState()
		t.agreed = fmt.Sprintf("%s, %s, %s", tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID)
	}
	w.mu.Lock()
	w.shaken = true
	w.mu.Unlock()
	t.cur, t.now = c, time.Now().UnixNano()
	t.request(c)
	t.unseal(c) // what came behind the handshake, such as tickets
}

// unseal takes what TLS makes of a wire's bytes.
func (t *thread) unseal(c *conn) {
	for w := c.wire; w != nil && c.wire == w; { // lost takes it away
		n, err := c.sealed.Read(t.plain)
		switch {
		case errors.Is(err, errDry):
			return
		case err != nil:
			t.lost(c, fmt.Errorf("TLS: %w", err))
		default:
			t.take(c, t.plain[:n])
		}
	}
}

// sealedBytes takes what was read from the socket of a connection with TLS.
func (t *thread) sealedBytes(c *conn, b []byte) {
	if c.state == stateSecuring {
		if err := c.wire.push(b); err != nil {
			t.lost(c, err)
		}
		return
	}
	// Nothing is left in it: TLS was read until the wire was dry. And crypto/tls copies what it does not use at once.
	c.wire.in = b
	t.unseal(c)
}

// over handles the end of what a server sends.
func (t *thread) over(c *conn, why error) {
	if c.state != stateSecuring {
		t.lost(c, why)
		return
	}
	// Which of the two ends gave up the handshake knows: a server that was told that its certificate is no good hangs up.
	// Until that says so, epoll would report the end again and again.
	_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
	c.wire.end(why)
}

// agreed is what a handshake of a thread agreed on, empty if there was none.
func (l *Load) agreed() (s string) {
	for _, t := range l.threads {
		t.do(func() {
			if s == "" {
				s = t.agreed
			}
		})
	}
	return s
}
