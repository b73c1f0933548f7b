package tidewire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// conn is one WebSocket connection. The client's run goroutine reads it, one goroutine writes it.
type conn struct {
	c    *Client
	ws   *websocket.Conn
	addr string

	// Set by the welcome, before anything else may look.
	node     string
	session  string
	maxFrame int64

	ctx     context.Context // ends with the connection; its cause says why
	cancel  context.CancelCauseFunc
	wake    chan struct{}  // one slot: out has grown
	silence *time.Timer    // ends the connection unless it is put off
	patient time.Duration  // how long silence may last
	renew   chan time.Time // when the token expires that was accepted last
	warned  chan struct{}  // one slot: the server says that it expires soon

	// Guarded by Client.mu. out holds the ops not yet written; sendFrame bounds it.
	out    [][]byte
	calls  map[int64]func(*answer) // what to do with the answer to an op; called with mu held
	closed bool
	useful bool          // the server did something for us: backoff starts anew
	floor  time.Duration // the server asked not to return sooner
	// elsewhere is where the server said to go instead.
	elsewhere []string
}

// outcome is how a connection, or the attempt at one, ended.
type outcome struct {
	err    error
	node   string
	useful bool
	floor  time.Duration
	fatal  bool // no other node would do better
	// elsewhere is where to go first; nil where the server did not say.
	elsewhere []string
}

// Close codes that change what the client does next (docs/protocol.md, "close code").
const (
	closeToken   = 4001 // token missing, invalid or expired
	closeTooMany = 4009 // too many bad or rate-limited requests
)

// serve connects to addr and serves the connection until it ends.
func (c *Client) serve(addr string) outcome {
	dialCtx, cancel := context.WithTimeout(c.ctx, c.cfg.DialTimeout)
	defer cancel()
	ws, resp, err := websocket.Dial(dialCtx, addr, &websocket.DialOptions{
		HTTPClient: c.http, Subprotocols: []string{Subprotocol},
	})
	if err != nil {
		if resp != nil && resp.StatusCode == http.StatusUnauthorized {
			err = fmt.Errorf("%w: %w", &Error{Code: CodeUnauthenticated, Message: "the handshake was answered with 401"}, err)
			return outcome{err: err, fatal: c.cfg.TokenSource == nil}
		}
		return outcome{err: fmt.Errorf("connect: %w", err)}
	}
	ws.SetReadLimit(c.cfg.MaxMessageBytes)
	n := &conn{
		c: c, ws: ws, addr: addr, wake: make(chan struct{}, 1), renew: make(chan time.Time, 1), warned: make(chan struct{}, 1),
		calls: map[int64]func(*answer){},
	}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	defer ws.CloseNow()
	defer n.cancel(nil)
	if err := n.welcome(dialCtx); err != nil {
		return outcome{err: fmt.Errorf("welcome: %w", err), node: n.node, fatal: isUnauthenticated(err) && c.cfg.TokenSource == nil}
	}

	n.silence = time.AfterFunc(n.patient, func() { n.cancel(errSilent) })
	var wg sync.WaitGroup
	wg.Go(n.writeLoop)
	if c.cfg.TokenSource != nil {
		wg.Go(n.renewLoop)
	}
	err = n.readLoop()
	status := websocket.CloseStatus(err)
	tooLarge := status == websocket.StatusMessageTooBig || status == websocket.StatusInvalidFramePayloadData
	c.detach(n, tooLarge)
	n.cancel(err)
	n.silence.Stop()
	ws.CloseNow()
	wg.Wait()

	if cause := context.Cause(n.ctx); cause != nil {
		err = cause
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := outcome{err: err, node: n.node, useful: n.useful, floor: n.floor, elsewhere: n.elsewhere}
	if status == closeTooMany || status == closeToken || tooLarge {
		out.useful = false
	}
	if status == closeToken && !isUnauthenticated(err) {
		out.err = fmt.Errorf("%w: %w", &Error{Code: CodeUnauthenticated, Message: "the token was refused or has expired"}, err)
	}
	// A token from a source may be better next time; a fixed one stays what it is.
	out.fatal = isUnauthenticated(out.err) && c.cfg.TokenSource == nil
	return out
}

// welcome reads the server's first frame and, if there is a token, puts auth before every other op.
func (n *conn) welcome(ctx context.Context) error {
	c := n.c
	_, frame, err := n.ws.Read(ctx)
	if err != nil {
		return err
	}
	var w answer
	if err := json.Unmarshal(frame, &w); err != nil {
		return fmt.Errorf("%.100q: %w", frame, err)
	}
	if w.Op != "welcome" || w.Version != 1 {
		return fmt.Errorf("the server speaks first with op %q version %d; this client knows welcome, version 1", w.Op, w.Version)
	}
	n.node, n.session, n.maxFrame = w.Node, w.Session, w.MaxFrame
	const usual, longest = 25 * time.Second, 10 * time.Minute
	heartbeat := usual
	if w.HeartbeatMS > 0 {
		heartbeat = time.Duration(min(w.HeartbeatMS, int64(longest/time.Millisecond))) * time.Millisecond
	}
	n.patient = 2 * heartbeat

	token, err := c.token(ctx)
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if token == "" {
		if w.Auth == "required" {
			return &Error{Code: CodeUnauthenticated, Message: "the cluster requires a token and Config has none"}
		}
		n.ready()
		return nil
	}
	n.authenticate(token, n.ready)
	return nil
}

// ready opens the connection to ops.
func (n *conn) ready() {
	n.c.cfg.Log.Info("connected", "node", n.node, "addr", n.addr, "session", n.session)
	n.c.cfg.OnState(State{Connected: true, Node: n.node, Addr: n.addr, Session: n.session})
	n.c.attach(n)
}

func (c *Client) token(ctx context.Context) (string, error) {
	if c.cfg.TokenSource != nil {
		return c.cfg.TokenSource(ctx)
	}
	return c.cfg.Token, nil
}

// renewBefore tells renewLoop when the token expires; the last word counts. mu is held.
func (n *conn) renewBefore(expires time.Time) {
	select {
	case <-n.renew:
	default:
	}
	n.renew <- expires
}

// authenticate sends a token; then is called when it was accepted, without mu. A nil then is for one that takes
// the place of another.
func (n *conn) authenticate(token string, then func()) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	id := n.c.id()
	n.send(&request{Op: "auth", ID: id, Token: token}, func(a *answer) {
		switch {
		case a.Op == "authed":
		case then == nil && a.retry() > 0:
			// It cannot be verified now. The last one is still good, and asked for is the next in time.
			n.renewBefore(time.Now().Add(a.retry() * 5 / 4))
			return
		default:
			n.cancel(a.err())
			return
		}
		if a.Expires != nil {
			n.renewBefore(time.UnixMilli(*a.Expires))
		}
		if then == nil {
			return
		}
		// This runs in the read loop, which holds mu and lets go of it around then.
		n.c.mu.Unlock()
		then()
		n.c.mu.Lock()
	})
}

