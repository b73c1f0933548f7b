package wsedge

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// Authenticator finds out what a token says.
type Authenticator interface {
	// Authenticate verifies a token. Any goroutine may call it; it waits no longer than ctx. The error is an
	// *auth.RefusedError, or an *auth.UnavailableError when nobody can tell now, and holds nothing of the token.
	Authenticate(ctx context.Context, token string) (*auth.Identity, error)
}

// A standing is whom a session acts for, and until when. A session has one where tokens are asked for
// (Config.Auth) or somebody is asked (Config.Decider), else its pointer is nil and nothing here costs anything.
//
// Invariant I8 has one gate, session.mu. Rights change with mu held; what they no longer cover is ended there
// (session.end), and a turn, which holds mu from the first look into the cache until the socket has taken what it
// takes, gathers nothing of what has ended. What is left are bytes that a turn has begun and the socket has not
// taken: the rest of one frame (session.rest), or what of a turn was sealed by TLS or is written aside (session.aside). A frame that was
// begun cannot be taken back, so if the right to its subscription is lost, the connection is cut instead, and the
// client comes back for what it still may have.
type standing struct {
	// All guarded by session.mu.
	id    *auth.Identity // nil: nobody, so far
	warn  int64          // unix milliseconds: when the client is told that its token expires; 0: no more
	until int64          // unix milliseconds: when the session ends, unless a token comes before; 0: never

	// See decide.go.
	nextAsk int64 // by Server.now: when to look at the answers of the Decider; 0: there are none
	asking  bool  // a goroutine is asking
}

const (
	// authTimeout bounds how long a token is verified: keys may have to be fetched for it.
	authTimeout = 10 * time.Second
	// maxWarning is how long before its token expires a client is told, or a fifth of the token's time if that is
	// less.
	maxWarning = time.Minute
	// maxSleep is how long a session goes without a look at the clock: tokens expire by the time of day, which
	// may be set, and goes on while a machine sleeps.
	maxSleep = time.Minute
	// maxAccessToken bounds a token before anything else is done with it, in bytes.
	maxAccessToken = 8 << 10
)

// The reasons of a bye with close code 4001.
const (
	byeExpired         = "expired"
	byeRevoked         = "revoked"
	byeUnauthenticated = "unauthenticated"
)

// admit gives a session its standing, before anybody else knows of it. id is nil for one that has shown no token.
func (s *session) admit(id *auth.Identity) {
	cfg := &s.srv.cfg
	if cfg.Auth == nil && cfg.Decider == nil {
		return
	}
	s.standing = new(standing)
	if id != nil {
		s.standing.take(id)
	} else if s.mustAuthenticate() {
		s.standing.until = s.began + cfg.HandshakeTimeout.Milliseconds()
	}
}

// take makes the session act for somebody else.
func (st *standing) take(id *auth.Identity) {
	st.id, st.warn, st.until = id, 0, 0
	if !id.Expires.IsZero() {
		st.until = id.Expires.UnixMilli()
		left := time.Until(id.Expires)
		st.warn = st.until - min(maxWarning, left/5).Milliseconds()
	}
}

// mustAuthenticate says that a session may do nothing before it has shown a token.
func (s *session) mustAuthenticate() bool {
	return s.srv.cfg.Auth != nil && s.srv.cfg.Anonymous.Empty() && s.standing.id == nil
}

// identity is whom the session acts for; nil: nobody.
func (s *session) identity() *auth.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.standing == nil {
		return nil
	}
	return s.standing.id
}

// identify finds out whose a token is.
func (srv *Server) identify(ctx context.Context, token string) (*auth.Identity, *OpError) {
	if len(token) > maxAccessToken {
		return nil, &OpError{Code: codeUnauthenticated, Message: "a token has at most 8192 bytes"}
	}
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	id, err := srv.cfg.Auth.Authenticate(ctx, token)
	var refused *auth.RefusedError
	var later *auth.UnavailableError
	switch {
	case errors.As(err, &refused):
		return nil, &OpError{Code: codeUnauthenticated, Message: refused.Message}
	case errors.As(err, &later):
		return nil, &OpError{Code: codeUnavailable, Message: later.Message, Retry: max(later.RetryAfter, time.Millisecond)}
	case err != nil:
		srv.log.Error().Err(err).Msg("a token could not be verified")
		return nil, &OpError{Code: codeUnavailable, Message: "the token cannot be verified now; try again", Retry: time.Second}
	}
	if oe := srv.invalid(id); oe != nil {
		return nil, oe
	}
	return id, nil
}

