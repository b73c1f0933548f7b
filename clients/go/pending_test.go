package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

// Publishes that are under way together stay in order while connections break and some are put off, and are
// written once each.
func TestPublishAsyncKeepsOrder(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	var n atomic.Int64
	cl.OnOp = func(op *tidewiretest.Op) any {
		if op.Op == "pub" && n.Add(1)%25 == 7 {
			return map[string]any{"op": "error", "id": op.ID, "code": "unavailable", "message": "later", "retry_ms": 1}
		}
		return nil
	}
	c := start(t, cl, 3, nil)
	const each = 60
	var all []*tidewire.Pending
	for i := range each {
		for _, subject := range []string{"/chat/a", "/chat/b"} {
			p, err := c.PublishAsync(subject, tidewire.Message{Value: tidewire.JSON(i)})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	for i, p := range all {
		if i%20 == 10 {
			for n := range 3 {
				cl.Node(n).Cut()
			}
		}
		a, err := p.Wait(deadline(t))
		if err != nil || a.Mid != p.Mid() {
			t.Fatalf("%+v, %v", a, err)
		}
		if again, err := p.Wait(deadline(t)); err != nil || again.Offset != a.Offset {
			t.Fatalf("the second Wait: %+v, %v", again, err)
		}
	}
	got := map[string]int{}
	for _, r := range cl.Records() {
		if want := fmt.Sprintf(`"data":%d`, got[r.Subject]); string(r.Value) != want {
			t.Fatalf("%s: %s, want %s", r.Subject, r.Value, want)
		}
		got[r.Subject]++
	}
	if got["/chat/a"] != each || got["/chat/b"] != each {
		t.Fatalf("written: %v", got)
	}
}

func TestPublishAsyncIsBounded(t *testing.T) {
	cl := &tidewiretest.Cluster{OnOp: func(op *tidewiretest.Op) any { return tidewiretest.Silent }}
	c := start(t, cl, 1, func(cfg *tidewire.Config) { cfg.MaxPublishes = 2 })
	msg := tidewire.Message{Value: tidewire.Text("x")}
	first, err := c.PublishAsync("/a", msg)
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.PublishAsync("/a", msg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishAsync("/b", msg); !errors.Is(err, tidewire.ErrQueueFull) {
		t.Fatalf("a third: %v", err)
	}
	if _, err := c.PublishAsync("/b", tidewire.Message{}); err == nil || errors.Is(err, tidewire.ErrQueueFull) {
		t.Fatalf("a message without a value: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := first.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("wait: %v", err)
	}
	eventually(t, "the first is sent", func() bool { return len(cl.Ops()) == 1 })
	c.Close()
	if _, err := first.Wait(deadline(t)); !errors.Is(err, tidewire.ErrUncertain) || !errors.Is(err, tidewire.ErrClosed) {
		t.Fatalf("the first, which was sent: %v", err)
	}
	if _, err := second.Wait(deadline(t)); errors.Is(err, tidewire.ErrUncertain) || !errors.Is(err, tidewire.ErrClosed) {
		t.Fatalf("the second, which was not: %v", err)
	}
	if _, err := c.PublishAsync("/a", msg); !errors.Is(err, tidewire.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}