// addresses reads the nodes of a bye. One without TLS is not followed from a connection that has it: it
// would be told the token in clear.
func (n *conn) addresses(raw json.RawMessage) []string {
	const most = 16
	var nodes []string
	if json.Unmarshal(raw, &nodes) != nil {
		return nil
	}
	var out []string
	for _, node := range nodes[:min(len(nodes), most)] {
		u, err := nodeURL(node)
		if err == nil && (strings.HasPrefix(u, "wss:") || !strings.HasPrefix(n.addr, "wss:")) {
			out = append(out, u)
		}
	}
	if !n.c.cfg.InOrder { // clients that are sent away together must not all go to the first
		rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out
}

// renewed says whether a token that was refused under the connection can be replaced; it then gives the
// connection up, and the next one has a fresh token. mu is held.
func (n *conn) renewed(a *answer) bool {
	if a.Op != "error" || a.Code != CodeUnauthenticated || n.c.cfg.TokenSource == nil {
		return false
	}
	n.cancel(a.err())
	return true
}

// renewLoop asks for a fresh token when four fifths of the last one's life are over, or when the server warns.
func (n *conn) renewLoop() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	sent := false // a fresh token, which has not been answered yet
	for {
		select {
		case <-n.ctx.Done():
			return
		case expires := <-n.renew:
			timer.Reset(max(time.Until(expires)*4/5, time.Second))
			sent = false
			continue
		case <-n.warned:
			if sent {
				continue
			}
		case <-timer.C:
		}
		timer.Stop()
		token, err := n.c.token(n.ctx)
		if err != nil {
			n.c.cfg.Log.Warn("no fresh token", "err", err)
			timer.Reset(5 * time.Second)
			continue
		}
		sent = true
		n.authenticate(token, nil)
	}
}

