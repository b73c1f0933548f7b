package wsedge

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// fakeAuth knows its tokens by heart.
type fakeAuth struct {
	mu     sync.Mutex
	tokens map[string]*auth.Identity
	away   bool
}

func (a *fakeAuth) Authenticate(_ context.Context, token string) (*auth.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		return nil, &auth.UnavailableError{Message: "the keys cannot be fetched", RetryAfter: 700 * time.Millisecond}
	}
	id := a.tokens[token]
	if id == nil {
		return nil, &auth.RefusedError{Message: "the token is none of ours"}
	}
	copied := *id // as with a real one, each time it is verified anew
	return &copied, nil
}

// give makes a token. Rights are "sub:" or "pub:" and a subject; those without either are to subscribe.
func (a *fakeAuth) give(t testing.TB, token, user string, life time.Duration, rights ...string) {
	t.Helper()
	id := &auth.Identity{Subject: user, TokenID: token}
	if life != 0 {
		id.Expires = time.Now().Add(life)
	}
	id.Rights = rightsOf(t, rights...)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = id
}

func rightsOf(t testing.TB, rights ...string) auth.Rights {
	t.Helper()
	var sub, pub []string
	for _, r := range rights {
		switch {
		case len(r) > 4 && r[:4] == "pub:":
			pub = append(pub, r[4:])
		case len(r) > 4 && r[:4] == "sub:":
			sub = append(sub, r[4:])
		default:
			sub = append(sub, r)
		}
	}
	parsed, err := auth.ParseRights(sub, pub)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func newAuthEdge(t testing.TB, cc cache.Config, change func(*Config)) (*edge, *fakeAuth) {
	t.Helper()
	a := &fakeAuth{tokens: make(map[string]*auth.Identity)}
	return newEdge(t, cc, func(c *Config) {
		c.Auth = a
		if change != nil {
			change(c)
		}
	}), a
}

// dialAs connects and shows a token.
func (e *edge) dialAs(token string) *client {
	e.t.Helper()
	c := e.dial()
	c.send(`{"op":"auth","token":%q}`, token)
	if m := c.next(); m.Op != "authed" {
		e.t.Fatalf("auth was answered %s", m.raw)
	}
	return c
}

func bearer(token string) *websocket.DialOptions {
	return &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}}
}

// requestAs sends an HTTP request with a token, if there is one, and returns the answer and its body.
func (e *edge) requestAs(method, path, token, body string) (*http.Response, string) {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	if token != "" {
		token = "Authorization: Bearer " + token + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s", method, path, len(body), token, body)
	return readAnswer(e.t, conn)
}
