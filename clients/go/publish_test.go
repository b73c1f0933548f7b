package tidewire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

func TestPublishForms(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	for _, v := range []tidewire.Value{tidewire.JSON(map[string]string{"a": "<b>"}), tidewire.Text("x"), tidewire.Bytes([]byte{255}), tidewire.Null(), tidewire.Text(""), tidewire.Bytes(nil), tidewire.JSON(nil)} {
		a, err := c.Publish(deadline(t), "/chat/k", tidewire.Message{Value: v, Headers: map[string]string{"h": "1"}, Ack: tidewire.AckReplicated})
		if err != nil || a.Mid == "" || a.Position == nil {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	var got []string
	for _, r := range cl.Records() {
		got = append(got, string(r.Value))
	}
	want := `"data":{"a":"<b>"} "text":"x" "b64":"/w==" "null":true "text":"" "b64":"" "data":null`
	if strings.Join(got, " ") != want {
		t.Fatalf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
	if op := cl.Ops()[0]; op.Ack != "replicated" || op.Headers["h"] != "1" {
		t.Fatalf("op %+v", op)
	}
}

// Answers get lost with connections; every message is written once all the same.
func TestPublishIsRepeatedWithTheSameMid(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	var n atomic.Int64
	c := start(t, cl, 3, nil)
	stop := make(chan struct{})
	var cutter sync.WaitGroup
	cutter.Go(func() {
		for written := -1; ; {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				// A machine on which a connection takes longer than this to be made would never get further.
				if now := len(cl.Records()); now > written {
					written = now
					cl.Node(int(n.Add(1) % 3)).Cut()
				}
			}
		}
	})
	var wg sync.WaitGroup
	const writers, each = 8, 100
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := c.Publish(deadline(t), "/chat", tidewire.Message{Value: tidewire.Text(fmt.Sprint(w, " ", i))}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	cutter.Wait()
	if got := len(cl.Records()); got != writers*each {
		t.Fatalf("%d records, want %d", got, writers*each)
	}
	pubs := 0
	for _, op := range cl.Ops() {
		if op.Op == "pub" {
			pubs++
		}
	}
	t.Logf("%d publishes took %d ops", writers*each, pubs)
}

func TestPublishErrors(t *testing.T) {
	cl := &tidewiretest.Cluster{MaxFrame: 1000}
	tries := 0
	cl.OnOp = func(op *tidewiretest.Op) any {
		switch op.Subject {
		case "/no":
			return map[string]any{"op": "error", "id": op.ID, "code": "forbidden", "message": "not you"}
		case "/later":
			if tries++; tries < 3 {
				return map[string]any{"op": "error", "id": op.ID, "code": "unavailable", "message": "wait", "retry_ms": 1}
			}
		case "/never":
			return tidewiretest.Silent
		}
		return nil
	}
	c := start(t, cl, 1, nil)
	msg := tidewire.Message{Value: tidewire.Text("x")}
	var refused *tidewire.Error
	if _, err := c.Publish(deadline(t), "/no", msg); !errors.As(err, &refused) || refused.Code != tidewire.CodeForbidden || errors.Is(err, tidewire.ErrUncertain) {
		t.Errorf("refused: %v", err)
	}
	if _, err := c.Publish(deadline(t), "/later", msg); err != nil {
		t.Errorf("unavailable: %v", err)
	}
	var mids []string
	for _, op := range cl.Ops() {
		if op.Subject == "/later" {
			mids = append(mids, op.Mid)
		}
	}
	if len(mids) != 3 || mids[0] != mids[1] || mids[1] != mids[2] || mids[0] == "" {
		t.Errorf("message ids %q", mids)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	a, err := c.Publish(ctx, "/never", msg)
	if !errors.Is(err, tidewire.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) || a.Mid == "" {
		t.Errorf("given up: %+v, %v", a, err)
	}
	if _, err := c.Publish(deadline(t), "/x", tidewire.Message{Value: tidewire.Text(strings.Repeat("x", 1000))}); !errors.As(err, &refused) || refused.Code != tidewire.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
	if _, err := c.Publish(deadline(t), "/x", tidewire.Message{}); err == nil {
		t.Error("a message without a value was taken")
	}
	if _, err := c.Publish(deadline(t), "/x", tidewire.Message{Value: tidewire.Text("x"), Mid: strings.Repeat("m", 129)}); err == nil {
		t.Error("a message id of 129 bytes was taken")
	}
	go func() {
		for len(cl.Ops()) == 0 || cl.Ops()[len(cl.Ops())-1].Mid != "last" {
			time.Sleep(time.Millisecond)
		}
		c.Close()
	}()
	if _, err := c.Publish(deadline(t), "/never", tidewire.Message{Value: tidewire.Null(), Mid: "last"}); !errors.Is(err, tidewire.ErrUncertain) || !errors.Is(err, tidewire.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := c.Publish(deadline(t), "/x", msg); !errors.Is(err, tidewire.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
