package wsedge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// A session is one client's connection. It has one goroutine, which reads; its shard's worker writes.
//
// What is to be sent is never queued message by message. It is
//
//	rest    what is left of a data frame that the socket took half of,
//	control whole frames made for this session alone: answers, pongs, live, gap, bye, close,
//	active  the cursors that have something to read from the cache or from their replay,
//
// and goes out in this order. The first two are bounded: the reader stops reading while there is more
// than maxUnsent to answer, and everything else that lands in control is made at most once a cursor's
// turn or once a heartbeat.
type session struct {
	// Set once.
	srv   *Server
	shard *shard
	id    uint64 // at random
	began int64  // unix milliseconds
	conn  net.Conn
	raw   syscall.RawConn // nil: cannot be tried, see writeAside
	ws    *websocket.Conn // nil when it is an SSE stream
	wire  *wsConn         // beneath ws
	addr  netip.Addr      // whose it is, as far as limits go
	tls   *tls.Conn       // not nil: what is sent goes through it and lies in sock, see seal
	sock  *clientConn

	deflate bool // permessage-deflate was agreed on; set once

	queued atomic.Bool            // in the shard's queue
	woken  atomic.Pointer[cursor] // a stack of cursors that a dispatcher has found a record for

	mu       sync.Mutex
	rest     []byte
	restOf   *subscription   // whose record rest is a part of; nil: no record's
	aside    []*subscription // whose records TLS has sealed or a goroutine is writing, see writeAside; kept only with a standing
	standing *standing       // nil: nobody is asked for a token. Set once, what it points to is guarded
	control  []byte
	first    *cursor // active cursors, in the order of their turns
	last     *cursor
	subs     map[string]*subscription
	cursors  int           // of all subscriptions together
	subjects int           // bytes of their subjects
	replays  chan struct{} // a slot for each replay that reads from Kafka; nil until there is one
	pending  int           // bytes of all its replays that wait for the client
	drained  chan struct{} // one slot: pending is low; made with replays
	room     *sync.Cond    // signalled when control has become shorter; nil until the reader waits
	allSent  chan struct{} // closed when a closing session has sent everything; nil until finish waits
	pubs     publishQueue
	bad      badRequests
	stream   *stream              // not nil: an SSE stream; set once
	parked   map[*cursor]struct{} // conflated cursors whose next round has to wait
	alarm    *alarm               // when the first of them is due, or something with the token; nil until then
	blocked  bool                 // the socket is full: a waiter has it, and nobody else writes
	lagging  bool                 // was blocked and has not caught up since
	closing  bool                 // a close frame is in control: no data any more
	wecalled bool                 // the close was our decision
	gone     bool                 // nothing can be sent any more
	cut      bool                 // what the kernel has not sent yet is not to be sent either
	counted  bool                 // addr counts it besides the connection, see enterRequest
	weighed  int                  // bytes of it in Server.held

	lastText atomic.Int64 // when a text frame last went out, unix milliseconds
	lastPong atomic.Int64 // when something last came in answer to a ping
	lastPing int64        // owned by the sweep
	working  atomic.Bool  // the reader carries out an op: what the client has answered since lies unread behind it

	frameSince atomic.Int64 // when the message began that is being read, unix milliseconds; 0: none is
	sending    pace         // publishes; owned by the reader
}

const (
	// maxUnsent is how many bytes of answers may wait before the reader stops reading.
	maxUnsent = 64 << 10
	// fewUnsent is how many may wait even when sessions keep too much, all together.
	fewUnsent = 4 << 10
	// smallRest is how large a rest of a frame may be then.
	smallRest = 16 << 10
	// keepBuffer is the largest buffer that a reader puts back into the pool.
	keepBuffer = 64 << 10
	// maxCursors bounds what the subscriptions of a session cost: a pattern has one a partition.
	maxCursors = 1 << 16
	// maxSubjects is how many bytes the subjects of a session have together: ten thousand of them at
	// the length of the longest would be a gigabyte.
	maxSubjects = 4 << 20
)

