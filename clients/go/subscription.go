package tidewire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// SubOptions says where a subscription starts. The zero value starts with what comes next.
type SubOptions struct {
	// History asks for the n most recent records that the cluster has in memory first; -1 for all
	// of them.
	History int
	// Resume goes on after a vector that an earlier subscription to the same subject reached. It
	// wins over History. A partition that it leaves out starts with its first cached record.
	Resume Vector
	// Conflate asks for at most one record per subject in so long, always the newest; to the
	// millisecond. Zero: every record.
	Conflate time.Duration
	// Store keeps the subscription's vector under StoreKey (empty: the subject), so that a later process
	// resumes: Subscribe reads it unless there is a Resume, Next writes it now and then, and Close in the
	// end. Nil: nothing is kept.
	Store    VectorStore
	StoreKey string
	// Buffer is how many items wait for Next at most. Zero: 1024; the least is 16.
	Buffer int
}

// Subscription is one subject's stream of items. Next may be called by one goroutine at a time; the
// other methods by any.
type Subscription struct {
	c       *Client
	subject string
	opts    SubOptions
	limit   int
	notify  chan struct{} // one slot: the queue has grown or the subscription ended
	ready   chan struct{} // closed when the server has accepted it, or it ended

	// Everything below is guarded by Client.mu.
	state   subState
	subbed  bool      // the server accepted it at least once: from now on it is resumed
	paused  bool      // the queue was full; half of it must be read first
	broken  bool      // the connection was lost since the last subbed
	liveDue bool      // the application has not been told that it has caught up
	hole    *Position // the record that showed a hole, which a second attempt is to fill
	stored  bool      // opts.Resume came out of the store
	anew    bool      // and was refused: the application is to be told
	keep    keeping
	vector  Vector // everything up to here is in the queue or was read
	given   Vector // everything up to here was returned by Next
	queue   []Item
	head    int // queue[:head] has been read
	end     error
	timer   *time.Timer // a refused sub is tried again
}

type subState uint8

const (
	idle     subState = iota // the server does not serve it
	starting                 // sub was sent
	active                   // subbed was received: records count
	stopping                 // unsub was sent; what still comes is not counted
)