// invalid says why a token that was in order is not so any more.
func (srv *Server) invalid(id *auth.Identity) *OpError {
	switch {
	case id == nil:
	case !id.Expires.IsZero() && !time.Now().Before(id.Expires):
		return &OpError{Code: codeUnauthenticated, Message: "the token has expired"}
	case srv.revoked(id):
		return &OpError{Code: codeUnauthenticated, Message: "the token has been revoked"}
	}
	return nil
}

func (srv *Server) revoked(id *auth.Identity) bool {
	return srv.cfg.Revoked != nil && srv.cfg.Revoked(id)
}

// mayRead says whether somebody, who may be nil, may read all records of a subject, as far as rights go.
func (srv *Server) mayRead(id *auth.Identity, subject Subject) bool {
	return srv.cfg.Auth == nil || srv.cfg.Anonymous.MaySubscribe(subject) || id != nil && (id.Rights.MaySubscribe(subject) || srv.leftOpen(id))
}

func (srv *Server) mayWrite(id *auth.Identity, subject Subject) bool {
	return srv.cfg.Auth == nil || srv.cfg.Anonymous.MayPublish(subject) || id != nil && (id.Rights.MayPublish(subject) || srv.leftOpen(id))
}

// leftOpen says that a token leaves it all to the Decider.
func (srv *Server) leftOpen(id *auth.Identity) bool { return srv.cfg.Decider != nil && id.Silent }

// forbid is the answer to who may not.
func forbid(id *auth.Identity, what string) *OpError {
	if id == nil {
		return &OpError{Code: codeUnauthenticated, Message: "without a token nobody may " + what + ": send one with auth, or in the header Authorization"}
	}
	return &OpError{Code: codeForbidden, Message: "the token has no right to " + what}
}

const (
	toRead  = "subscribe to this subject (a pattern needs a right that covers all of it)"
	toWrite = "publish to this subject"
)

// allowed says why an op may not be carried out, before anything is found out about its subject. What is known here
// comes first, rights and then limits, so that who else decides is asked no more often than a session may do something.
func (s *session) allowed(ctx context.Context, op *Op) *OpError {
	oe := s.entitled(op)
	if oe != nil {
		return oe
	}
	switch op.Kind {
	case OpSub:
		oe = s.maySubscribe(op.Text)
	case OpPub:
		oe = s.mayPublishNow(op)
	}
	if oe != nil {
		return oe
	}
	return s.decided(ctx, op)
}

// entitled says whether the session has a right to an op, and notes on whose behalf it is.
func (s *session) entitled(op *Op) *OpError {
	if s.standing == nil {
		return nil
	}
	id := s.identity()
	op.by = id
	switch {
	case op.Kind == OpSub && !s.srv.mayRead(id, op.Subject):
		return forbid(id, toRead)
	case op.Kind == OpPub && !s.srv.mayWrite(id, op.Subject):
		return forbid(id, toWrite)
	case op.Kind == OpUnsub && id == nil && s.srv.cfg.Auth != nil && s.srv.cfg.Anonymous.Empty():
		return forbid(id, "do anything")
	}
	return nil
}

// mayStill is allowed for a publish that has waited for its turn: its token may have ended meanwhile, or the
// session's rights been replaced.
func (s *session) mayStill(ctx context.Context, op *Op) *OpError {
	if s.standing == nil {
		return nil
	}
	still := func() *OpError {
		if oe := s.srv.invalid(op.by); oe != nil {
			return oe
		}
		if id := s.identity(); !s.srv.mayWrite(id, op.Subject) {
			return forbid(id, toWrite)
		}
		return nil
	}
	oe := still()
	if oe != nil || s.srv.cfg.Decider == nil {
		return oe
	}
	if oe = s.decided(ctx, op); oe != nil { // as a rule the answer is known; where it is not, it may take its time
		return oe
	}
	return still()
}

// authenticate carries out an auth. The reader calls it.
func (s *session) authenticate(op *Op) *OpError {
	if s.srv.cfg.Auth == nil {
		s.answer(func(dst []byte) []byte { return appendAuthed(dst, op.ID, 0) })
		return nil
	}
	s.wire.charge(authFrames)
	id, oe := s.srv.identify(s.srv.ctx, op.Token)
	if oe == nil {
		s.adopt(op.ID, id, s.askFor(id))
		return nil
	}
	if oe.Code != codeUnauthenticated {
		return oe
	}
	oe.ID = op.ID
	s.fail(oe)
	if s.identity() == nil {
		s.close(4001, byeUnauthenticated, "the token was refused")
	} else {
		s.countBad() // its last token is still good
	}
	return nil
}

