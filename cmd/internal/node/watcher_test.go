package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// This file holds a client written from the protocol alone, apart from clients/go, so that the two
// cannot agree on a mistake. It records everything.

// place is a position of one partition.
type place struct{ Epoch, Seqno uint64 }

func (p place) after(q place) bool {
	return p.Epoch > q.Epoch || (p.Epoch == q.Epoch && p.Seqno > q.Seqno)
}

// frame is any op of the server.
type frame struct {
	Op        string            `json:"op"`
	ID        int64             `json:"id"`
	Node      string            `json:"node"`
	Subject   string            `json:"subject"`
	Pos       []uint64          `json:"pos"`
	Prev      []uint64          `json:"prev"`
	TS        int64             `json:"ts"`
	Data      json.RawMessage   `json:"data"`
	Text      *string           `json:"text"`
	B64       []byte            `json:"b64"`
	Null      bool              `json:"null"`
	Headers   map[string]any    `json:"headers"`
	At        [][]uint64        `json:"at"`
	Recovered *bool             `json:"recovered"`
	Gap       string            `json:"gap"`
	Lost      []json.RawMessage `json:"lost"`
	Reason    string            `json:"reason"`
	Code      string            `json:"code"`
	Message   string            `json:"message"`
	RetryMS   int64             `json:"retry_ms"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Duplicate bool              `json:"duplicate"`
}

// wire is one connection.
type wire struct {
	c *websocket.Conn
}

func dialWire(ctx context.Context, addr string) (*wire, error) {
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws", &websocket.DialOptions{Subprotocols: []string{"tidewire.v1.json"}})
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(16 << 20)
	w := &wire{c: c}
	f, err := w.next(ctx)
	if err != nil {
		return nil, err
	}
	if f.Op != "welcome" {
		return nil, fmt.Errorf("the first op is %q", f.Op)
	}
	return w, nil
}

func (w *wire) next(ctx context.Context) (*frame, error) {
	for {
		_, b, err := w.c.Read(ctx)
		if err != nil {
			return nil, err
		}
		var f frame
		if err := json.Unmarshal(b, &f); err != nil {
			return nil, fmt.Errorf("not JSON: %w: %q", err, b)
		}
		if f.Op != "hb" {
			return &f, nil
		}
	}
}

func (w *wire) send(ctx context.Context, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.c.Write(ctx, websocket.MessageText, b)
}

// ask sends an op and returns the first frame that answers it, leaving out what else comes.
func (w *wire) ask(ctx context.Context, id int64, op map[string]any) (*frame, error) {
	op["id"] = id
	if err := w.send(ctx, op); err != nil {
		return nil, err
	}
	for {
		f, err := w.next(ctx)
		if err != nil || f.ID == id {
			return f, err
		}
	}
}

func (w *wire) close() { _ = w.c.CloseNow() }

// got is one record that a watcher was given.
type got struct {
	subject   string
	partition int32
	pos       place
	text      string // the value
}

// watcher keeps a subscription alive over any number of connections, as the protocol's rules for a
// good client say, but drops nothing: what comes twice is seen.
type watcher struct {
	t       *testing.T
	subject string
	addrs   func(i int) string // the node for the i-th connection
	history int

	mu       sync.Mutex
	conn     *wire
	stream   io.Closer // instead of conn, when it watches by SSE
	vector   map[int32]place
	records  []got
	problems []string
	resumes  int
	gaps     []frame
	subbed   int
	live     int
	epochs   map[uint64]bool

	cancel context.CancelFunc
	done   chan struct{}
}

// watch starts a watcher and waits until it has its subscription.
func watch(t *testing.T, subject string, history int, addrs func(i int) string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{t: t, subject: subject, addrs: addrs, history: history, cancel: cancel, done: make(chan struct{}), epochs: map[uint64]bool{}}
	go w.run(ctx)
	t.Cleanup(w.stop)
	eventually(t, "subscription to "+subject, func() bool { return w.subscriptions() > 0 })
	return w
}

func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

func (w *watcher) subscriptions() int { w.mu.Lock(); defer w.mu.Unlock(); return w.subbed }
func (w *watcher) count() int         { w.mu.Lock(); defer w.mu.Unlock(); return len(w.records) }
func (w *watcher) isLive() bool       { w.mu.Lock(); defer w.mu.Unlock(); return w.live > 0 }

// cut breaks the connection without a goodbye.
func (w *watcher) cut() {
	w.mu.Lock()
	c, stream := w.conn, w.stream
	w.mu.Unlock()
	if c != nil {
		c.close()
	}
	if stream != nil {
		_ = stream.Close()
	}
}

func (w *watcher) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.done)
	for i := 0; ctx.Err() == nil; i++ {
		err := w.connection(ctx, w.addrs(i))
		var ce websocket.CloseError
		if errors.As(err, &ce) && ce.Code == websocket.StatusProtocolError {
			w.mu.Lock()
			w.problem("closed: %v", ce)
			w.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *watcher) connection(ctx context.Context, addr string) error {
	dctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := dialWire(dctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	op := map[string]any{"op": "sub", "id": 1, "subject": w.subject, "history": w.history}
	w.mu.Lock()
	w.conn = c
	resuming := w.vector != nil
	if resuming {
		op["resume"] = w.vectorList()
	}
	w.mu.Unlock()
	if err := c.send(ctx, op); err != nil {
		return err
	}
	for {
		f, err := c.next(ctx)
		if err != nil {
			return err
		}
		if err := w.take(f, resuming); err != nil {
			return err
		}
	}
}

// vectorList is called with mu held.
func (w *watcher) vectorList() [][3]uint64 {
	v := [][3]uint64{}
	for p, at := range w.vector {
		v = append(v, [3]uint64{uint64(p), at.Epoch, at.Seqno})
	}
	return v
}

func (w *watcher) take(f *frame, resuming bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch f.Op {
	case "subbed":
		w.subbed++
		if resuming {
			w.resumes++
			if f.Recovered == nil {
				w.problem("a resume was answered without recovered")
			} else if !*f.Recovered {
				w.gaps = append(w.gaps, *f)
			}
		}
		if !resuming || (f.Recovered != nil && !*f.Recovered) {
			w.vector = nil
		}
		w.adopt(f.At)
	case "msg":
		p, pos := int32(f.Pos[0]), place{f.Pos[1], f.Pos[2]}
		if at := w.vector[p]; !pos.after(at) {
			w.problem("%s: [%d %v] came after [%d %v]: repeated or out of order", f.Subject, p, pos, p, at)
		}
		if f.Prev != nil && len(w.subject) > 0 && w.subject[len(w.subject)-1] != '*' {
			if at := w.vector[p]; (place{f.Prev[0], f.Prev[1]}).after(at) {
				w.problem("%s: prev %v of [%d %v] is after what we have, %v: something is missing", f.Subject, f.Prev, p, pos, at)
			}
		}
		w.vector[p] = pos
		w.epochs[pos.Epoch] = true
		value := string(f.Data)
		switch {
		case f.Text != nil:
			value = *f.Text
		case f.B64 != nil:
			value = string(f.B64)
		case f.Null:
			value = "<null>"
		}
		w.records = append(w.records, got{f.Subject, p, pos, value})
	case "gap":
		w.gaps = append(w.gaps, *f)
		w.adopt(f.At)
	case "live":
		w.live++
	case "bye":
	case "error":
		if f.Code != "unavailable" {
			w.problem("error %s: %s", f.Code, f.Message)
		}
		return errors.New(f.Code)
	default:
		w.problem("unexpected op %q", f.Op)
	}
	return nil
}

// adopt takes over the partitions of a vector. Positions never go back in a recovered subscription.
func (w *watcher) adopt(at [][]uint64) {
	if w.vector == nil {
		w.vector = map[int32]place{}
	}
	for _, p := range at {
		w.vector[int32(p[0])] = place{p[1], p[2]}
	}
}

// snapshot returns what was received so far, by partition.
func (w *watcher) snapshot() (records map[int32][]got, problems []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	records = map[int32][]got{}
	for _, r := range w.records {
		records[r.partition] = append(records[r.partition], r)
	}
	return records, append([]string(nil), w.problems...)
}
