package wsedge

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// publishQueue holds what a session has published and Kafka has not answered yet. Publishes to one
// subject go one after the other, so that they arrive in the order in which the client sent them;
// different subjects go side by side. A subject has a goroutine for as long as it has something to do.
type publishQueue struct {
	waiting map[string][]*Op // by subject; the first is on its way
	count   int
	bytes   int
}

const (
	maxSessionPublishes    = 64
	maxSessionPublishBytes = 4 << 20
	publishTimeout         = 10 * time.Second // a backstop: the node answers within 5 s
	retryPublish           = 500 * time.Millisecond
)

// publish carries out a pub that is allowed, or rather sees that it is carried out. While a session has too much on its
// way it waits, and with it the reader.
func (s *session) publish(op *Op) *OpError {
	srv := s.srv
	view, ok := srv.cfg.Backend.Topic(op.Subject.Topic)
	if !ok || !view.Publish {
		srv.metrics.published("refused")
		return notOpen()
	}
	if oe := srv.beginPublish(op); oe != nil {
		return oe
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &s.pubs
	for (q.count >= maxSessionPublishes || q.bytes >= maxSessionPublishBytes) && !s.closing && !s.gone {
		if s.room == nil {
			s.room = sync.NewCond(&s.mu)
		}
		s.room.Wait()
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if s.closing || s.gone || srv.closed {
		srv.endPublish(op)
		return nil // nobody to answer
	}
	kept := *op
	q.count++
	q.bytes += kept.size()
	if q.waiting == nil {
		q.waiting = make(map[string][]*Op)
	}
	line := q.waiting[op.Text]
	q.waiting[op.Text] = append(line, &kept)
	if len(line) == 0 {
		srv.wg.Go(func() { s.publishLine(kept.Text) })
	}
	return nil
}

// mayPublishNow holds a publish against what one may carry, and the rates of its session and its user.
func (s *session) mayPublishNow(op *Op) *OpError {
	srv := s.srv
	if oe := srv.headersFit(op); oe != nil {
		return oe
	}
	if wait := s.sending.take(time.Now().UnixNano(), 1, srv.cfg.Limits.SessionPublishes); wait > 0 {
		srv.limited(limitSessionRate)
		srv.metrics.published("rate_limited")
		return tooFast("this session publishes", wait)
	}
	return srv.userRate(op.user(), s.addr)
}

// user is whose publish it is; empty where nobody says.
func (op *Op) user() string {
	if op.by == nil {
		return ""
	}
	return op.by.Subject
}

// userRate holds a publish against the rate of its user, or of its address where there is none.
func (srv *Server) userRate(user string, addr netip.Addr) *OpError {
	who := "user " + user
	if user == "" {
		if !addr.IsValid() {
			return nil
		}
		who = addressKey(addr).String()
	}
	wait := srv.users.take(who, time.Now().UnixNano(), 1, srv.cfg.Limits.UserPublishes)
	if wait == 0 {
		return nil
	}
	srv.limited(limitUserRate)
	srv.metrics.published("rate_limited")
	return tooFast("this user publishes", wait)
}

func tooFast(who string, wait time.Duration) *OpError {
	return &OpError{Code: codeRateLimited, Message: who + " more messages a second than it may; it was not written, send it again", Retry: max(wait, time.Millisecond)}
}

// headersFit holds the headers of a publish against what they may be.
func (srv *Server) headersFit(op *Op) *OpError {
	l, size := &srv.cfg.Limits, 0
	for _, h := range op.Headers {
		size += len(h.Key) + len(h.Value)
	}
	if (l.RecordHeaders < 0 || len(op.Headers) <= l.RecordHeaders) && (l.RecordHeaderBytes < 0 || size <= l.RecordHeaderBytes) {
		return nil
	}
	srv.limited(limitRecordHeaders)
	srv.metrics.published(codeTooLarge)
	return &OpError{Code: codeTooLarge, Message: "a record has at most " + strconv.Itoa(l.RecordHeaders) + " headers of " + strconv.Itoa(l.RecordHeaderBytes) + " bytes together"}
}

// beginPublish lets a publish on its way to Kafka, if there are not too many on it, or too large ones. endPublish must follow.
func (srv *Server) beginPublish(op *Op) *OpError {
	size, most := int64(op.size()), srv.cfg.Limits.PendingBytes
	count, bytes := srv.publishing.Add(1), srv.publishingBytes.Add(size)
	if count <= int64(srv.cfg.MaxPublishes) && (most < 1 || bytes <= most) {
		return nil
	}
	srv.endPublish(op)
	srv.limited(limitPublishes)
	srv.metrics.published("rate_limited")
	return tooManyPublishes()
}

func (srv *Server) endPublish(op *Op) {
	srv.publishing.Add(-1)
	srv.publishingBytes.Add(int64(-op.size()))
}

func (op *Op) size() int {
	n := len(op.Text) + len(op.Value) + len(op.Mid)
	for _, h := range op.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

func notOpen() *OpError {
	return &OpError{Code: codeBadSubject, Message: "no such topic is open for publishing", absent: true}
}

// publishLine publishes what waits for one subject until nothing does.
func (s *session) publishLine(text string) {
	s.mu.Lock()
	op := s.pubs.waiting[text][0]
	s.mu.Unlock()
	for op != nil {
		frame := s.publishOne(op)
		s.srv.endPublish(op)
		s.mu.Lock()
		q := &s.pubs
		q.count--
		q.bytes -= op.size()
		line := q.waiting[text]
		line[0] = nil
		if line = line[1:]; len(line) == 0 {
			delete(q.waiting, text)
			op = nil
		} else {
			q.waiting[text] = line
			op = line[0]
		}
		if !s.closing && !s.gone {
			s.control = append(s.control, frame...)
		}
		s.changed()
		s.mu.Unlock()
		s.enqueue()
	}
}

// publishOne publishes and returns the frame of the answer.
func (s *session) publishOne(op *Op) []byte {
	ctx, cancel := context.WithTimeout(s.srv.ctx, publishTimeout)
	defer cancel()
	if e := s.mayStill(ctx, op); e != nil {
		s.srv.metrics.published("refused")
		s.srv.metrics.failed(e.Code)
		e.ID = op.ID
		return appendError(nil, e)
	}
	result, e := s.srv.carryOutPublish(ctx, op)
	if e != nil {
		e.ID = op.ID
		return appendError(nil, e)
	}
	return appendAcked(nil, op.ID, result)
}

// carryOutPublish publishes and counts the outcome.
func (srv *Server) carryOutPublish(ctx context.Context, op *Op) (bridge.PublishResult, *OpError) {
	user := ""
	if op.by != nil {
		user = op.by.Subject
	}
	result, err := srv.cfg.Backend.Publish(ctx, bridge.PublishRequest{
		User:  user,
		Topic: op.Subject.Topic, Key: op.Subject.Key, Value: op.Value, Headers: op.Headers, Mid: op.Mid, Ack: op.Ack,
	})
	if err == nil {
		outcome := "ok"
		if result.Duplicate {
			outcome = "duplicate"
		}
		srv.metrics.published(outcome)
		return result, nil
	}
	e := publishError(err)
	srv.metrics.published(e.Code)
	srv.metrics.failed(e.Code)
	if e.Code == codeBadRequest {
		srv.log.Warn().Err(err).Str("topic", op.Subject.Topic).Msg("Kafka refused a publish")
	}
	return result, e
}

func tooManyPublishes() *OpError {
	return &OpError{Code: codeRateLimited, Message: "the node has too many publishes on their way; it was not written, send it again", Retry: retryPublish}
}

func publishError(err error) *OpError {
	var rejected *bridge.RejectedError
	switch {
	case errors.Is(err, bridge.ErrNotExposed):
		return notOpen()
	case errors.Is(err, bridge.ErrTooLarge):
		return &OpError{Code: codeTooLarge, Message: err.Error()}
	case errors.As(err, &rejected):
		if rejected.TooLarge {
			return &OpError{Code: codeTooLarge, Message: err.Error()}
		}
		return &OpError{Code: codeBadRequest, Message: err.Error()}
	}
	e := unavailable("Kafka or the coordinator cannot be reached now: it may or may not have been written; send it again with the same mid", err)
	return e
}
