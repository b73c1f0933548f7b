package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// Each node holds one connection to each other node for nothing but to see it break. After the preface
//
//	answer:  1 byte length, node id, 8 bytes incarnation (random, of the process), big-endian,
//	         1 byte: bit 0 says that the node has no data (newcomer.go), the others are 0
//	then:    the asking side sends a byte every PingEvery; the other side sends each back
//
// A process that dies closes its sockets, so the break is known in a millisecond. It counts as a death
// when an immediate redial is refused, or reaches another incarnation: a connection may break for other
// reasons. A peer that only falls silent (SIGSTOP, a cable) is no longer alive after Silence, without a
// redial, which would take as long again to fail; but whether that costs it a leadership also depends on
// Raft's own heartbeats and on what the others hear (takeover.go).
const (
	// livenessIdle is when the answering side gives up a connection.
	livenessIdle = 30 * time.Second
	// redialEvery is the period of dialling a peer that is away.
	redialEvery = 200 * time.Millisecond
	// handshakeTimeout is how long a peer may take to answer a redial. A process that is stopped still
	// accepts connections, by its kernel, but does not answer.
	handshakeTimeout = 500 * time.Millisecond
)

// answerLiveness serves one liveness connection until it breaks.
func (n *Node) answerLiveness(_ context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	first := append([]byte{byte(len(n.cfg.NodeID))}, n.cfg.NodeID...)
	first = binary.BigEndian.AppendUint64(first, n.incarnation)
	var flags byte
	if n.blank() {
		flags |= helloBlank
	}
	first = append(first, flags)
	buf := make([]byte, 64)
	out := first
	for {
		_ = c.SetDeadline(time.Now().Add(livenessIdle))
		if _, err := c.Write(out); err != nil {
			return
		}
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		out = buf[:k]
	}
}

// death is how a peer was lost.
type death int

const (
	deathClosed death = iota // its process is gone
	deathSilent              // it does not answer
)

func (d death) String() string {
	if d == deathSilent {
		return "silent"
	}
	return "gone"
}

// watcher holds the connection to one peer.
type watcher struct {
	peer   Peer
	dialer dialer
	cfg    Config
	log    zerolog.Logger
	met    func(blank bool) // it answered, and said whether it has data
	born   func()           // the peer is there (again)
	died   func(death)      // it is not any more; must return soon
	since  atomic.Int64     // unix nanoseconds since when it is alive; 0: it is not
	known  uint64           // its last incarnation
}

// alive says since when the peer has been there.
func (w *watcher) alive() (time.Time, bool) {
	ns := w.since.Load()
	return time.Unix(0, ns), ns != 0
}

func (w *watcher) run(ctx context.Context) {
	for ctx.Err() == nil {
		c, who, err := w.connect(ctx)
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		_, was := w.alive()
		if err != nil {
			if was {
				d := deathClosed
				var ne net.Error
				if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) ||
					errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) {
					d = deathSilent
				}
				w.lost(d, err)
			}
			select {
			case <-time.After(redialEvery):
			case <-ctx.Done():
			}
			continue
		}
		restarted := was && who.incarnation != w.known
		w.known = who.incarnation
		w.met(who.blank) // before it counts as alive
		if restarted {
			w.log.Warn().Str("peer", string(w.peer.ID)).Msg("a node was restarted")
			w.died(deathClosed)
		}
		if !was || restarted {
			w.since.Store(time.Now().UnixNano())
			w.log.Info().Str("peer", string(w.peer.ID)).Msg("connected to a node")
			w.born()
		}
		if err := w.hold(ctx, c); errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			w.lost(deathSilent, err)
		}
	}
}

// lost notes that the peer is not there any more.
func (w *watcher) lost(how death, why error) {
	w.since.Store(0)
	w.log.Warn().Str("peer", string(w.peer.ID)).Stringer("how", how).Err(why).Msg("lost a node")
	w.died(how)
}

// hello is what a node says of itself on a liveness connection.
type hello struct {
	incarnation uint64
	blank       bool
}

const helloBlank = 1

// connect dials the peer and reads who answers.
func (w *watcher) connect(ctx context.Context) (net.Conn, hello, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	c, err := w.dialer.dial(ctx, w.peer.Addr, preface{kind: kindLiveness})
	if err != nil {
		return nil, hello{}, err
	}
	who, err := func() (h hello, err error) {
		t, _ := ctx.Deadline()
		_ = c.SetDeadline(t)
		var size [1]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return h, err
		}
		b := make([]byte, int(size[0])+9)
		if _, err := io.ReadFull(c, b); err != nil {
			return h, err
		}
		if id := bridge.NodeID(b[:size[0]]); id != w.peer.ID {
			return h, fmt.Errorf("node %q answers at %s, the address of %q", id, w.peer.Addr, w.peer.ID)
		}
		_ = c.SetDeadline(time.Time{})
		b = b[size[0]:]
		return hello{incarnation: binary.BigEndian.Uint64(b), blank: b[8]&helloBlank != 0}, nil
	}()
	if err != nil {
		_ = c.Close()
		return nil, hello{}, err
	}
	return c, who, nil
}

// hold pings until the connection breaks or falls silent: then the error is os.ErrDeadlineExceeded.
func (w *watcher) hold(ctx context.Context, c net.Conn) error {
	over := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(w.cfg.PingEvery)
		defer t.Stop()
		for {
			_ = c.SetWriteDeadline(time.Now().Add(w.cfg.Silence))
			if _, err := c.Write([]byte{0}); err != nil {
				_ = c.Close()
				return
			}
			select {
			case <-t.C:
			case <-over:
				return
			case <-ctx.Done():
				_ = c.Close()
				return
			}
		}
	}()
	buf := make([]byte, 64)
	var err error
	for err == nil {
		_ = c.SetReadDeadline(time.Now().Add(w.cfg.Silence))
		_, err = c.Read(buf)
	}
	close(over)
	_ = c.Close()
	<-ended
	return err
}

// PeerAlive says whether a node of the cluster answers on its liveness connection. This node is alive.
func (n *Node) PeerAlive(id bridge.NodeID) bool {
	if id == n.cfg.NodeID {
		return true
	}
	_, ok := n.aliveSince(id)
	return ok
}

func (n *Node) aliveSince(id bridge.NodeID) (time.Time, bool) {
	w, ok := n.watchers[id]
	if !ok {
		return time.Time{}, false
	}
	return w.alive()
}