// Subscribe subscribes to a subject or a pattern and waits until the cluster has accepted it. While no
// node can be reached it keeps trying until ctx ends. Errors: *Error (refused), ErrOverlap, ErrClosed,
// or that of ctx.
func (c *Client) Subscribe(ctx context.Context, subject string, opts SubOptions) (*Subscription, error) {
	s := &Subscription{
		c: c, subject: subject, opts: opts, limit: max(opts.Buffer, 16), liveDue: true,
		notify: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	if opts.Buffer <= 0 {
		s.limit = 1024
	}
	if opts.Resume != nil {
		resume, err := checkVector(opts.Resume)
		if err != nil {
			return nil, err
		}
		s.opts.Resume = resume
	} else if opts.Store != nil {
		kept, err := s.load(ctx)
		if err != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		s.opts.Resume, s.stored = kept, kept != nil
	}
	s.given = slices.Clone(s.opts.Resume)
	c.mu.Lock()
	if err := c.reason(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	for other := range c.subs {
		if overlap(other, subject) {
			c.mu.Unlock()
			return nil, fmt.Errorf("subscribe to %s: %w: %s", subject, ErrOverlap, other)
		}
	}
	c.subs[subject] = s
	s.start()
	c.mu.Unlock()

	select {
	case <-s.ready:
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.end != nil {
			return nil, fmt.Errorf("subscribe to %s: %w", subject, s.end)
		}
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("subscribe to %s: %w", subject, context.Cause(ctx))
	}
}

// Subject is what was subscribed to.
func (s *Subscription) Subject() string { return s.subject }

// Vector is the place after the last item that Next returned: with it in SubOptions.Resume, a later
// subscription goes on there.
func (s *Subscription) Vector() Vector {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return slices.Clone(s.given)
}

// Next returns the next item, waiting for it until ctx ends. After the end of the subscription it
// returns what was still queued and then why it ended: ErrClosed, *UnsubscribedError or *Error. With
// ErrStore the vector could not be stored; the subscription goes on and Next may be called again.
func (s *Subscription) Next(ctx context.Context) (Item, error) {
	if err := s.storeNow(ctx); err != nil {
		return nil, err
	}
	for {
		if item, err := s.pop(); item != nil || err != nil {
			return item, err
		}
		select {
		case <-s.notify:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// All ranges over the items until ctx ends, the loop is left or the subscription ends; it then yields
// the error once, unless the application itself closed the subscription.
func (s *Subscription) All(ctx context.Context) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for {
			item, err := s.Next(ctx)
			if errors.Is(err, ErrClosed) {
				return
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the subscription; what was queued is dropped. It does not wait for the server. The error is
// ErrStore's alone.
func (s *Subscription) Close() error {
	s.c.mu.Lock()
	if s.state == starting || s.state == active {
		s.stop()
	}
	s.finish(ErrClosed)
	s.queue, s.head = nil, 0
	s.c.mu.Unlock()
	return s.storeAtEnd()
}

// pop takes one item; nil, nil when there is none yet.
func (s *Subscription) pop() (Item, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.head == len(s.queue) {
		return nil, s.end
	}
	item := s.queue[s.head]
	s.queue[s.head] = nil
	s.head++
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	} else if s.head >= s.limit {
		s.queue, s.head = slices.Delete(s.queue, 0, s.head), 0
	}
	switch item := item.(type) {
	case *Record:
		s.given.set(item.Position)
	case *Gap:
		s.given = slices.Clone(item.At)
	case *Resumed:
		s.given = slices.Clone(item.At)
	}
	s.keep.due = true
	if s.paused && s.waiting() <= s.limit/2 {
		s.paused = false
		s.start()
	}
	return item, nil
}

func (s *Subscription) waiting() int { return len(s.queue) - s.head }

// start sends sub if there is nothing against it. mu is held.
func (s *Subscription) start() {
	n := s.c.conn
	if s.state != idle || s.end != nil || n == nil || s.timer != nil {
		return
	}
	if s.waiting() > s.limit/2 {
		s.paused = true
	}
	if s.paused {
		return
	}
	s.state = starting
	r := &request{Op: "sub", ID: s.c.id(), Subject: s.subject, Conflate: s.opts.Conflate.Milliseconds()}
	switch {
	case s.subbed:
		v := slices.Clone(s.vector)
		r.Resume = &v
	case s.opts.Resume != nil:
		r.Resume, r.History = &s.opts.Resume, s.opts.History
	default:
		r.History = s.opts.History
	}
	n.send(r, func(a *answer) { s.answered(n, a, r.Resume != nil) })
}

// answered takes the answer to sub. mu is held.
func (s *Subscription) answered(n *conn, a *answer, resumed bool) {
	if s.end != nil || s.state != starting {
		return
	}
	switch {
	case a.Op == "subbed":
	case a.Op == "error" && a.RetryMS > 0:
		s.state = idle
		s.timer = time.AfterFunc(a.retry(), func() {
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			s.timer = nil
			s.start()
		})
		return
	case n.renewed(a): // the next connection has a fresh token
		s.state = idle
		return
	case a.Op == "error" && a.Code == CodeBadRequest && s.stored && !s.subbed:
		// What was stored is no vector of this topic any more: it was made anew with fewer partitions.
		s.state, s.stored, s.anew = idle, false, true
		s.opts.Resume, s.given = nil, nil
		s.start()
		return
	case a.Op == "error":
		s.finish(a.err())
		return
	default:
		s.finish(&Error{Code: CodeBadRequest, Message: "the server answered sub with " + a.Op})
		return
	}

	s.state = active
	at := normal(a.At)
	s.vector = slices.Clone(at)
	switch {
	case resumed && a.Recovered != nil && !*a.Recovered:
		s.liveDue = true
		s.push(&Gap{Reason: cmp.Or(a.Gap, "unknown"), At: at, Lost: a.lost()})
	case resumed && (s.broken || !s.subbed):
		s.liveDue = true
		item := &Resumed{Node: n.node, At: at}
		if s.subbed {
			item.Previous = s.c.node
		}
		s.push(item)
	case !s.subbed:
		s.given = slices.Clone(at)
		s.keep.due = true
		if s.anew {
			s.push(&Gap{Reason: "refused", At: at})
		}
	}
	s.broken = false
	if !s.subbed {
		s.subbed = true
		close(s.ready)
	}
}

// record takes one record. mu is held.
func (s *Subscription) record(r *Record) {
	if s.state != active {
		return
	}
	at, known := s.vector.At(r.Position.Partition)
	if known && !r.Position.After(at) {
		return // repeated
	}
	if known && r.Prev != nil && r.Prev.After(at) && s.opts.Conflate == 0 {
		if s.hole == nil || *s.hole != r.Position {
			// A record before this one was never received. Asking again from the vector brings it,
			// or shows that it is gone.
			s.hole = &r.Position
			s.c.cfg.Log.Warn("a record was missed: subscribing again", "subject", s.subject, "at", at.String(), "got", r.Position.String())
			s.stop()
			return
		}
		vector := slices.Clone(s.vector)
		vector.set(*r.Prev)
		from := at
		from.Seqno++
		if !s.push(&Gap{Reason: "missed", At: vector, Lost: []Lost{{Partition: at.Partition, From: from, To: *r.Prev}}}) {
			return
		}
		s.vector = slices.Clone(vector)
	}
	if s.push(r) {
		s.vector.set(r.Position)
		s.hole = nil
	}
}

func (s *Subscription) live() {
	if s.state == active && s.liveDue && s.push(&Live{}) {
		s.liveDue = false
	}
}

// gap takes a gap inside the stream. Its vector may name only the partitions that have one.
func (s *Subscription) gap(a *answer) {
	if s.state != active {
		return
	}
	vector := slices.Clone(s.vector)
	for _, p := range a.At {
		vector.set(p)
	}
	if s.push(&Gap{Reason: cmp.Or(a.Reason, "unknown"), At: slices.Clone(vector), Lost: a.lost()}) {
		s.vector = vector
	}
}

// push queues an item; if there is no room it pauses the subscription and returns false, and the item
// will come again. mu is held.
func (s *Subscription) push(item Item) bool {
	if s.waiting() >= s.limit {
		s.paused = true
		s.stop()
		return false
	}
	s.queue = append(s.queue, item)
	select {
	case s.notify <- struct{}{}:
	default:
	}
	return true
}

// stop sends unsub and ignores what still comes; start follows the answer. mu is held.
func (s *Subscription) stop() {
	n := s.c.conn
	if n == nil {
		return
	}
	s.state = stopping
	n.send(&request{Op: "unsub", ID: s.c.id(), Subject: s.subject}, func(*answer) {
		if s.state == stopping { // unsubbed, or not_subscribed: either way it is not served now
			s.state = idle
			s.start()
		}
	})
}

// disconnected forgets what the server knew. mu is held.
func (s *Subscription) disconnected() {
	s.state = idle
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.broken = true
}

// finish ends the subscription; the first reason stays. mu is held.
func (s *Subscription) finish(why error) {
	if s.end != nil {
		return
	}
	s.end = why
	s.state = idle
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if s.c.subs[s.subject] == s {
		delete(s.c.subs, s.subject)
	}
	if !s.subbed {
		s.subbed = true
		close(s.ready)
	}
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// subscriptionFor finds the one subscription that a record belongs to. mu is held.
func (c *Client) subscriptionFor(subject string) *Subscription {
	if s := c.subs[subject]; s != nil {
		return s
	}
	for pattern, s := range c.subs {
		if covers(pattern, subject) {
			return s
		}
	}
	return nil
}

// normal orders a vector that came from the server.
func normal(v Vector) Vector {
	out := make(Vector, 0, len(v))
	for _, p := range v {
		out.set(p)
	}
	return out
}
