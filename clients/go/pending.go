package tidewire

import (
	"context"
	"crypto/rand"
	"slices"
)

// Pending is a publish that was begun with PublishAsync.
type Pending struct {
	subject string
	p       *publish
}

// PublishAsync begins to publish one message and returns at once. Those to one subject are written in the
// order of the calls: the next is sent when the one before it was acknowledged or refused. It is repeated as
// Publish does, until the client is closed. Errors: ErrQueueFull, ErrClosed, or that the message cannot be
// sent as it is.
func (c *Client) PublishAsync(subject string, m Message) (*Pending, error) {
	if m.Mid == "" {
		m.Mid = rand.Text()
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	select {
	case c.slots <- struct{}{}:
	default:
		return nil, ErrQueueFull
	}
	p := &publish{c: c, mid: m.Mid, result: make(chan publishResult, 1)}
	if err := p.begin(subject, m, "async "+subject); err != nil {
		return nil, err
	}
	return &Pending{subject: subject, p: p}, nil
}

// Mid is the message id.
func (w *Pending) Mid() string { return w.p.mid }

// Wait returns what became of the publish, with the errors of Publish. When ctx ends first it returns that
// error, and the publish goes on: Wait may be called again, also by several goroutines.
func (w *Pending) Wait(ctx context.Context) (Acked, error) {
	select {
	case result := <-w.p.result:
		w.p.result <- result
		return result.of(w.subject, w.p.mid)
	case <-ctx.Done():
		return Acked{Mid: w.p.mid}, context.Cause(ctx)
	}
}

// leaveLane lets the next publish to the subject go. mu is held.
func (p *publish) leaveLane() {
	lane := p.c.lanes[p.lane]
	i := slices.Index(lane, p)
	if i < 0 {
		return
	}
	if lane = slices.Delete(lane, i, i+1); len(lane) == 0 {
		delete(p.c.lanes, p.lane)
		return
	}
	p.c.lanes[p.lane] = lane
	lane[0].send()
}

// refuseLargest ends the largest publish that waits on a connection which the server has closed over a frame
// that it did not take: sent again it would cost the next connection too. mu is held.
func (c *Client) refuseLargest(n *conn) {
	var largest *publish
	for _, p := range c.pubs {
		if p.sentOn == n && (largest == nil || len(p.frame) > len(largest.frame)) {
			largest = p
		}
	}
	if largest != nil {
		largest.refused(&Error{Code: CodeTooLarge, Message: "the server closed the connection over a frame of this size"})
	}
}
