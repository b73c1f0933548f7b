package tidewire_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	tidewire "github.com/tidewire/tidewire/clients/go"
)

// scriptedNode says what it is told to say, and notes what it hears.
type scriptedNode struct {
	name     string
	server   *httptest.Server
	accepted chan *scriptedConn
	conn     *scriptedConn // the one that the script speaks of
}

type scriptedConn struct {
	ws     *websocket.Conn
	at     time.Time // accepted
	ops    chan heard
	closed chan time.Time // one slot
	spoke  time.Time      // when the last frame was sent
}

type heard struct {
	op any
	at time.Time
}

func newScriptedNode(t *testing.T, name string) *scriptedNode {
	n := &scriptedNode{name: name, accepted: make(chan *scriptedConn, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	n.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{tidewire.Subprotocol}})
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ws.SetReadLimit(1 << 20)
		c := &scriptedConn{ws: ws, at: time.Now(), ops: make(chan heard, 100), closed: make(chan time.Time, 1)}
		n.accepted <- c
		for {
			_, frame, err := ws.Read(ctx)
			if err != nil {
				c.closed <- time.Now()
				return
			}
			for _, line := range bytes.Split(frame, []byte("\n")) {
				var op any
				if json.Unmarshal(line, &op) != nil {
					op = string(line)
				}
				if m, ok := op.(map[string]any); ok && m["op"] == "ping" {
					c.send(fmt.Sprintf(`{"op":"pong","id":%v}`, m["id"]))
					continue
				}
				c.ops <- heard{op, time.Now()}
			}
		}
	}))
	t.Cleanup(func() {
		cancel() // ends what is still being served
		n.server.Close()
	})
	return n
}

func (n *scriptedNode) url() string { return "ws" + strings.TrimPrefix(n.server.URL, "http") + "/ws" }

func (c *scriptedConn) send(frame string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return c.ws.Write(ctx, websocket.MessageText, []byte(frame))
}

// node does what a line says of a node.
func (r *scenario) node(n *scriptedNode, what, rest string, also []string) error {
	notBefore := func(at, since time.Time) error { return nil }
	if m := afterMS.FindStringSubmatch(rest); m != nil {
		rest = m[1]
		ms, _ := strconv.Atoi(m[2])
		notBefore = func(at, since time.Time) error {
			if d := at.Sub(since); d < time.Duration(ms-2)*time.Millisecond {
				return fmt.Errorf("came after %s", d)
			}
			return nil
		}
	}
	never := errors.New("never")
	patience := time.After(20 * time.Second)
	switch what {
	case "accept":
		select {
		case n.conn = <-n.accepted:
			return notBefore(n.conn.at, r.step)
		case <-patience:
			return never
		}
	case "welcome":
		w := map[string]any{"op": "welcome", "version": 1, "node": n.name, "session": n.name + "-session", "heartbeat_ms": 25000, "max_frame_bytes": 1 << 20, "auth": "none"}
		more := map[string]any{}
		if rest != "" {
			if err := json.Unmarshal([]byte(rest), &more); err != nil {
				return err
			}
		}
		maps.Copy(w, more)
		b, err := json.Marshal(w)
		if err != nil {
			return err
		}
		return n.conn.send(string(b))
	case "<":
		if strings.HasPrefix(rest, "{") {
			var template any
			if err := json.Unmarshal([]byte(rest), &template); err != nil {
				return err
			}
			filled, err := fill(template, r.vars, func(name string) string { return r.nodes[name].url() })
			if err != nil {
				return err
			}
			b, err := json.Marshal(filled)
			if err != nil {
				return err
			}
			rest = string(b)
		}
		n.conn.spoke = time.Now()
		return n.conn.send(rest)
	case ">", ">~":
		patterns := append([]string{rest}, also...)
		for len(patterns) > 0 {
			var got heard
			select {
			case got = <-n.conn.ops:
			case <-patience:
				return never
			}
			if err := notBefore(got.at, n.conn.spoke); err != nil {
				return err
			}
			var wrongs []error
			for i, p := range patterns {
				vars := maps.Clone(r.vars)
				whole := r.vars
				r.vars = vars
				err := r.match(p, got.op, true)
				if err == nil {
					patterns = append(patterns[:i:i], patterns[i+1:]...)
					wrongs = nil
					break
				}
				r.vars = whole
				wrongs = append(wrongs, err)
			}
			if wrongs != nil {
				return fmt.Errorf("the client sent %v: %w", got.op, errors.Join(wrongs...))
			}
		}
		return nil
	case "cut", "close":
		select { // what was sent must have been spoken of, or nobody would notice that it should not have been
		case got := <-n.conn.ops:
			return fmt.Errorf("the client had sent more: %v", got.op)
		default:
		}
		if what == "cut" {
			return n.conn.ws.CloseNow()
		}
		code, reason, _ := strings.Cut(rest, " ")
		status, err := strconv.Atoi(code)
		if err != nil {
			return err
		}
		n.conn.ws.Close(websocket.StatusCode(status), reason) // fails where the client does not answer in kind
		return nil
	case "closed":
		select {
		case at := <-n.conn.closed:
			return notBefore(at, n.conn.spoke)
		case <-patience:
			return never
		}
	}
	return fmt.Errorf("a node does not %s", what)
}
