package node

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/wsedge/auth"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
)

type countingAuth struct{ asked int }

func (a *countingAuth) Authenticate(context.Context, string) (*auth.Identity, error) {
	a.asked++
	return &auth.Identity{}, nil
}

// No token is verified before the node knows what was revoked, however good it is; and a leader that is away later does
// not make it forget.
func TestRevocationsBeforeTokens(t *testing.T) {
	var upToDate atomic.Bool
	next := &countingAuth{}
	a := &revocationsFirst{Authenticator: next, upToDate: upToDate.Load}
	var later *auth.UnavailableError
	if id, err := a.Authenticate(t.Context(), "t"); !errors.As(err, &later) || later.RetryAfter <= 0 || id != nil || next.asked != 0 {
		t.Errorf("at first: %v, %v, asked %d times", id, err, next.asked)
	}
	if a.knows() {
		t.Error("it knows")
	}
	for _, known := range []bool{true, false} {
		upToDate.Store(known)
		if !a.knows() {
			t.Errorf("up to date is %v: it does not know", known)
		}
		if id, err := a.Authenticate(t.Context(), "t"); err != nil || id == nil {
			t.Errorf("up to date is %v: %v", known, err)
		}
	}
}

const tokenSecret = "0123456789abcdef0123456789abcdef"

// withTokens has a node ask for tokens that mint makes.
func withTokens(cfg *Config) {
	cfg.Auth = &jwtauth.Config{Secret: func() []byte { return []byte(tokenSecret) }, Claim: "tidewire", MaxLifetime: 720 * time.Hour}
}

// mint makes a token for everything, HS256.
func mint(t *testing.T, subject, id string, issued time.Time) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any{
		"sub": subject, "jti": id, "iat": issued.Unix(), "exp": issued.Add(time.Hour).Unix(),
		"tidewire": map[string]any{"sub": []string{"/*"}},
	})
	mac := hmac.New(sha256.New, []byte(tokenSecret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// dialAs connects with a token; the status is that of a refusal, 101 if there is none.
func dialAs(t *testing.T, addr, token string) (*wire, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws://"+addr+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		if res == nil {
			return nil, 0
		}
		return nil, res.StatusCode
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return &wire{c: c}, http.StatusSwitchingProtocols
}

// login connects with a token that is taken.
func login(t *testing.T, a *aNode, token string) *wire {
	t.Helper()
	w, status := dialAs(t, a.node.Addr(), token)
	if w == nil {
		t.Fatalf("%s: a token is answered with %d", a.cfg.NodeID, status)
	}
	return w
}

// wantRevoked waits for the end of a session, and that it is told why.
func wantRevoked(t *testing.T, who string, w *wire) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	var ops []string
	for {
		f, err := w.next(ctx)
		if err != nil {
			if websocket.CloseStatus(err) != 4001 || len(ops) == 0 || ops[len(ops)-1] != "bye revoked" {
				t.Errorf("%s: %v after %q", who, err, ops)
			}
			return
		}
		ops = append(ops, f.Op+" "+f.Reason)
	}
}

// What is revoked on one node ends the sessions on all, and is refused on all, also after all were restarted and on a node
// that knows nothing but its disk; and others go on.
func TestRevokedSessionsEndOnAllNodes(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 3, k.topic(t, 1, nil), withTokens)
	issued := time.Now().Add(-time.Minute)
	alice, bob := mint(t, "alice", "a1", issued), mint(t, "bob", "b1", issued)
	bob2 := mint(t, "bob", "b2", issued)
	var alices, bobs, bobs2 []*wire
	for _, a := range c.nodes {
		alices, bobs, bobs2 = append(alices, login(t, a, alice)), append(bobs, login(t, a, bob)), append(bobs2, login(t, a, bob2))
	}
	refused := func(when, token string, nodes ...*aNode) {
		t.Helper()
		for _, a := range nodes {
			if _, status := dialAs(t, a.node.Addr(), token); status != http.StatusUnauthorized {
				t.Errorf("%s, %s answers a revoked token with %d", when, a.cfg.NodeID, status)
			}
		}
	}
	asked := time.Now()
	c.nodes[0].mustRevoke(t, `{"subject":"alice"}`)
	for i, w := range alices {
		wantRevoked(t, fmt.Sprintf("alice on node %d", i+1), w)
	}
	t.Logf("all nodes had ended the sessions %v after they were asked", time.Since(asked).Round(100*time.Microsecond))
	refused("after its session ended", alice, c.nodes...)
	c.nodes[2].mustRevoke(t, `{"token_id":"b1"}`)
	for i, w := range bobs {
		wantRevoked(t, fmt.Sprintf("bob's first on node %d", i+1), w)
	}
	refused("after its session ended", bob, c.nodes...)
	for i, w := range bobs2 {
		if f, err := w.ask(t.Context(), 1, map[string]any{"op": "ping"}); err != nil || f.Op != "pong" {
			t.Errorf("bob's other token on node %d: %v, %+v", i+1, err, f)
		}
	}
	// A new token is taken: one that was issued after.
	after := slices.MaxFunc(c.nodes[1].node.bridge.Revocations(), func(a, b bridge.Revocation) int { return int(a.At - b.At) }).At
	eventually(t, "a second in which a token can be issued after", func() bool { return time.Now().Unix()*1000 > after })
	login(t, c.nodes[1], mint(t, "alice", "a2", time.Now()))

	for i := range c.nodes {
		c.stop(i)
	}
	// On its own a node has what is on its disk, and cannot know whether that is all.
	c.start(0)
	eventually(t, "the node to stand alone", func() bool { code, _ := c.nodes[0].ask("/readyz"); return code == http.StatusServiceUnavailable })
	for name, token := range map[string]string{"revoked": alice, "good": bob2} {
		if _, status := dialAs(t, c.nodes[0].node.Addr(), token); status != http.StatusServiceUnavailable {
			t.Errorf("a node that has just begun answers a %s token with %d", name, status)
		}
	}
	c.start(1)
	c.start(2)
	// From the first moment on, on none of them.
	for _, a := range c.nodes {
		status := 0
		eventually(t, "an answer of "+string(a.cfg.NodeID), func() bool {
			_, status = dialAs(t, a.node.Addr(), alice)
			return status != http.StatusServiceUnavailable && status != 0
		})
		if status != http.StatusUnauthorized {
			t.Errorf("after a restart of all %s answers a revoked token with %d", a.cfg.NodeID, status)
		}
	}
	c.waitReady()
	refused("after a restart of all", alice, c.nodes...)
	refused("after a restart of all", bob, c.nodes...)
	for _, a := range c.nodes {
		login(t, a, bob2)
	}
}
