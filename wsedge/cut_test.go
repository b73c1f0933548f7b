package wsedge

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
)

// countedConn counts what is written to it.
type countedConn struct {
	net.Conn
	writes atomic.Int32
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A handshake that goes to make room is cut: nothing is written to it, for who cuts it is the one who accepts, and would
// wait for a socket that is full.
func TestHandshakeThatGoesIsNotWrittenTo(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.Handshakes = 1 })
	ours, theirs := net.Pipe()
	defer ours.Close()
	below := &countedConn{Conn: theirs}
	sealed := tls.Server(below, &tls.Config{Certificates: []tls.Certificate{testCertificate()}})
	shaken := make(chan error, 1)
	go func() { shaken <- tls.Client(ours, trusting(testCertificate())).Handshake() }()
	if err := sealed.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	before := below.writes.Load()
	// As of one that came as a later request of a connection that was plain HTTP before.
	if _, ok := e.srv.gate.begin(&prefixConn{Conn: sealed}); !ok {
		t.Fatal("no room for one")
	}
	e.srv.gate.mu.Lock()
	oldest := e.srv.gate.order.Front()
	s := oldest.Value.(shaker)
	s.began = s.began.Add(-2 * handshakeYouth)
	oldest.Value = s
	e.srv.gate.mu.Unlock()
	e.dial()
	if _, err := ours.Read(make([]byte, 1)); err == nil {
		t.Error("it is still there")
	}
	_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
	if n := below.writes.Load() - before; n > 0 {
		t.Errorf("it was written to %d times", n)
	}
}
