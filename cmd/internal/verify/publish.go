package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// publisher publishes one message after the other through the edge, each with a mid, and repeats each
// with the same mid, on whatever node it finds, until it is acknowledged. Some it repeats even then. One of them leaves
// all that to clients/go.
type publisher struct {
	d    *Driver
	name string
	rng  *rand.Rand
	lib  *tidewire.Client // not nil: it publishes with clients/go, which repeats by itself

	mu   sync.Mutex
	list []Publish

	conn   *wire // owned by run, as is what follows
	answer chan *frame
	ended  chan struct{}
	stop   context.CancelFunc
	id     int64
	node   int
}

func (p *publisher) snapshot() []Publish {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Publish, len(p.list))
	for i, x := range p.list {
		x.Attempts = x.Attempts[:len(x.Attempts):len(x.Attempts)]
		out[i] = x
	}
	return out
}

const (
	answerTime    = 10 * time.Second       // without an answer for so long it is sent again elsewhere
	publishRetry  = 100 * time.Millisecond // at least, between attempts
	repeatOneIn   = 10                     // of those acknowledged
	reconnectOneI = 200                    // messages: on another node
)

// run publishes until load ends, and goes on with what is not acknowledged until ctx ends.
func (p *publisher) run(load, ctx context.Context, rate int) {
	defer p.disconnect()
	pace := newPace(rate)
	for n, owed := 0, 0; ; {
		due, ok := pace.wait(load)
		if !ok {
			return
		}
		for owed = min(owed+due, max(1, rate)); owed > 0 && load.Err() == nil; owed-- {
			n++
			p.message(ctx, n)
		}
	}
}

func (p *publisher) message(ctx context.Context, n int) {
	id := fmt.Sprintf("%s-%s-%d", p.d.run, p.name, n)
	topic, key := p.d.o.Topics[p.rng.IntN(len(p.d.o.Topics))], keys[p.rng.IntN(len(keys))]
	x := Publish{Topic: topic, Subject: subjectOf(topic, key), ID: id, Mid: "m-" + id}
	p.mu.Lock()
	p.list = append(p.list, x)
	i := len(p.list) - 1
	p.mu.Unlock()
	p.d.counters.published.Add(1)
	ack := "kafka"
	if n%2 == 0 {
		ack = "replicated"
	}
	if p.rng.IntN(reconnectOneI) == 0 {
		p.disconnect()
	}
	repeat := p.rng.IntN(repeatOneIn) == 0
	for failures := 0; ctx.Err() == nil; {
		a, retry := p.attempt(ctx, x, ack)
		p.mu.Lock()
		p.list[i].Attempts = append(p.list[i].Attempts, a)
		p.mu.Unlock()
		switch {
		case a.Outcome == Acked && repeat:
			repeat = false
			continue
		case a.Outcome == Acked:
			p.d.counters.acked.Add(1)
			return
		case a.Outcome == Refused && a.Code != "unavailable" && a.Code != "rate_limited":
			return
		}
		failures++
		sleep(ctx, max(retry, publishRetry*time.Duration(min(failures, 10))))
	}
}

// attempt sends a publish once; retry is what the answer asks to wait before the next.
func (p *publisher) attempt(ctx context.Context, x Publish, ack string) (a Attempt, retry time.Duration) {
	if p.lib != nil {
		return p.withLibrary(ctx, x, ack), 0
	}
	a = Attempt{Outcome: Unknown, Ack: ack, Sent: p.d.Now()}
	if err := p.connect(ctx); err != nil {
		a.Message = err.Error()
		return a, 0
	}
	a.Node, a.Sent = p.conn.node, p.d.Now()
	p.id++
	op := map[string]any{"op": "pub", "id": p.id, "subject": x.Subject, "mid": x.Mid, "ack": ack, "headers": map[string]string{headerID: x.ID}}
	publishOp(op, x.ID)
	if err := p.conn.send(ctx, op); err != nil {
		a.Message = err.Error()
		p.disconnect()
		return a, 0
	}
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	for {
		select {
		case f := <-p.answer:
			if f.ID != p.id {
				continue
			}
			a.Answered = p.d.Now()
			if f.Op != "acked" {
				a.Outcome, a.Code, a.Message = Refused, or(f.Code, f.Op), f.Message
				return a, time.Duration(f.RetryMS) * time.Millisecond
			}
			a.Outcome, a.Partition, a.Offset, a.Duplicate = Acked, f.Partition, f.Offset, f.Duplicate
			if at, ok := place(f.Pos); ok {
				a.Pos = at.Pos
			}
			return a, 0
		case <-p.ended:
			a.Message = "the connection broke"
		case <-timer.C:
			a.Message = "no answer"
		case <-ctx.Done():
			a.Message = "the run ended"
		}
		p.disconnect()
		return a, 0
	}
}

// withLibrary hands a publish to clients/go. However often that sends it, over however many connections, it is one
// attempt for the judge, who wants the message once.
func (p *publisher) withLibrary(ctx context.Context, x Publish, ack string) Attempt {
	a := Attempt{Outcome: Unknown, Ack: ack, Sent: p.d.Now()}
	m := tidewire.Message{Mid: x.Mid, Ack: tidewire.Ack(ack), Headers: map[string]string{headerID: x.ID}}
	switch f, value := valueOf(x.ID); f {
	case formData:
		m.Value = tidewire.JSON(json.RawMessage(value))
	case formText:
		m.Value = tidewire.Text(string(value))
	case formB64:
		m.Value = tidewire.Bytes(value)
	default:
		m.Value = tidewire.Null()
	}
	acked, err := p.lib.Publish(ctx, x.Subject, m)
	a.Answered, a.Node = p.d.Now(), p.lib.Node()
	var refused *tidewire.Error
	switch {
	case err == nil:
		a.Outcome, a.Partition, a.Offset, a.Duplicate = Acked, acked.Partition, acked.Offset, acked.Duplicate
		if acked.Position != nil {
			a.Pos = Pos{Epoch: acked.Position.Epoch, Seqno: acked.Position.Seqno}
		}
	case errors.As(err, &refused):
		a.Outcome, a.Code, a.Message = Refused, refused.Code, refused.Message
	default:
		a.Answered, a.Message = 0, err.Error()
	}
	return a
}

// connect makes a connection to the next node if there is none, with a goroutine that reads the answers.
func (p *publisher) connect(ctx context.Context) error {
	if p.conn != nil {
		select {
		case <-p.ended:
			p.disconnect()
		default:
			return nil
		}
	}
	p.node++
	w, err := dial(ctx, p.d.o.Nodes[p.node%len(p.d.o.Nodes)], p.d.o.Token, nil)
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(context.Background())
	answer, ended := make(chan *frame), make(chan struct{})
	p.conn, p.answer, p.ended, p.stop = w, answer, ended, stop
	go func() { // disconnect waits for it
		defer close(ended)
		for {
			f, err := w.next(reading)
			if err != nil || f.Op == "bye" {
				return
			}
			select {
			case answer <- f:
			case <-reading.Done():
				return
			}
		}
	}()
	return nil
}

func (p *publisher) disconnect() {
	if p.conn == nil {
		return
	}
	p.stop()
	p.conn.close()
	<-p.ended
	p.conn = nil
}
