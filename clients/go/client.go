package tidewire

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Client is a connection to a cluster that mends itself. It is safe for use by several goroutines.
//
// One goroutine (run) makes connections and reads from them, one more for each connection writes. All
// state below mu is changed under it, in short sections that never block.
type Client struct {
	cfg    Config
	http   *http.Client
	ctx    context.Context // ends with Close, or when the client cannot go on
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when run has returned
	slots  chan struct{} // one token for each publish under way

	mu     sync.Mutex
	end    error // not nil: the client is closed or cannot go on
	lastID int64
	conn   *conn // nil while there is none that is ready for ops
	node   string
	subs   map[string]*Subscription
	pubs   map[int64]*publish
	lanes  map[string][]*publish // those of PublishAsync, by subject; the first of each is under way
}

// New makes a client and starts to connect; it does not wait for the connection. The error is about the
// configuration only. Close must be called in the end.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, http: cfg.HTTPClient, done: make(chan struct{}),
		slots: make(chan struct{}, cfg.MaxPublishes),
		subs:  map[string]*Subscription{}, pubs: map[int64]*publish{}, lanes: map[string][]*publish{},
	}
	if c.http == nil {
		c.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	go c.run()
	return c, nil
}

// Close ends every subscription and publish with ErrClosed, stores the vectors that are to be stored, and
// waits for the client's goroutines: at most about a second, for the server's part in closing the
// connection. The error is ErrStore's alone. It may be called repeatedly.
func (c *Client) Close() error {
	c.mu.Lock()
	var subs []*Subscription
	for _, s := range c.subs {
		subs = append(subs, s)
	}
	c.mu.Unlock()
	c.fail(ErrClosed)
	var errs []error
	for _, s := range subs {
		errs = append(errs, s.storeAtEnd())
	}
	<-c.done
	if c.cfg.HTTPClient == nil {
		c.http.CloseIdleConnections()
	}
	return errors.Join(errs...)
}

// Node is the name of the node that the client is connected to; empty while it is connected to none.
func (c *Client) Node() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return ""
	}
	return c.conn.node
}

// fail ends the client for good; the first reason stays.
func (c *Client) fail(why error) {
	c.mu.Lock()
	if c.end == nil {
		c.end = why
		for _, s := range c.subs {
			s.finish(why)
		}
		clear(c.lanes) // so that the end of one does not send the next
		for _, p := range c.pubs {
			p.finish(Acked{}, why)
		}
	}
	c.mu.Unlock()
	c.cancel(why)
}

// run keeps one connection until the client ends, trying node after node.
func (c *Client) run() {
	defer close(c.done)
	next := 0
	if !c.cfg.InOrder {
		next = rand.IntN(len(c.cfg.Nodes))
	}
	wait := backoff{base: c.cfg.BackoffBase, max: c.cfg.BackoffMax}
	var elsewhere []string // where the last node said to go instead
	for c.ctx.Err() == nil {
		var addr string
		if len(elsewhere) > 0 {
			addr, elsewhere = elsewhere[0], elsewhere[1:]
		} else {
			addr = c.cfg.Nodes[next%len(c.cfg.Nodes)]
			next++
		}
		out := c.serve(addr)
		if out.elsewhere != nil {
			elsewhere = out.elsewhere
		}
		if c.ctx.Err() != nil {
			return
		}
		if out.fatal {
			c.cfg.Log.Error("cannot go on", "addr", addr, "err", out.err)
			c.cfg.OnState(State{Addr: addr, Node: out.node, Err: out.err})
			c.fail(out.err)
			return
		}
		if out.useful {
			wait.reset()
		}
		pause := wait.next(out.floor)
		c.cfg.Log.Warn("not connected", "addr", addr, "node", out.node, "err", out.err, "retry_in", pause)
		c.cfg.OnState(State{Addr: addr, Node: out.node, Err: out.err, RetryIn: pause})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
		}
	}
}

// id makes a new op id. mu is held.
func (c *Client) id() int64 {
	c.lastID++
	return c.lastID
}

// attach makes a connection the one that ops go to, and sends everything that is due again.
func (c *Client) attach(n *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return
	}
	c.conn = n
	for _, s := range c.subs {
		s.start()
	}
	c.resendPublishes()
}

// detach forgets a connection that has ended. Answers that were awaited on it will not come.
// tooLarge: it was closed over a frame that the server did not take.
func (c *Client) detach(n *conn, tooLarge bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.closed = true
	n.calls = nil
	if tooLarge {
		c.refuseLargest(n)
	}
	if c.conn != n {
		return
	}
	c.conn, c.node = nil, n.node
	for _, s := range c.subs {
		s.disconnected()
	}
}

// reason is why the client has ended, for a caller that found it so; nil if it has not. mu is held.
func (c *Client) reason() error { return c.end }

// isUnauthenticated says whether the server refused the token.
func isUnauthenticated(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeUnauthenticated
}
