package wsedge

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// This file asks Config.Decider about what the rights of a token allow, or leave open (auth.Identity.Silent). Its
// yes holds for a time. A subscription is asked about again before that is over; without another yes by then it
// ends like one whose rights were lost, through the same gate. No answer is a no, but not at once: while the last
// yes holds the question is repeated.

const (
	// askers is how many questions of one session are on their way at a time.
	askers = 8
	// maxAskers bounds the goroutines that do so beside the session's own, of all sessions together: a Decider that hangs would
	// have them pile up.
	maxAskers = 1024
	// maxAhead is how long before an answer's time is over a subscription is asked about again, or a fifth of its
	// time if that is less.
	maxAhead = 30 * time.Second
	// askPause is how long after a question that was not answered the next one comes.
	askPause = time.Second
)

// yes is a Decider's yes to a subscription; the zero value where there is no Decider.
type yes struct {
	askAt int64 // by Server.now, if possible a whole second, so that many are asked about together
	until int64 // by Server.now
}

// over says that a yes does not hold any more.
func (y yes) over(now int64) bool { return y.until != 0 && now >= y.until }

func (srv *Server) yesFor(d auth.Decision) yes {
	now := srv.now()
	y := yes{until: now + d.For.Milliseconds()}
	y.askAt = y.until - min(maxAhead, d.For/5).Milliseconds()
	if whole := y.askAt / 1000 * 1000; whole > now+d.For.Milliseconds()/2 {
		y.askAt = whole
	}
	return y
}

// ask has the Decider decide for somebody, who may be nil.
func (srv *Server) ask(ctx context.Context, id *auth.Identity, session, action, text string) (yes, *OpError) {
	if srv.cfg.Decider == nil {
		return yes{}, nil
	}
	d, err := srv.cfg.Decider.Decide(ctx, question(id, session, action, text))
	switch {
	case err != nil:
		return yes{}, &OpError{Code: codeForbidden, Message: "the service that decides about rights cannot be asked now; try again", Retry: askPause}
	case d.Allow:
		return srv.yesFor(d), nil
	case id == nil && srv.cfg.Auth != nil:
		return yes{}, &OpError{Code: codeUnauthenticated, Message: "the service that decides about rights does not allow this without a token"}
	}
	return yes{}, &OpError{Code: codeForbidden, Message: "the service that decides about rights does not allow this"}
}

// decided has the Decider decide about an op of a session.
func (s *session) decided(ctx context.Context, op *Op) (oe *OpError) {
	switch {
	case s.srv.cfg.Decider == nil:
	case op.Kind == OpSub:
		op.yes, oe = s.srv.ask(ctx, op.by, s.name(), auth.ActionSub, op.Text)
	case op.Kind == OpPub:
		_, oe = s.srv.ask(ctx, op.by, s.name(), auth.ActionPub, op.Text)
	}
	return oe
}

func question(id *auth.Identity, session, action, text string) auth.Question {
	q := auth.Question{Session: session, Action: action, Subject: text}
	if id != nil {
		q.User, q.Claims = id.Subject, id.Claims
	}
	return q
}

// forbidSub ends a subscription that is not allowed any more. mu is held; the caller withholds, and enqueues.
func (s *session) forbidSub(sub *subscription) {
	delete(s.subs, sub.text)
	sub.lost = true
	s.end(sub)
	s.control = appendUnsubbed(s.control, 0, sub.text, reasonForbidden)
	if s.stream != nil && len(s.subs) == 0 {
		s.closeLocked(4001, reasonForbidden, "") // nothing can come any more, and nobody can ask for more
	}
}

// watchAnswers ends subscriptions whose yes is over and has those asked about whose yes soon will be. mu is held;
// the caller enqueues.
func (s *session) watchAnswers() {
	st := s.standing
	if st == nil || st.nextAsk == 0 || s.closing || s.gone {
		return
	}
	now := s.srv.now()
	if now < st.nextAsk {
		s.wakeAt(st.nextAsk)
		return
	}
	next := int64(0)
	var due []*subscription
	for _, sub := range s.subs {
		at := sub.yes.until
		switch {
		case at == 0:
			continue
		case now >= at:
			s.forbidSub(sub)
			continue
		case now < sub.yes.askAt:
			at = sub.yes.askAt
		case !st.asking:
			due = append(due, sub)
		}
		if next == 0 || at < next {
			next = at
		}
	}
	s.withhold(lost)
	if st.nextAsk = next; next != 0 && !s.closing && !s.gone {
		s.wakeAt(next)
	}
	if len(due) == 0 || s.closing || s.gone {
		return
	}
	st.asking = true
	id := st.id
	s.srv.mu.Lock()
	defer s.srv.mu.Unlock()
	if !s.srv.closed {
		s.srv.wg.Go(func() { s.askAgain(id, due) })
	}
}

// askAgain asks about subscriptions for which there was a yes.
func (s *session) askAgain(id *auth.Identity, due []*subscription) {
	s.askAll(id, due, true, func(sub *subscription, d auth.Decision, err error) {
		s.mu.Lock()
		switch {
		case sub.ended || s.standing.id != id: // there may be another token by now, for which was asked apart
		case err != nil:
			sub.yes.askAt = s.srv.now() + askPause.Milliseconds()
		case d.Allow:
			sub.yes = s.srv.yesFor(d)
		default:
			s.forbidSub(sub)
			s.withhold(lost)
		}
		s.mu.Unlock()
		s.enqueue()
	})
	s.mu.Lock()
	s.standing.asking = false
	s.standing.nextAsk = 1 // look at all of them
	s.watchAnswers()
	s.mu.Unlock()
	s.enqueue()
}

// askAll asks about each of some subscriptions, several at a time, and tells each answer. Each question has its own time; all
// together have none, for those that came last would be answered with no. It ends early when the session does.
func (s *session) askAll(id *auth.Identity, subs []*subscription, anew bool, tell func(*subscription, auth.Decision, error)) {
	var next atomic.Int64
	one := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(subs) || s.isClosing() {
				return
			}
			q := question(id, s.name(), auth.ActionSub, subs[i].text)
			q.Anew = anew
			d, err := s.srv.cfg.Decider.Decide(s.srv.ctx, q)
			tell(subs[i], d, err)
		}
	}
	var wg sync.WaitGroup
	for range min(askers, len(subs)) - 1 {
		if s.srv.askers.Add(1) > maxAskers {
			s.srv.askers.Add(-1)
			break
		}
		wg.Go(func() {
			defer s.srv.askers.Add(-1)
			one()
		})
	}
	one()
	wg.Wait()
}

// askFor asks about all that a session is subscribed to, on behalf of whose it is to become, and returns what is
// allowed. Until it is, the session goes on with what it was allowed before.
func (s *session) askFor(id *auth.Identity) map[*subscription]yes {
	if s.srv.cfg.Decider == nil {
		return nil
	}
	s.mu.Lock()
	subs := make([]*subscription, 0, len(s.subs))
	for _, sub := range s.subs {
		if s.srv.mayRead(id, sub.subject) {
			subs = append(subs, sub)
		}
	}
	s.mu.Unlock()
	var mu sync.Mutex
	allowed := make(map[*subscription]yes, len(subs))
	s.askAll(id, subs, false, func(sub *subscription, d auth.Decision, err error) {
		if err == nil && d.Allow {
			mu.Lock()
			allowed[sub] = s.srv.yesFor(d)
			mu.Unlock()
		}
	})
	return allowed
}
