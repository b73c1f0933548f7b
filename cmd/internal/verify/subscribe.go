package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// recorder is a subscriber: it keeps its subscription alive as a good client does, but drops nothing, and
// writes everything down.
type recorder struct {
	d      *Driver
	pinned bool // it goes back to its node when it can
	home   int
	pace   *throttle // of a slow one
	begun  chan struct{}

	mu     sync.Mutex
	sub    Subscriber
	conn   *wire
	vector map[int32]Pos // nil: no subscription has been made
	cutBy  bool          // we broke the connection ourselves
	on     bool          // it has a subscription at this moment
	rng    *rand.Rand    // owned by run
}

func (r *recorder) run(ctx context.Context) {
	r.d.counters.subscribers.Add(1)
	defer r.d.counters.subscribers.Add(-1)
	home := r.home % len(r.d.o.Nodes)
	node := home
	for failures := 0; ctx.Err() == nil; {
		wait, met := r.connection(ctx, r.d.o.Nodes[node])
		if met {
			failures = 0
		} else {
			failures++
		}
		if r.pinned {
			node = pinnedNext(node, home, len(r.d.o.Nodes), failures)
		} else {
			node = (node + 1 + r.rng.IntN(max(1, len(r.d.o.Nodes)-1))) % len(r.d.o.Nodes) // another one
		}
		if failures > 0 {
			wait = max(wait, time.Duration(r.rng.Int64N(int64(min(50*time.Millisecond<<min(failures, 5), time.Second)))))
		}
		sleep(ctx, wait)
	}
}

// pinnedTries is how often one node is tried, home in between, before it is the next one's turn: a node on which
// thousands fall at once may refuse some, and they are to come to it all the same.
const pinnedTries = 4

// pinnedNext is where a subscriber goes on that belongs to a node, home, of so many, after node: home, when that was
// another one, or else another one. failures is how many in a row it has not reached.
func pinnedNext(node, home, nodes, failures int) int {
	if node != home || nodes == 1 {
		return home
	}
	return (home + 1 + failures/(2*pinnedTries)%(nodes-1)) % nodes
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (r *recorder) record(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(e)
}

// note is record with mu held.
func (r *recorder) note(e Event) {
	e.Time = r.d.Now()
	r.sub.Events = append(r.sub.Events, e)
}

// snapshot returns what was recorded so far. The events are shared: none is changed once it is there.
func (r *recorder) snapshot() Subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sub
	s.Events = slices.Clip(s.Events)
	return s
}

// cut breaks the connection without a goodbye, as a phone in a tunnel would. It returns false when there
// is no subscription to break.
func (r *recorder) cut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn == nil || !r.on {
		return false
	}
	r.cutBy = true
	r.conn.close()
	return true
}

// connection lives through one connection. met is whether a node was reached, wait how long it asked the
// client to stay away.
func (r *recorder) connection(ctx context.Context, addr string) (wait time.Duration, met bool) {
	w, err := dial(ctx, addr, r.d.o.Token, r.pace)
	if err != nil {
		return 0, false
	}
	defer w.close()
	r.mu.Lock()
	r.conn, r.cutBy, r.on = w, false, false
	r.note(Event{Kind: Connect, Detail: &Detail{Node: w.node, Message: addr}})
	r.mu.Unlock()
	bye := ""
	err = r.converse(ctx, w, func(f *frame) { bye, wait = f.Reason, time.Duration(f.RetryMS)*time.Millisecond })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = nil
	r.off()
	d := &Detail{By: or(bye, ByBreak), Message: fmt.Sprint(err)}
	var closed websocket.CloseError
	switch {
	case ctx.Err() != nil || r.cutBy:
		d.By = Ours
	case errors.As(err, &closed):
		if bye == "" {
			d.By = fmt.Sprintf("closed with %d", closed.Code)
		}
		d.Code = fmt.Sprint(int(closed.Code))
	}
	r.note(Event{Kind: Disconnect, Detail: d})
	r.d.counters.disconnects.Add(1)
	var bad *errFrame
	if errors.As(err, &bad) || closed.Code == websocket.StatusProtocolError || closed.Code == websocket.StatusInvalidFramePayloadData {
		r.note(Event{Kind: Violation, Detail: &Detail{Message: err.Error()}})
	}
	return min(wait, maxWait), true
}

// maxWait bounds what a node may ask us to wait: a drain spreads its clients over some seconds.
const maxWait = 15 * time.Second

// off is called with mu held.
func (r *recorder) off() {
	if r.on {
		r.on = false
		r.d.counters.subscribed.Add(-1)
	}
}

