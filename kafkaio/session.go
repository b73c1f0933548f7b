package kafkaio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
)

// sessionConn is an authenticated connection to a broker that may limit how long an authentication holds
// (connections.max.reauth.ms, or the life of a token; KIP-368). Such a broker closes a connection at the first
// request after that time. So a request that comes when most of the time has passed waits until we have
// authenticated again on the same connection, in front of it: nobody above notices, kafka-go's own connections
// included, which never do this themselves and would lose their membership of the group with each session.
//
// No timer is needed: a broker lets a session that has ended be renewed, and looks at its end only when a request
// comes.
//
// A renewal needs the connection for itself, so it waits for a moment when no answer is outstanding. All of this
// package's connections have one request at a time on them.
type sessionConn struct {
	net.Conn
	client   *Client
	addr     string
	versions map[protocol.ApiKey]int16

	asked, answered atomic.Int64 // requests begun, answers read to their ends
	in              frames       // owned by whoever reads

	// Owned by whoever writes.
	out     frames
	renewAt time.Time // zero: never
	endAt   time.Time
	broken  error

	mu       sync.Mutex
	readBy   time.Time // the deadlines that were asked for; a renewal has its own
	writeBy  time.Time
	renewing bool
	stopped  bool // a deadline in the past was asked for during the renewal
}

const (
	// renewShare is how much of a session's time passes before it is renewed, and renewSpread how much of it
	// that may be later, so that not all connections do so in one moment. It is more than what a token is used
	// for (see tokenCache): the renewal of a session that ends with its token has the next token.
	renewShare, renewSpread = 0.70, 0.10
	// minRenewal is Kafka's least time between two authentications of a connection, and a little.
	minRenewal = 1050 * time.Millisecond
	// renewRetry is how soon a renewal is tried again for which there were no credentials.
	renewRetry = time.Second
)

// errSessionEnded says that the broker would refuse the request: its session has ended, and there was nothing to renew
// it with.
var errSessionEnded = errors.New("the session with the broker has ended and could not be renewed")

var errHungUp = errors.New("the broker closed the connection")

func newSessionConn(c *Client, conn net.Conn, addr string, versions map[protocol.ApiKey]int16, lifetime time.Duration) *sessionConn {
	s := &sessionConn{Conn: conn, client: c, addr: addr, versions: versions}
	s.lasts(lifetime)
	return s
}

// lasts takes note of how long the session lasts from now; 0 is for ever.
func (s *sessionConn) lasts(lifetime time.Duration) {
	s.renewAt, s.endAt = time.Time{}, time.Time{}
	if lifetime <= 0 {
		return
	}
	now := time.Now()
	share := renewShare + renewSpread*rand.Float64()
	s.renewAt = now.Add(max(time.Duration(share*float64(lifetime)), minRenewal))
	s.endAt = now.Add(lifetime)
}

// Write sends a part of a request, of which the first renews the session if it is time to.
func (s *sessionConn) Write(b []byte) (int, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	if s.out.between() {
		if !s.renewAt.IsZero() && time.Now().After(s.renewAt) && s.asked.Load() == s.answered.Load() {
			if err := s.renew(); err != nil {
				s.broken = fmt.Errorf("renew the session with broker %s: %w", s.addr, err)
				return 0, s.broken
			}
		}
	}
	n, err := s.Conn.Write(b)
	begun, _ := s.out.pass(b[:n])
	s.asked.Add(begun)
	return n, err
}

func (s *sessionConn) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	_, ended := s.in.pass(b[:n])
	s.answered.Add(ended)
	return n, err
}

