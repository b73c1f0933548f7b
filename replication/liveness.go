package replication

import (
	"context"
	"encoding/binary"
	"encoding/json"
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
	"github.com/tidewire/tidewire/replication/peertls"
)

// Each node holds one connection to each other node for nothing but to see it break. After the preface
//
//	answer:  1 byte length, node id, 8 bytes incarnation (random, of the process), big-endian,
//	         1 byte: bit 0 says that the node has no data (newcomer.go), bit 1 that a greeting follows, the
//	         others are 0; then 2 bytes length, big-endian, and the greeting (version.go). A build that does not
//	         know of greetings takes it for bytes sent back.
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
	// silenceSteps is in how many steps a silence is counted. A time in which this process itself stood still, on
	// a machine that is too busy, says nothing about the peer, whose bytes may have come meanwhile; it counts
	// as one step however long it was.
	silenceSteps = 4
)

// answerLiveness serves one liveness connection until it breaks.
func (n *Node) answerLiveness(_ context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	first := append([]byte{byte(len(n.cfg.NodeID))}, n.cfg.NodeID...)
	first = binary.BigEndian.AppendUint64(first, n.incarnation)
	flags := byte(helloGreeting)
	if n.blank() {
		flags |= helloBlank
	}
	first = append(first, flags)
	told := n.greeting().encode()
	first = binary.BigEndian.AppendUint16(first, uint16(len(told)))
	first = append(first, told...)
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
	id     bridge.NodeID
	route  *route // where it is
	dialer dialer
	cfg    Config
	log    zerolog.Logger
	met    func(hello)  // it answered, and said what it has and speaks
	born   func()       // the peer is there (again)
	died   func(death)  // it is not any more; must return soon
	since  atomic.Int64 // unix nanoseconds since when it is alive; 0: it is not
	known  uint64       // its last incarnation
	told   string       // what was last logged against it

	unproven int       // how often in a row it did not prove itself, or did not take our proof
	toldAt   time.Time // when that was last logged
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
			w.complain(err)
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
		w.unproven = 0
		restarted := was && who.incarnation != w.known
		w.known = who.incarnation
		w.met(who) // before it counts as alive
		if restarted {
			w.log.Warn().Str("peer", string(w.id)).Msg("a node was restarted")
			w.died(deathClosed)
		}
		if !was || restarted {
			w.since.Store(time.Now().UnixNano())
			w.log.Info().Str("peer", string(w.id)).Msg("connected to a node")
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
	w.log.Warn().Str("peer", string(w.id)).Stringer("how", how).Err(why).Msg("lost a node")
	w.died(how)
}

// hello is what a node says of itself on a liveness connection.
type hello struct {
	incarnation uint64
	blank       bool
	greeting    greeting
}

const (
	helloBlank    = 1
	helloGreeting = 2
)

// errOther: somebody else lives where the peer was looked for.
var errOther = errors.New("another node answers")

// complain logs what an operator has to mend, once: builds that do not go together, an address that is another
// node's; and, once a minute, that it and the node did not prove themselves to each other. That a node is away its
// death has said.
func (w *watcher) complain(err error) {
	if errors.Is(err, peertls.ErrNotProven) {
		// A single one may be of a node that ended just then.
		if w.unproven++; w.unproven > 1 && time.Since(w.toldAt) >= refusalsEvery {
			w.toldAt = time.Now()
			w.log.Error().Str("peer", string(w.id)).Err(err).Msg("cannot work with a node")
		}
		return
	}
	w.unproven = 0
	if !errors.Is(err, ErrIncompatible) && !errors.Is(err, errOther) || err.Error() == w.told {
		return
	}
	w.told = err.Error()
	w.log.Error().Str("peer", string(w.id)).Err(err).Msg("cannot work with a node")
}

// connect looks for the peer. Its next address is tried next time if it is not found.
func (w *watcher) connect(ctx context.Context) (net.Conn, hello, error) {
	c, who, err := w.dial(ctx)
	if err != nil && !errors.Is(err, ErrIncompatible) && ctx.Err() == nil {
		w.route.failed(err)
	}
	return c, who, err
}

// dial dials the peer and reads who answers.
func (w *watcher) dial(ctx context.Context) (net.Conn, hello, error) {
	at := w.route.addr()
	ctx, cancel := context.WithTimeout(ctx, w.dialer.protection.patience(handshakeTimeout))
	defer cancel()
	c, err := w.dialer.dial(ctx, w.id, at, preface{kind: kindLiveness})
	if err != nil {
		return nil, hello{}, err
	}
	t, _ := ctx.Deadline()
	_ = c.SetDeadline(t)
	id, who, err := readHello(c)
	if err == nil && id != w.id {
		err = fmt.Errorf("%w: node %q at %s, the address of %q", errOther, id, at, w.id)
	}
	if err == nil {
		err = newGreeting(w.cfg).goesWith(who.greeting)
		if err != nil {
			err = fmt.Errorf("node %q at %s: %w", id, at, err)
		}
		w.route.met(who.greeting, err)
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, hello{}, err
	}
	return c, who, nil
}

// readHello reads what a node says first on a liveness connection.
func readHello(r io.Reader) (id bridge.NodeID, h hello, err error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:1]); err != nil {
		return "", h, err
	}
	b := make([]byte, int(size[0])+9)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", h, err
	}
	id, b = bridge.NodeID(b[:size[0]]), b[size[0]:]
	h = hello{incarnation: binary.BigEndian.Uint64(b), blank: b[8]&helloBlank != 0, greeting: oldGreeting()}
	if b[8]&helloGreeting == 0 {
		return id, h, nil
	}
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", h, err
	}
	length := binary.BigEndian.Uint16(size[:])
	if length > maxHello {
		return "", h, fmt.Errorf("node %q tells %d bytes of itself, at most %d are allowed", id, length, maxHello)
	}
	told := make([]byte, length)
	if _, err := io.ReadFull(r, told); err != nil {
		return "", h, err
	}
	h.greeting = greeting{}
	if err := json.Unmarshal(told, &h.greeting); err != nil {
		return "", h, fmt.Errorf("what node %q tells of itself: %w", id, err)
	}
	return id, h, nil
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
	for missed := 0; err == nil; {
		_ = c.SetReadDeadline(time.Now().Add(w.cfg.Silence / silenceSteps))
		switch _, err = c.Read(buf); {
		case err == nil:
			missed = 0
		case errors.Is(err, os.ErrDeadlineExceeded) && missed < silenceSteps-1:
			missed++
			err = nil
		}
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
	p := n.members.peer(id)
	if p == nil {
		return time.Time{}, false
	}
	return p.watcher.alive()
}