// subscribe sends the sub op and returns what it resumes from.
func (r *recorder) subscribe(ctx context.Context, w *wire, id int64) (resume []Place, resuming bool, err error) {
	op := map[string]any{"op": "sub", "id": id, "subject": r.sub.Subject}
	r.mu.Lock()
	if r.sub.History != 0 {
		op["history"] = r.sub.History
	}
	if resuming = r.vector != nil; resuming {
		v := [][3]uint64{}
		for p, at := range r.vector {
			v = append(v, [3]uint64{uint64(p), at.Epoch, at.Seqno})
			resume = append(resume, Place{p, at})
		}
		op["resume"] = v
	}
	r.mu.Unlock()
	return resume, resuming, w.send(ctx, op)
}

// retrySub is the pause before a refused subscription is asked for again, if the node names none.
const retrySub = 200 * time.Millisecond

func (r *recorder) converse(ctx context.Context, w *wire, bye func(f *frame)) error {
	id := int64(1)
	resume, resuming, err := r.subscribe(ctx, w, id)
	if err != nil {
		return err
	}
	again := func(wait time.Duration) error {
		sleep(ctx, max(wait, retrySub))
		id++
		resume, resuming, err = r.subscribe(ctx, w, id)
		return err
	}
	for {
		f, err := w.next(ctx)
		if err != nil {
			return err
		}
		switch f.Op {
		case "msg":
			r.msg(f)
		case "subbed":
			r.subbed(f, resume, resuming)
		case "live":
			r.record(Event{Kind: Live})
		case "gap":
			r.gap(f)
		case "bye":
			bye(f)
		case "unsubbed":
			r.mu.Lock()
			r.off()
			r.note(Event{Kind: Unsubbed, Detail: &Detail{Reason: f.Reason}})
			r.mu.Unlock()
			err = again(0)
		case "error":
			r.record(Event{Kind: SubRefused, Detail: &Detail{Code: f.Code, Message: f.Message}})
			switch f.Code {
			case "unavailable", "rate_limited", "bad_subject": // the last: the topic is not exposed yet, or gone
				err = again(time.Duration(f.RetryMS) * time.Millisecond)
			default:
				err = fmt.Errorf("%s: %s", f.Code, f.Message)
				r.d.fail(fmt.Errorf("subscribe to %s at %s: %w", r.sub.Subject, w.node, err))
			}
		default:
			r.violation("unexpected op %q", f.Op)
		}
		if err != nil {
			return err
		}
	}
}

func (r *recorder) violation(format string, args ...any) {
	r.record(Event{Kind: Violation, Detail: &Detail{Message: fmt.Sprintf(format, args...)}})
}

func (r *recorder) subbed(f *frame, resume []Place, resuming bool) {
	at, ok := places(f.At)
	d := &Detail{At: at, Resume: resume, Resumed: resuming, Recovered: f.Recovered != nil && *f.Recovered, Reason: f.Gap}
	for _, l := range f.Lost {
		from, okFrom := pair(l.From)
		to, okTo := pair(l.To)
		ok = ok && okFrom && okTo
		d.Lost = append(d.Lost, LostRange{l.Partition, from, to})
	}
	if !ok || resuming && f.Recovered == nil {
		r.violation("a subbed that cannot be: at %v, lost %v, recovered %v", f.At, f.Lost, f.Recovered)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(Event{Kind: Subbed, Detail: d})
	r.vector = map[int32]Pos{}
	for _, p := range at {
		r.vector[p.Partition] = p.Pos
	}
	r.on = true
	r.d.counters.subscribed.Add(1)
	if resuming {
		r.d.counters.resumes.Add(1)
		if !d.Recovered {
			r.d.counters.gaps.Add(1)
		}
	}
	select {
	case <-r.begun:
	default:
		close(r.begun)
	}
}

func (r *recorder) gap(f *frame) {
	at, ok := places(f.At)
	if !ok {
		r.violation("a gap at %v", f.At)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.d.counters.gaps.Add(1)
	r.note(Event{Kind: Gap, Detail: &Detail{At: at, Reason: f.Reason}})
	for _, p := range at {
		r.adopt(p)
	}
}

// adopt is called with mu held.
func (r *recorder) adopt(p Place) {
	if r.vector == nil {
		r.vector = map[int32]Pos{}
	}
	r.vector[p.Partition] = p.Pos
}

func (r *recorder) msg(f *frame) {
	at, ok := place(f.Pos)
	prev, okPrev := pair(f.Prev)
	if !ok || !okPrev && f.Prev != nil {
		r.violation("a msg at %v after %v", f.Pos, f.Prev)
		return
	}
	form, value := f.value()
	e := Event{Kind: Msg, Place: at, Prev: prev, Subject: r.d.intern(f.Subject)}
	var id string
	if raw, found := f.Headers[headerID]; found && json.Unmarshal(raw, &id) == nil {
		e.ID, e.Damaged = r.d.intern(id), !intact(id, form, value)
	} else {
		e.ID = foreignID(f.Subject, f.TS, value)
	}
	r.d.counters.delivered.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(e)
	r.adopt(at)
}