func newSession(srv *Server, conn net.Conn) *session {
	s := &session{
		srv: srv, id: rand.Uint64(), conn: conn, raw: rawConn(conn),
		shard: srv.shards[srv.turns.Add(1)%uint64(len(srv.shards))],
	}
	if s.raw != nil {
		if s.sock, s.tls = layers(conn); s.sock == nil && s.tls != nil {
			s.raw = nil // TLS of another port's, which writes to the socket by itself
		}
	}
	now := time.Now().UnixMilli()
	s.began = now
	s.lastText.Store(now)
	s.lastPong.Store(now)
	s.lastPing = now
	return s
}

// name is the session's id as clients and logs see it.
func (s *session) name() string { return strconv.FormatUint(s.id, 36) }

// ownSocket ends the time in which anything is written to the connection but by turns. It is called when the answer to the
// handshake has been written, before the first turn.
func (s *session) ownSocket() {
	if s.tls != nil && s.sock != nil {
		s.sock.hold()
	}
}

// unsent is how much waits for the socket, apart from what can be read again. mu is held.
func (s *session) unsent() int { return len(s.control) + len(s.rest) + s.sock.unsent() }

// greet puts the welcome where it goes out first, whoever else learns of the session from now on: a node
// that drains says bye to every session that it knows. It is called before the session is registered.
func (s *session) greet() {
	cfg := &s.srv.cfg
	s.control = appendWelcome(s.control, cfg.Node, s.name(), cfg.Heartbeat.Milliseconds(), cfg.MaxFrameBytes, s.mustAuthenticate())
}

// run reads until the connection ends, and cleans up.
func (s *session) run() {
	s.srv.metrics.connections.Add(1)
	defer s.srv.metrics.connections.Add(-1)
	s.mu.Lock()
	s.watchClock()
	s.mu.Unlock()
	s.checkRevoked()
	var err error
	if s.stream != nil {
		err = s.runStream()
	} else {
		s.enqueue() // the welcome is in control
		err = s.read()
	}
	s.finish(err)
}

var readBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

var errNotUTF8 = errors.New("frame is not UTF-8")

// read reads frames until the connection ends.
func (s *session) read() error {
	for {
		s.wire.await()
		typ, r, err := s.ws.Reader(context.Background())
		if err != nil {
			return err
		}
		buf := readBuffers.Get().(*[]byte)
		s.frameSince.Store(time.Now().UnixMilli())
		before := s.wire.meter.total
		frame, err := s.srv.readMessage(r, (*buf)[:0])
		s.frameSince.Store(0)
		s.wire.unpacked(len(frame), s.wire.meter.total-before)
		if err == nil && typ == websocket.MessageText && !utf8.Valid(frame) {
			err = errNotUTF8
		}
		if err == nil {
			s.lastPong.Store(time.Now().UnixMilli())
			s.handle(typ, frame)
		}
		if cap(frame) <= keepBuffer {
			*buf = frame[:0]
			readBuffers.Put(buf)
		}
		switch {
		case errors.Is(err, errFrameTooBig):
			s.close(1009, "frame_too_big", "a frame has at most max_frame_bytes")
			return err
		case errors.Is(err, errOverloaded):
			s.close(1001, "overloaded", "the node keeps too much for its clients: go to another one")
			return err
		case errors.Is(err, errNotUTF8):
			s.close(1007, "not_utf8", "a text frame is UTF-8")
		case err != nil:
			return err
		}
		s.waitRoom()
	}
}

// handle carries out the ops of a frame.
func (s *session) handle(typ websocket.MessageType, frame []byte) {
	if typ != websocket.MessageText {
		s.fail(&OpError{Code: codeBadRequest, Message: "a binary frame is no op: ops are JSON in text frames"})
		return
	}
	for n := 0; len(frame) > 0; n++ {
		var text []byte
		if text, frame = NextOp(frame); len(text) == 0 {
			return
		}
		if n > 0 && n%opsPerFrame == 0 {
			s.wire.charge(1)
		}
		if s.isClosing() {
			return
		}
		op, err := DecodeOp(text)
		if err != nil {
			var oe *OpError
			if errors.As(err, &oe) {
				s.fail(oe)
			}
			continue
		}
		s.working.Store(true)
		oe := s.carryOut(&op)
		s.lastPong.Store(time.Now().UnixMilli()) // that it took so long is not the client's doing
		s.working.Store(false)
		if oe != nil {
			oe.ID = op.ID
			s.fail(oe)
		}
		s.waitRoom()
	}
}

