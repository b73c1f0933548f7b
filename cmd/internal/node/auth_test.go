package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
	"github.com/tidewire/tidewire/wsedge/webhook"
)

// Two users of a whole cluster: each reads and writes what its token says and nothing else, on any node, and the
// same message id of two users is two messages.
func TestTokensOnACluster(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 2, nil)
	open := openForPublishing(t, topic)
	c := startCluster(t, k, 2, topic, func(cfg *Config) {
		open(cfg)
		cfg.Auth = &jwtauth.Config{Secret: func() []byte { return []byte(longSecret) }, Claim: "tidewire", MaxLifetime: time.Hour}
	})
	token := func(user string) string {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": user, "exp": time.Now().Add(time.Minute).Unix(),
			"tidewire": map[string]any{"sub": []string{"/" + topic + "/${sub}/*"}, "pub": []string{"/" + topic + "/${sub}/*", "/" + topic + "/room"}},
		}).SignedString([]byte(longSecret))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	ask := func(w *wire, op map[string]any) *frame {
		t.Helper()
		if err := w.send(ctx, op); err != nil {
			t.Fatal(err)
		}
		for {
			f, err := w.next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if f.ID == 1 {
				return f
			}
		}
	}
	connect := func(node int, user string) *wire {
		t.Helper()
		w, err := dialWire(ctx, c.addr(node))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.close)
		if f := ask(w, map[string]any{"op": "sub", "id": 1, "subject": "/" + topic + "/" + user + "/*"}); f.Code != "unauthenticated" {
			t.Errorf("without a token: %+v", f)
		}
		if f := ask(w, map[string]any{"op": "auth", "id": 1, "token": token(user)}); f.Op != "authed" {
			t.Fatalf("%+v", f)
		}
		return w
	}
	offsets := map[string]bool{}
	for i, user := range []string{"alice", "bob"} {
		for node := range 2 {
			w := connect(node, user)
			if f := ask(w, map[string]any{"op": "sub", "id": 1, "subject": "/" + topic + "/" + user + "/*"}); f.Op != "subbed" {
				t.Errorf("%s: %+v", user, f)
			}
			other := []string{"bob", "alice"}[i]
			for _, subject := range []string{"/" + other + "/*", "/" + other + "/1", "/*", "/room", ""} {
				if f := ask(w, map[string]any{"op": "sub", "id": 1, "subject": "/" + topic + subject}); f.Code != "forbidden" {
					t.Errorf("%s asked for %s: %+v", user, subject, f)
				}
			}
			if f := ask(w, map[string]any{"op": "pub", "id": 1, "subject": "/" + topic + "/" + other + "/1", "text": "x"}); f.Code != "forbidden" {
				t.Errorf("%s: %+v", user, f)
			}
			f := ask(w, map[string]any{"op": "pub", "id": 1, "subject": "/" + topic + "/room", "text": user, "mid": "m1", "ack": "replicated"})
			if f.Op != "acked" || f.Duplicate != (node == 1) {
				t.Errorf("%s on node %d: %+v", user, node, f)
			}
			offsets[fmt.Sprint(f.Offset)] = true
		}
		for want, tok := range map[int]string{http.StatusOK: token(user), http.StatusUnauthorized: "x"} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr(0)+"/history/"+topic+"/"+user+"/*", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+tok)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("history: %d, want %d", resp.StatusCode, want)
			}
		}
	}
	if len(offsets) != 2 {
		t.Errorf("two users' messages with one id lie at %v", offsets)
	}
}

// A service that decides is asked by a whole node, with the session and the claims of its token.
func TestWebhookOfANode(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 1, nil)
	asked := make(chan map[string]any, 10)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q map[string]any
		_ = json.NewDecoder(r.Body).Decode(&q)
		asked <- q
		fmt.Fprintf(w, `{"allow":%v,"ttl_s":60}`, q["subject"] == "/"+topic+"/yes")
	}))
	defer service.Close()
	address, err := url.Parse(service.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := startCluster(t, k, 1, topic, func(cfg *Config) {
		cfg.Auth = &jwtauth.Config{Secret: func() []byte { return []byte(longSecret) }, Claim: "tidewire", KeepClaims: true}
		cfg.Webhook = &webhook.Config{URL: address, Timeout: waitTime}
	})
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "team": "blue"}).SignedString([]byte(longSecret))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	w, err := dialWire(ctx, c.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for _, op := range []map[string]any{
		{"op": "auth", "token": token}, {"op": "sub", "id": 2, "subject": "/" + topic + "/no"}, {"op": "sub", "id": 3, "subject": "/" + topic + "/yes"},
	} {
		if err := w.send(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"authed", "error", "subbed"} {
		f, err := w.next(ctx)
		if err != nil || f.Op != want || f.Op == "error" && f.Code != "forbidden" {
			t.Fatalf("want %s: %+v, %v", want, f, err)
		}
	}
	q := <-asked
	claims, _ := q["claims"].(map[string]any)
	if q["user"] != "alice" || q["action"] != "sub" || q["session"] == "" || claims["team"] != "blue" {
		t.Errorf("asked %v", q)
	}
}
