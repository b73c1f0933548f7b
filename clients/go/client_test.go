package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

func TestConfigIsChecked(t *testing.T) {
	for _, nodes := range [][]string{nil, {""}, {"host"}, {"ftp://host:1"}, {"ws://"}, {"a b:1"}} {
		if c, err := tidewire.New(tidewire.Config{Nodes: nodes}); err == nil {
			c.Close()
			t.Errorf("%q was taken", nodes)
		}
	}
}

// A node that says nothing for two heartbeats is left for the next.
func TestSilenceMovesOn(t *testing.T) {
	cl := &tidewiretest.Cluster{HeartbeatMS: 30}
	var st states
	c := start(t, cl, 2, func(cfg *tidewire.Config) { cfg.OnState = st.add })
	eventually(t, "the client moves to n2", func() bool {
		return st.find(func(s tidewire.State) bool { return s.Connected && s.Node == "n2" })
	})
	c.Close()
}

// After bye the client stays away for retry_ms and then resumes elsewhere.
func TestByeIsObeyed(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	var st states
	c := start(t, cl, 2, func(cfg *tidewire.Config) { cfg.OnState = st.add })
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{})
	next[*tidewire.Live](t, sub)
	left := time.Now()
	cl.Node(0).Send(`{"op":"bye","reason":"draining","retry_ms":120}`)
	cl.Node(0).CloseWith(1001, "draining")
	r := next[*tidewire.Resumed](t, sub)
	if r.Node != "n2" || r.Previous != "n1" {
		t.Fatalf("resumed %+v", r)
	}
	if away := time.Since(left); away < 120*time.Millisecond {
		t.Fatalf("came back after %s", away)
	}
	if !st.find(func(s tidewire.State) bool { return !s.Connected && s.RetryIn >= 120*time.Millisecond }) {
		t.Fatal("no state tells of the wait")
	}
}

func TestTokenGoesFirstAndIsRenewed(t *testing.T) {
	cl := &tidewiretest.Cluster{Auth: "required"}
	var asked atomic.Int64
	cl.OnOp = func(op *tidewiretest.Op) any {
		if op.Op == "auth" && op.Token == "t1" {
			return map[string]any{"op": "authed", "id": op.ID, "expires": time.Now().UnixMilli()}
		}
		return nil
	}
	c := start(t, cl, 1, func(cfg *tidewire.Config) {
		cfg.TokenSource = func(context.Context) (string, error) { return fmt.Sprintf("t%d", asked.Add(1)), nil }
	})
	subscribe(t, c, "/t/k", tidewire.SubOptions{})
	eventually(t, "a second token is sent", func() bool { return asked.Load() == 2 && len(cl.Ops()) == 3 })
	ops := cl.Ops()
	if ops[0].Op != "auth" || ops[0].Token != "t1" {
		t.Fatalf("ops %+v", ops)
	}
	// The sub may come a second late, when the next token is due.
	if rest := slices.DeleteFunc(ops[1:], func(op tidewiretest.Op) bool { return op.Op == "sub" }); len(rest) != 1 || rest[0].Op != "auth" || rest[0].Token != "t2" {
		t.Fatalf("ops %+v", cl.Ops())
	}
}

// A fixed token that is refused does not get better by asking again.
func TestRefusedTokenEndsTheClient(t *testing.T) {
	cl := &tidewiretest.Cluster{Auth: "required"}
	cl.OnOp = func(op *tidewiretest.Op) any {
		return map[string]any{"op": "error", "id": op.ID, "code": "unauthenticated", "message": "expired"}
	}
	for _, token := range []string{"", "wrong"} {
		c := start(t, cl, 1, func(cfg *tidewire.Config) { cfg.Token = token })
		var refused *tidewire.Error
		if _, err := c.Subscribe(deadline(t), "/t/k", tidewire.SubOptions{}); !errors.As(err, &refused) || refused.Code != tidewire.CodeUnauthenticated {
			t.Fatalf("token %q: %v", token, err)
		}
	}
}

func TestNoNodeReachable(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	cl.Node(0).Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Subscribe(ctx, "/t/k", tidewire.SubOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if err := cl.Node(0).Start(); err != nil {
		t.Fatal(err)
	}
	subscribe(t, c, "/t/k", tidewire.SubOptions{})
	c.Close()
	c.Close()
}

// Nonsense from a server costs the connection and nothing else.
func TestNonsenseFromTheServer(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	sub := subscribe(t, c, "/t/k", tidewire.SubOptions{})
	next[*tidewire.Live](t, sub)
	for i, frame := range []string{
		`[]`, `"x"`, `{"op":"msg","subject":"/t/k"}`, `{"op":"msg","subject":"/t/k","pos":[-1,0,0],"data":1}`,
		`{"op":"msg","subject":"/t/k","pos":[1,2],"data":1}`, `{"op":"gap","subject":"/t/k","at":7}`,
		`{"op":"msg","subject":"/t/k","pos":[0,1,9],"headers":{"a":[]}}`,
	} {
		eventually(t, "the client is connected", func() bool { return c.Node() != "" && cl.Node(0).Conns() == 1 })
		cl.Node(0).Send(frame)
		next[*tidewire.Resumed](t, sub)
		next[*tidewire.Live](t, sub)
		cl.Append("/t/k", 0, i)
		next[*tidewire.Record](t, sub)
	}
	cl.Node(0).Send(`{"op":"something new"}`)
	cl.Append("/t/k", 0, "x")
	next[*tidewire.Record](t, sub)
}