func (s *session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing || s.gone
}

// carryOut does what an op asks for and answers it, or returns why not.
func (s *session) carryOut(op *Op) *OpError {
	if oe := s.allowed(s.srv.ctx, op); oe != nil {
		return oe
	}
	switch op.Kind {
	case OpAuth:
		return s.authenticate(op)
	case OpPing:
		s.answer(func(dst []byte) []byte { return appendPong(dst, op.ID) })
	case OpSub:
		return s.subscribe(op)
	case OpUnsub:
		return s.unsubscribe(op)
	case OpPub:
		return s.publish(op)
	}
	return nil
}

// answer puts a frame into control and sees that it is sent.
func (s *session) answer(frame func(dst []byte) []byte) {
	s.mu.Lock()
	if !s.closing && !s.gone {
		s.control = frame(s.control)
	}
	s.mu.Unlock()
	s.enqueue()
}

// fail answers with an error and keeps count.
func (s *session) fail(e *OpError) {
	s.srv.metrics.failed(e.Code)
	s.answer(func(dst []byte) []byte { return appendError(dst, e) })
	switch e.Code {
	case codeBadRequest, codeBadSubject, codeRateLimited, codeLimit:
		s.countBad()
	}
}

// countBad counts a bad request, and ends a session that sends too many.
func (s *session) countBad() {
	s.mu.Lock()
	over := s.bad.add(time.Now(), s.srv.cfg.MaxBadRequests)
	s.mu.Unlock()
	if over {
		s.srv.limited(limitBadRequests)
		s.close(4009, "too_many_errors", "too many bad requests")
	}
}

// badRequests counts the bad requests of a session and forgives one a second.
type badRequests struct {
	n  float64
	at time.Time
}

func (b *badRequests) add(now time.Time, limit int) (over bool) {
	b.n = max(0, b.n-now.Sub(b.at).Seconds()) + 1
	b.at = now
	return b.n > float64(limit)
}

// libraryFrame takes a control frame of the library's: a pong, or the answer to a close.
func (s *session) libraryFrame(p []byte) {
	s.mu.Lock()
	if !s.gone && !s.closing {
		s.control = append(s.control, p...)
		if len(p) > 0 && p[0] == headClose {
			s.beginClosing()
		}
	}
	s.mu.Unlock()
	s.enqueue()
}

// waitRoom keeps the reader from reading on while the client does not take its answers.
func (s *session) waitRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.weigh(); s.tooMuchUnsent() && !s.closing && !s.gone; s.weigh() {
		if s.room == nil {
			s.room = sync.NewCond(&s.mu)
		}
		s.room.Wait()
	}
}

// tooMuchUnsent says that the client must take some answers before it is read on. mu is held.
func (s *session) tooMuchUnsent() bool {
	return len(s.control) > maxUnsent || len(s.control) > fewUnsent && s.srv.overHeld()
}

// weigh keeps account of what the session keeps for its socket. mu is held.
func (s *session) weigh() {
	n := len(s.control) + len(s.rest) + s.pending
	if s.tls != nil {
		n += s.sock.unsent()
	}
	if n != s.weighed {
		s.srv.held.Add(int64(n - s.weighed))
		s.weighed = n
	}
}

// overHeld says that sessions keep more than they may, all together.
func (srv *Server) overHeld() bool {
	most := srv.cfg.Limits.PendingBytes
	return most > 0 && srv.held.Load() > most
}

// leave gives back what enterRequest has taken.
func (s *session) leave() {
	s.mu.Lock()
	counted := s.counted
	s.counted = false
	s.mu.Unlock()
	if counted {
		s.srv.gate.leaveAddress(s.addr)
	}
}

// changed wakes whoever waits for control to become shorter or the session to end. mu is held.
func (s *session) changed() {
	if s.room != nil {
		s.room.Broadcast()
	}
}

