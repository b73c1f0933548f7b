package replication

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

func TestCallsBetweenNodes(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, unshaken)
	c.waitConnected()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	tp := bridge.TopicPartition{Topic: "chat", Partition: 3}
	want := bridge.PublishRequest{
		Topic: "chat", Key: nil, Value: []byte{}, User: "u", Mid: "m", Ack: bridge.AckReplicated,
		Headers: []bridge.Header{{Key: "a", Value: nil}, {Key: "b", Value: []byte{}}, {Key: "c", Value: []byte("x")}},
	}
	result := bridge.PublishResult{Partition: 3, Offset: 42, Pos: bridge.Position{Epoch: 2, Seqno: 9}, Duplicate: true}
	c.svcs[1].publish = func(ctx context.Context, gotTP bridge.TopicPartition, got bridge.PublishRequest) (bridge.PublishResult, error) {
		if gotTP != tp || !reflect.DeepEqual(got, want) {
			t.Errorf("asked for %v %+v, not %v %+v", gotTP, got, tp, want)
		}
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a call without a deadline")
		}
		return result, nil
	}
	got, err := c.nodes[0].Publish(context.Background(), "n1", tp, want)
	if err != nil || got != result {
		t.Errorf("publish: %+v, %v", got, err)
	}
	if p, err := c.nodes[0].Head(ctx, "n1", tp); err != nil || p != (bridge.Position{Epoch: 3, Seqno: 4}) {
		t.Errorf("head: %v, %v", p, err)
	}
	for _, id := range []bridge.NodeID{"n0", "n1"} {
		if s, err := c.nodes[0].Status(ctx, id); err != nil || s.Node != id {
			t.Errorf("status of %s: %+v, %v", id, s, err)
		}
	}

	// Errors of the domain arrive as what they were.
	var answer error
	c.svcs[1].publish = func(context.Context, bridge.TopicPartition, bridge.PublishRequest) (bridge.PublishResult, error) {
		return bridge.PublishResult{}, answer
	}
	for _, sentinel := range []error{bridge.ErrNotExposed, bridge.ErrTooLarge, bridge.ErrNotCoordinator} {
		answer = sentinel
		if _, err := c.nodes[0].Publish(ctx, "n1", tp, want); !errors.Is(err, sentinel) {
			t.Errorf("%v became %v", sentinel, err)
		}
	}
	answer = &bridge.UnavailableError{RetryAfter: 1500 * time.Millisecond, Err: errors.New("Kafka is away")}
	var u *bridge.UnavailableError
	if _, err := c.nodes[0].Publish(ctx, "n1", tp, want); !errors.As(err, &u) || u.RetryAfter != 1500*time.Millisecond || !strings.Contains(err.Error(), "Kafka is away") {
		t.Errorf("unavailable became %v", err)
	}
	answer = &bridge.RejectedError{TooLarge: true, Err: errors.New("no")}
	var r *bridge.RejectedError
	if _, err := c.nodes[0].Publish(ctx, "n1", tp, want); !errors.As(err, &r) || !r.TooLarge {
		t.Errorf("rejected became %v", err)
	}
	answer = errors.New("some bug \xff")
	if _, err := c.nodes[0].Publish(ctx, "n1", tp, want); !errors.As(err, &u) {
		t.Errorf("an unknown error became %v", err)
	}

	// Broken in the middle of the call: it may have been written.
	entered, leave := make(chan struct{}), make(chan struct{})
	c.svcs[1].publish = func(context.Context, bridge.TopicPartition, bridge.PublishRequest) (bridge.PublishResult, error) {
		close(entered)
		<-leave
		return result, nil
	}
	outcome := make(chan error, 1)
	go func() {
		_, err := c.nodes[0].Publish(ctx, "n1", tp, want)
		outcome <- err
	}()
	<-entered
	n := c.nodes[1]
	_ = n.mux.ln.Close()
	n.conns.close()
	if err := <-outcome; !errors.As(err, &u) || errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("cut in the middle: %v", err)
	}
	close(leave)
	c.stop(1, 0)

	// Not reached at all: it was surely not written.
	eventually(t, "the death is noticed", func() bool { return !c.nodes[0].PeerAlive("n1") })
	if _, err := c.nodes[0].Publish(ctx, "n1", tp, want); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("to a dead node: %v", err)
	}
	if _, err := c.nodes[0].Publish(ctx, "nobody", tp, want); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("to nobody: %v", err)
	}
	// And reached again when it is back.
	c.start(1)
	c.svcs[1].publish = func(context.Context, bridge.TopicPartition, bridge.PublishRequest) (bridge.PublishResult, error) {
		return result, nil
	}
	eventually(t, "calls go on", func() bool {
		_, err := c.nodes[0].Publish(ctx, "n1", tp, want)
		return err == nil
	})
}
