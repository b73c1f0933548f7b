package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// crowd is the honest clients: each subscribes to one key and checks every record that it gets.
type crowd struct {
	clients []*honest
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu      sync.Mutex // guards the rest
	samples []sample
	faults  map[Fault]int
	details []string
}

// honest is one client.
type honest struct {
	name string
	key  int
	conn *websocket.Conn
	got  atomic.Uint64 // the count in the last record; they begin with 1
}

// record is the value of a live record: when it was made, in unix nanoseconds, and which of its key it is.
type record struct {
	T int64  `json:"t"`
	N uint64 `json:"n"`
	P string `json:"p,omitempty"`
}

const (
	openWait    = time.Minute
	atOnce      = 50 // clients that connect at the same time
	maxDetails  = 20 // what is told of faults, each
	honestFirst = 10 // their addresses are 127.0.0.10 and up, which are not the attackers'
	honestHosts = 20
)

// openCrowd connects n clients, spread over nodes and keys, and returns when all are subscribed. token makes one for a
// user.
func openCrowd(ctx context.Context, n, keys int, nodes []string, topic string, token func(user string) (string, error)) (*crowd, error) {
	c := &crowd{faults: map[Fault]int{}}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	slots := make(chan struct{}, atOnce)
	errs := make(chan error, n)
	for i := range n {
		h := &honest{name: fmt.Sprintf("h%d", i), key: i % keys}
		c.clients = append(c.clients, h)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t, err := token(h.name)
			if err == nil {
				err = h.open(ctx, nodes[i/keys%len(nodes)], fmt.Sprintf("/%s/k%d", topic, h.key), t, i)
			}
			if err != nil {
				cancel() // the others need not try
			}
			errs <- err
		}()
	}
	var failed error
	for range n {
		failed = errors.Join(failed, <-errs)
		if failed != nil && ctx.Err() == nil {
			cancel()
		}
	}
	if failed != nil {
		c.close()
		return nil, fmt.Errorf("honest clients: %w", first(failed))
	}
	for _, h := range c.clients {
		c.wg.Go(func() { c.follow(h) })
	}
	return c, nil
}

// first is the first of joined errors: a thousand of the same kind tell no more.
func first(err error) error {
	for {
		var joined interface{ Unwrap() []error }
		if !errors.As(err, &joined) || len(joined.Unwrap()) == 0 {
			return err
		}
		next := joined.Unwrap()[0]
		if next == err {
			return err
		}
		err = next
	}
}

func (h *honest) open(ctx context.Context, node, subject, token string, i int) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(honestFirst+i%honestHosts))}}
	tr := &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}
	conn, _, err := websocket.Dial(ctx, "ws://"+node+"/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{"tidewire.v1.json"}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if err != nil {
		return err
	}
	h.conn = conn
	conn.SetReadLimit(1 << 20)
	op, err := json.Marshal(fields{"op": "sub", "id": 1, "subject": subject})
	if err == nil {
		err = conn.Write(ctx, websocket.MessageText, op)
	}
	for err == nil {
		var b []byte
		if _, b, err = conn.Read(ctx); err != nil {
			break
		}
		var f answer
		if err = json.Unmarshal(b, &f); err != nil {
			break
		}
		switch f.Op {
		case "subbed":
			return nil
		case "error":
			return fmt.Errorf("sub %s: %s", subject, b)
		}
	}
	return err
}

// follow takes what a client gets until the crowd is closed.
func (c *crowd) follow(h *honest) {
	var last [3]uint64
	for {
		_, b, err := h.conn.Read(c.ctx)
		now := time.Now()
		if err != nil {
			if c.ctx.Err() == nil {
				c.fault(ThrownOut, "%s: %v", h.name, err)
			}
			return
		}
		var f struct {
			Op   string
			Pos  [3]uint64
			Data record
		}
		if err := json.Unmarshal(b, &f); err != nil {
			c.fault(Foreign, "%s: %v: %.200s", h.name, err, b)
			continue
		}
		switch f.Op {
		case "msg":
		case "gap", "unsubbed":
			c.fault(Lost, "%s: %.200s", h.name, b)
			continue
		default: // hb, live
			continue
		}
		before := h.got.Load()
		if last != [3]uint64{} && !after(f.Pos, last) {
			c.fault(OutOfOrder, "%s: %v after %v", h.name, f.Pos, last)
		}
		last = f.Pos
		switch n := f.Data.N; {
		case n == 0:
			c.fault(Foreign, "%s: %.200s", h.name, b)
			continue
		case n <= before:
			c.fault(Repeated, "%s: record %d after %d", h.name, n, before)
			continue
		case n > before+1:
			c.fault(Lost, "%s: record %d after %d", h.name, n, before)
		}
		h.got.Store(f.Data.N)
		c.mu.Lock()
		c.samples = append(c.samples, sample{now, time.Duration(now.UnixNano() - f.Data.T)})
		c.mu.Unlock()
	}
}

// after says whether a position is after another of the same partition.
func after(p, q [3]uint64) bool {
	return p[0] == q[0] && (p[1] > q[1] || p[1] == q[1] && p[2] > q[2])
}

func (c *crowd) fault(f Fault, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[f]++
	if len(c.details) < maxDetails {
		c.details = append(c.details, string(f)+": "+fmt.Sprintf(format, args...))
	}
}

// take returns what was counted since the last call, in windows of a length, and begins anew.
func (c *crowd) take(since time.Time, window time.Duration) (windows []Window, faults map[Fault]int, details []string) {
	c.mu.Lock()
	samples := c.samples
	faults, details = c.faults, c.details
	c.samples, c.faults, c.details = nil, map[Fault]int{}, nil
	c.mu.Unlock()
	return cut(samples, since, time.Now(), window), faults, details
}

// complete waits until every client has the last record of its key, and returns the clients that have not by then.
func (c *crowd) complete(ctx context.Context, produced []uint64) int {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		behind := 0
		for _, h := range c.clients {
			if h.got.Load() < produced[h.key] {
				behind++
			}
		}
		if behind == 0 {
			return 0
		}
		select {
		case <-ctx.Done():
			return behind
		case <-t.C:
		}
	}
}

func (c *crowd) close() {
	c.stop()
	for _, h := range c.clients {
		if h.conn != nil {
			_ = h.conn.CloseNow()
		}
	}
	c.wg.Wait()
}