// adopt replaces the rights of a session, and ends what they do not cover. allowed is what the Decider allows of
// that.
func (s *session) adopt(opID uint64, id *auth.Identity, allowed map[*subscription]yes) {
	s.mu.Lock()
	if s.closing || s.gone {
		s.mu.Unlock()
		return
	}
	s.standing.take(id)
	s.control = appendAuthed(s.control, opID, s.standing.until)
	for _, sub := range s.subs {
		yes, ok := allowed[sub]
		if !s.srv.mayRead(id, sub.subject) || s.srv.cfg.Decider != nil && !ok {
			s.forbidSub(sub)
			continue
		}
		sub.yes = yes
	}
	s.withhold(func(sub *subscription) bool { return sub.lost || !s.srv.mayRead(id, sub.subject) })
	if len(allowed) > 0 {
		s.standing.nextAsk = 1
	}
	s.watchClock()
	s.watchAnswers()
	s.mu.Unlock()
	s.enqueue()
	s.checkRevoked()
}

const reasonForbidden = "forbidden"

// lost says that the right to a subscription has been lost, which may have ended in another way before. mu is held.
func lost(sub *subscription) bool { return sub.lost }

// withhold cuts a connection that is in the midst of sending records of a subscription to which the right is lost. mu is held.
func (s *session) withhold(lost func(*subscription) bool) {
	if !s.gone && (s.restOf != nil && lost(s.restOf) || slices.ContainsFunc(s.aside, lost)) {
		s.cut = true
		s.abort()
		s.sock.drop()
		_ = s.conn.SetDeadline(time.Unix(1, 0)) // whoever is writing stops here
	}
}

// endFor ends a session that may have nothing any more. mu is held; the caller enqueues.
func (s *session) endFor(reason string) {
	if s.gone {
		return
	}
	if !s.closing {
		s.srv.metrics.ended.WithLabelValues(reason).Inc()
		s.srv.log.Debug().Str("session", s.name()).Str("reason", reason).Msg("token ended")
		s.closeLocked(4001, reason, reason)
	}
	s.withhold(func(*subscription) bool { return true })
}

// checkClock does what is due for a session's token and returns when to look again, by Server.now; 0: never. mu is
// held; the caller enqueues.
func (s *session) checkClock() int64 {
	st := s.standing
	if s.closing || s.gone || st.until == 0 {
		return 0
	}
	now := time.Now().UnixMilli()
	if now >= st.until {
		reason := byeExpired
		if st.id == nil {
			reason = byeUnauthenticated
		}
		s.endFor(reason)
		return 0
	}
	next := st.until
	if st.id != nil && st.warn != 0 {
		if now >= st.warn {
			st.warn = 0
			s.control = appendExpiring(s.control, st.until)
		} else {
			next = st.warn
		}
	}
	return s.srv.now() + min(next-now, maxSleep.Milliseconds())
}

// watchClock sees that the session is rung when something is due for its token. mu is held.
func (s *session) watchClock() {
	if s.standing == nil {
		return
	}
	if at := s.checkClock(); at != 0 {
		s.wakeAt(at)
	}
}

// wakeAt has the session rung, by Server.now, or earlier if it will be anyway. mu is held.
func (s *session) wakeAt(at int64) {
	if s.alarm == nil {
		s.alarm = &alarm{s: s}
	}
	s.srv.wheel.set(s.alarm, at)
}

// checkRevoked ends the session if its token has been revoked. It is called after the token has become the
// session's: a revocation that was noted before is seen here, and EndSessions, which comes after one was noted,
// sees every token that became a session's before it was asked here.
func (s *session) checkRevoked() {
	if id := s.identity(); id != nil && s.srv.revoked(id) {
		s.endIf(func(other *auth.Identity) bool { return other == id })
	}
}

// EndSessions ends all sessions and streams whose identity match says yes to: bye with reason revoked, close code
// 4001. When it returns nothing is written to them any more but that. Sessions without a token are not asked about.
// Whoever revokes notes it where Config.Revoked looks before calling this, so that no session slips in between.
// match is called without a lock held, perhaps more than once for a session. Any goroutine may call it.
func (srv *Server) EndSessions(match func(*auth.Identity) bool) {
	if srv.cfg.Auth == nil {
		return
	}
	_ = srv.eachSession(context.Background(), func(s *session) { s.endIf(match) })
}

func (s *session) endIf(match func(*auth.Identity) bool) {
	for {
		id := s.identity()
		if id == nil || !match(id) {
			return
		}
		s.mu.Lock()
		same := s.standing.id == id
		if same {
			s.endFor(byeRevoked)
		}
		s.mu.Unlock()
		if same {
			s.enqueue()
			return
		}
	}
}
