package tidewire

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Value is what a message carries; make one with JSON, Text, Bytes or Null.
type Value struct {
	data json.RawMessage
	text *string
	b64  *[]byte
	null bool
	err  error
}

// JSON is a value of JSON text: v as encoding/json writes it, without escaping HTML. A json.RawMessage
// is taken as it is, compacted.
func JSON(v any) Value {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return Value{err: err}
	}
	return Value{data: bytes.TrimSpace(buf.Bytes())}
}

// Text is a value of UTF-8 text.
func Text(s string) Value {
	if !utf8.ValidString(s) {
		return Value{err: errors.New("text is not valid UTF-8: use Bytes")}
	}
	return Value{text: &s}
}

// Bytes is a value of any bytes.
func Bytes(b []byte) Value {
	b = append([]byte{}, b...)
	return Value{b64: &b}
}

// Null is Kafka's null: a tombstone.
func Null() Value { return Value{null: true} }

// Ack says what a publish must have reached to be acknowledged.
type Ack string

const (
	AckKafka      Ack = "kafka"      // all in-sync replicas in Kafka; the default
	AckReplicated Ack = "replicated" // also a majority of the edge nodes; Acked.Position is known then
)

// Message is one publish.
type Message struct {
	Value   Value
	Headers map[string]string
	// Mid is the message id, at most 128 bytes: what has the same one, from the same user to the same
	// partition, is the same message and is written once. Empty: one is made.
	Mid string
	Ack Ack
}

// Acked is an acknowledged publish.
type Acked struct {
	Mid       string    `json:"mid"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Position  *Position `json:"pos,omitempty"` // nil where the cluster did not say it
	Duplicate bool      `json:"duplicate,omitempty"`
}

func (m *Message) check() error {
	v := m.Value
	switch {
	case len(m.Mid) > 128:
		return fmt.Errorf("tidewire: the message id is %d bytes long: at most 128 are allowed", len(m.Mid))
	case v.err != nil:
		return fmt.Errorf("tidewire: value: %w", v.err)
	case v.data == nil && v.text == nil && v.b64 == nil && !v.null:
		return errors.New("tidewire: the message has no value: use Null for a tombstone")
	}
	return nil
}

// publish is one that is under way.
type publish struct {
	c      *Client
	id     int64
	mid    string
	frame  []byte
	lane   string             // not empty: it is of PublishAsync, and waits for those before it
	result chan publishResult // one slot, filled once

	// Guarded by Client.mu.
	sentOn *conn // where it waits for an answer; nil: to be sent
	sent   bool  // it may have reached the cluster
	over   bool
	timer  *time.Timer
}

type publishResult struct {
	acked Acked
	err   error
}

// Publish writes one message and waits until it is acknowledged, repeating it with the same message id
// over any number of connections. Errors: *Error (refused), ErrUncertain joined with that of ctx or
// ErrClosed (given up: it may have been written), or one of these alone (it was never sent). The Acked
// returned has the message id in every case. Publishes made one after the other are written in that
// order; those under way together may not be: for these there is PublishAsync.
func (c *Client) Publish(ctx context.Context, subject string, m Message) (Acked, error) {
	if m.Mid == "" {
		m.Mid = rand.Text()
	}
	p := &publish{c: c, mid: m.Mid, result: make(chan publishResult, 1)}
	if err := m.check(); err != nil {
		return Acked{Mid: m.Mid}, err
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return Acked{Mid: m.Mid}, context.Cause(ctx)
	case <-c.ctx.Done():
		return Acked{Mid: m.Mid}, context.Cause(c.ctx)
	}
	if err := p.begin(subject, m, ""); err != nil {
		return Acked{Mid: m.Mid}, err
	}
	var result publishResult
	select {
	case result = <-p.result:
	case <-ctx.Done():
		c.mu.Lock()
		p.finish(Acked{}, context.Cause(ctx))
		c.mu.Unlock()
		result = <-p.result // either that or an answer that was quicker
	}
	return result.of(subject, m.Mid)
}

func (r publishResult) of(subject, mid string) (Acked, error) {
	r.acked.Mid = mid
	if r.err != nil {
		return r.acked, fmt.Errorf("publish to %s: %w", subject, r.err)
	}
	return r.acked, nil
}

// begin takes the publish up and sends it if it may go. It gives the slot back if it fails, as finish does.
func (p *publish) begin(subject string, m Message, lane string) error {
	c, v := p.c, m.Value
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reason(); err != nil {
		<-c.slots
		return err
	}
	p.id, p.lane = c.id(), lane
	r := request{Op: "pub", ID: p.id, Subject: subject, Data: v.data, Text: v.text, B64: v.b64, Headers: m.Headers, Mid: m.Mid, Ack: string(m.Ack)}
	frame, err := r.encode()
	if err != nil {
		<-c.slots
		return fmt.Errorf("tidewire: publish: %w", err)
	}
	p.frame = frame
	c.pubs[p.id] = p
	if lane != "" {
		c.lanes[lane] = append(c.lanes[lane], p)
	}
	p.send()
	return nil
}

// send sends the publish if there is a connection that it is not waiting on already. mu is held.
func (p *publish) send() {
	n := p.c.conn
	if n == nil || p.over || p.sentOn == n || p.lane != "" && p.c.lanes[p.lane][0] != p {
		return
	}
	p.sentOn = n
	n.sendFrame(p.id, p.frame, func(a *answer) { p.answered(a) })
	if !p.over {
		p.sent = true
	}
}

// answered takes the answer. mu is held.
func (p *publish) answered(a *answer) {
	if p.over {
		return
	}
	switch {
	case a.Op == "acked":
		p.finish(Acked{Partition: a.Partition, Offset: a.Offset, Position: a.Pos, Duplicate: a.Duplicate}, nil)
	case a.Op == "error" && (a.RetryMS > 0 || a.Code == CodeUnavailable || a.Code == CodeRateLimited):
		p.c.cfg.Log.Info("publish will be repeated", "mid", p.mid, "code", a.Code, "message", a.Message)
		n := p.sentOn
		p.timer = time.AfterFunc(max(a.retry(), 50*time.Millisecond), func() {
			p.c.mu.Lock()
			defer p.c.mu.Unlock()
			if p.sentOn == n { // not sent again on another connection meanwhile
				p.sentOn = nil
				p.send()
			}
		})
	case p.sentOn != nil && p.sentOn.renewed(a): // sent again on the next connection
	case a.Op == "error":
		p.refused(a.err())
	default:
		p.refused(&Error{Code: CodeBadRequest, Message: "the server answered pub with " + a.Op})
	}
}

// refused ends the publish with what the server said, which is certain, whatever was sent before.
func (p *publish) refused(err error) {
	p.sent = false
	p.finish(Acked{}, err)
}

// finish ends the publish; the first end stays. mu is held.
func (p *publish) finish(acked Acked, err error) {
	if p.over {
		return
	}
	p.over = true
	if p.timer != nil {
		p.timer.Stop()
	}
	delete(p.c.pubs, p.id)
	<-p.c.slots
	if n := p.sentOn; n != nil && n.calls != nil {
		delete(n.calls, p.id)
	}
	if err != nil && p.sent {
		err = fmt.Errorf("%w (message id %s): %w", ErrUncertain, p.mid, err)
	}
	p.result <- publishResult{acked, err}
	p.leaveLane()
}

// resendPublishes sends everything that is under way on a new connection, oldest first. mu is held.
func (c *Client) resendPublishes() {
	ids := make([]int64, 0, len(c.pubs))
	for id := range c.pubs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if p := c.pubs[id]; p != nil {
			p.send()
		}
	}
}