// renew authenticates again. An error means that the connection is of no use any more.
func (s *sessionConn) renew() error {
	s.mu.Lock()
	s.renewing, s.stopped = true, isPast(s.writeBy)
	limit := time.Now().Add(s.client.cfg.DialTimeout)
	if !s.writeBy.IsZero() && s.writeBy.Before(limit) {
		limit = s.writeBy
	}
	s.mu.Unlock()
	defer s.renewed()
	ctx, cancel := context.WithDeadline(context.Background(), limit)
	defer cancel()
	session, first, err := startSASL(ctx, s.addr, s.client.cfg.SASL)
	if err != nil {
		now := time.Now()
		if left := s.endAt.Sub(now); left > 0 {
			s.renewAt = now.Add(min(renewRetry, left/2))
			s.client.cfg.Log.Warn().Err(err).Str("broker", s.addr).Dur("left_ms", left).
				Msg("the session with the broker cannot be renewed yet")
			return nil
		}
		return fmt.Errorf("%w: %w", errSessionEnded, err)
	}
	conn := protocol.NewConn((*renewalConn)(s), s.client.cfg.ClientID)
	conn.SetVersions(s.versions)
	lifetime, err := authenticate(ctx, conn, s.client.cfg.SASL, session, first)
	if err != nil {
		if isEOF(err) { // a broker that goes away, where it would say no in front of a new connection
			return errHungUp
		}
		return err
	}
	s.lasts(lifetime)
	return nil
}

// renewed puts the deadlines that were asked for into force.
func (s *sessionConn) renewed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewing = false
	_ = s.Conn.SetReadDeadline(s.readBy)
	_ = s.Conn.SetWriteDeadline(s.writeBy)
}

func (s *sessionConn) SetDeadline(t time.Time) error { return s.deadline(t, true, true) }

func (s *sessionConn) SetReadDeadline(t time.Time) error { return s.deadline(t, true, false) }

func (s *sessionConn) SetWriteDeadline(t time.Time) error { return s.deadline(t, false, true) }

// deadline sets deadlines. During a renewal they wait for its end, except for one in the past, which means: stop.
func (s *sessionConn) deadline(t time.Time, read, write bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if read {
		s.readBy = t
	}
	if write {
		s.writeBy = t
	}
	switch {
	case s.renewing && !isPast(t):
		return nil
	case s.renewing:
		s.stopped = true
		return s.Conn.SetDeadline(t)
	case read && write:
		return s.Conn.SetDeadline(t)
	case read:
		return s.Conn.SetReadDeadline(t)
	}
	return s.Conn.SetWriteDeadline(t)
}

func isPast(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

// renewalConn is what is below a sessionConn, for its renewal.
type renewalConn sessionConn

func (r *renewalConn) Read(b []byte) (int, error)         { return r.Conn.Read(b) }
func (r *renewalConn) Write(b []byte) (int, error)        { return r.Conn.Write(b) }
func (r *renewalConn) Close() error                       { return r.Conn.Close() }
func (r *renewalConn) LocalAddr() net.Addr                { return r.Conn.LocalAddr() }
func (r *renewalConn) RemoteAddr() net.Addr               { return r.Conn.RemoteAddr() }
func (r *renewalConn) SetReadDeadline(t time.Time) error  { return r.SetDeadline(t) }
func (r *renewalConn) SetWriteDeadline(t time.Time) error { return r.SetDeadline(t) }

func (r *renewalConn) SetDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		t = time.Unix(1, 0)
	}
	return r.Conn.SetDeadline(t)
}

// frames follows a stream of Kafka's frames, which may be cut anywhere.
type frames struct {
	head [4]byte // length of the current frame
	have int     // bytes of head
	left int64   // bytes of the frame that are still to come
}

// between says whether no frame has begun that has not ended.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

// pass counts the frames that begin and end in b. Lengths have been checked by frameGuard, or are ours.
func (f *frames) pass(b []byte) (begun, ended int64) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, int64(len(b)))
			f.left -= n
			b = b[n:]
			if f.left == 0 {
				ended++
			}
			continue
		}
		if f.have == 0 {
			begun++
		}
		n := copy(f.head[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have < len(f.head) {
			break
		}
		f.have = 0
		if f.left = int64(binary.BigEndian.Uint32(f.head[:])); f.left == 0 {
			ended++
		}
	}
	return begun, ended
}

var (
	_ net.Conn       = (*sessionConn)(nil)
	_ net.Conn       = (*renewalConn)(nil)
	_ sasl.Mechanism = passwordMechanism{}
	_ sasl.Mechanism = (*oauthMechanism)(nil)
)