// enqueue sees that the worker looks at the session.
func (s *session) enqueue() {
	if s.queued.CompareAndSwap(false, true) {
		s.shard.push(s)
	}
}

// close says goodbye and ends the connection: the client has CloseTimeout to take the close frame and
// answer it, then the connection is cut.
func (s *session) close(code int, bye, reason string) {
	s.mu.Lock()
	s.closeLocked(code, bye, reason)
	s.mu.Unlock()
	s.enqueue()
}

// closeLocked is close for who holds mu and enqueues afterwards.
func (s *session) closeLocked(code int, bye, reason string) {
	if s.closing || s.gone {
		return
	}
	spread := s.srv.cfg.DrainSpread.Milliseconds()
	retry := 1 + rand.Int64N(max(1, spread))
	s.control = appendBye(s.control, bye, retry, s.srv.cfg.Nodes)
	s.control = appendClose(s.control, code, reason)
	if s.stream != nil {
		s.stream.retry = retry
	}
	s.wecalled = true
	s.beginClosing()
	_ = s.conn.SetReadDeadline(time.Now().Add(s.srv.cfg.CloseTimeout))
}

// beginClosing ends all subscriptions. A close frame is in control, or nothing can be sent. mu is held.
func (s *session) beginClosing() {
	s.closing = true
	for _, sub := range s.subs {
		s.end(sub)
	}
	s.subs = nil
	for c := s.first; c != nil; {
		c.active, c, c.next = false, c.next, nil
	}
	s.first, s.last, s.parked = nil, nil, nil
	s.changed()
}

// abort ends a connection that cannot be written to. mu is held.
func (s *session) abort() {
	if s.gone {
		return
	}
	s.gone = true
	s.beginClosing()
	s.control, s.rest, s.restOf = nil, nil, nil
	s.weigh()
	if s.allSent != nil {
		close(s.allSent)
		s.allSent = nil
	}
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
}

// finish ends the session after its reader has come to an end for reason err. It gives what is still to
// be sent the time that is left and closes the connection.
func (s *session) finish(err error) {
	var wait chan struct{}
	s.mu.Lock()
	ours := s.wecalled
	if !s.closing && !s.gone {
		// The client went away without a close frame.
		s.beginClosing()
	}
	if !s.gone && s.unsent() > 0 {
		wait = make(chan struct{})
		s.allSent = wait
	}
	s.mu.Unlock()
	if wait != nil && !hungUp(err) && !isTimeout(err) {
		s.enqueue()
		t := time.NewTimer(s.srv.cfg.CloseTimeout)
		select {
		case <-wait:
		case <-t.C:
		}
		t.Stop()
	}
	if ours && (errors.Is(err, errFrameTooBig) || errors.Is(err, errOverloaded)) {
		s.discard()
	}
	s.mu.Lock()
	unsent := s.cut || s.unsent() > 0
	s.abort()
	alarm := s.alarm
	s.mu.Unlock()
	s.srv.wheel.stop(alarm)
	if tcp := tcpConn(s.conn); tcp != nil && unsent {
		_ = tcp.SetLinger(0) // what a client has not taken by now it never will
	}
	s.leave() // first: who sees the end of the connection finds the place free
	s.conn.Close()
	if s.ws != nil {
		_ = s.ws.CloseNow()
	}
	s.mu.Lock()
	s.weigh() // what TLS had sealed has gone with the connection
	s.mu.Unlock()
	s.srv.unregister(s) // last: who finds it gone finds free what it had taken
	s.srv.log.Debug().Str("session", s.name()).Str("reason", describe(err)).Msg("session ended")
}

// discard reads what the client is still sending of a frame that is too big, or has no room. To close a socket with
// unread bytes resets the connection, and the client would never see why.
func (s *session) discard() {
	_ = s.conn.SetReadDeadline(time.Now().Add(min(time.Second, s.srv.cfg.CloseTimeout)))
	if s.tls == nil { // TLS says its goodbye when it is closed
		if tcp := tcpConn(s.conn); tcp != nil {
			_ = tcp.CloseWrite()
		}
	}
	_, _ = io.Copy(io.Discard, s.conn)
}

// hungUp says whether an error of reading means that the peer has gone, so that nothing can reach it any more.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