// send queues an op and remembers what to do with its answer. mu is held.
func (n *conn) send(r *request, then func(*answer)) {
	frame, err := r.encode()
	if err != nil { // the values were checked when they came from the application
		then(&answer{Op: "error", ID: r.ID, Code: CodeBadRequest, Message: err.Error()})
		return
	}
	n.sendFrame(r.ID, frame, then)
}

func (n *conn) sendFrame(id int64, frame []byte, then func(*answer)) {
	if n.closed {
		return
	}
	if n.maxFrame > 0 && int64(len(frame)) > n.maxFrame {
		then(&answer{Op: "error", ID: id, Code: CodeTooLarge,
			Message: fmt.Sprintf("the op takes %d bytes; the server accepts frames of up to %d", len(frame), n.maxFrame)})
		return
	}
	if len(n.out) > 2*(cap(n.c.slots)+len(n.c.subs))+64 {
		// Only an application that keeps giving up and starting again gets here.
		n.cancel(errors.New("the node does not take in what is sent"))
		return
	}
	n.calls[id] = then
	n.out = append(n.out, frame)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// writeLoop writes what is queued until the connection or the client ends. At the client's end it says
// goodbye first, for no longer than a second.
func (n *conn) writeLoop() {
	const patience = 10 * time.Second
	flush := func() error {
		for {
			n.c.mu.Lock()
			batch := n.out
			n.out = nil
			n.c.mu.Unlock()
			if len(batch) == 0 {
				return nil
			}
			for _, frame := range batch {
				ctx, cancel := context.WithTimeout(n.ctx, patience)
				err := n.ws.Write(ctx, websocket.MessageText, frame)
				cancel()
				if err != nil {
					return err
				}
			}
		}
	}
	for {
		select {
		case <-n.wake:
			if err := flush(); err != nil {
				n.cancel(fmt.Errorf("write: %w", err))
				return
			}
		case <-n.ctx.Done():
			return
		case <-n.c.ctx.Done():
			impatient := time.AfterFunc(time.Second, func() { n.cancel(ErrClosed) })
			defer impatient.Stop()
			if flush() == nil {
				n.ws.Close(websocket.StatusNormalClosure, "")
			}
			n.cancel(ErrClosed)
			return
		}
	}
}

// readLoop hands every frame to its subscription or call; it returns why the connection ended.
func (n *conn) readLoop() error {
	for {
		kind, frame, err := n.ws.Read(n.ctx)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		n.silence.Reset(n.patient)
		if kind != websocket.MessageText {
			return errors.New("the server sent a binary frame")
		}
		if err := n.handle(frame); err != nil {
			return err
		}
	}
}

func (n *conn) handle(frame []byte) error {
	op, err := opOf(frame)
	if err != nil {
		return err
	}
	c := n.c
	if op == "msg" {
		r, err := decodeRecord(frame)
		if err != nil {
			return fmt.Errorf("msg: %w", err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		n.useful = true
		if s := c.subscriptionFor(r.Subject); s != nil {
			s.record(r)
		}
		return nil
	}
	var a answer
	if err := json.Unmarshal(frame, &a); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.ID != 0 {
		if call, ok := n.calls[a.ID]; ok {
			delete(n.calls, a.ID)
			n.useful = n.useful || a.Op != "error" && a.Op != "authed"
			call(&a)
			return nil
		}
	}
	switch a.Op {
	case "live":
		if s := c.subs[a.Subject]; s != nil {
			s.live()
		}
	case "gap":
		if s := c.subs[a.Subject]; s != nil {
			s.gap(&a)
		}
	case "unsubbed":
		if s := c.subs[a.Subject]; s != nil && a.Reason != "asked" {
			s.finish(&UnsubscribedError{Subject: a.Subject, Reason: a.Reason})
		}
	case "expiring":
		select {
		case n.warned <- struct{}{}:
		default:
		}
	case "bye":
		n.floor = a.retry()
		n.elsewhere = n.addresses(a.Nodes)
		c.cfg.Log.Info("the node asks its clients to leave", "node", n.node, "reason", a.Reason, "retry_in", n.floor)
	case "error":
		c.cfg.Log.Warn("refused", "node", n.node, "code", a.Code, "message", a.Message)
		if a.Code == CodeUnauthenticated {
			return a.err()
		}
	}
	n.useful = n.useful || a.Op == "hb"
	// pong and what a newer server may say need no more than having been heard.
	return nil
}
