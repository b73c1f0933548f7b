package tidewire_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a cluster and a client that tries its nodes in order, quickly.
func start(t *testing.T, cluster *tidewiretest.Cluster, nodes int, change func(*tidewire.Config)) *tidewire.Client {
	t.Helper()
	if err := cluster.Start(nodes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := tidewire.Config{Nodes: cluster.Addrs(), InOrder: true, BackoffBase: time.Millisecond, BackoffMax: 20 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	client, err := tidewire.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func subscribe(t *testing.T, c *tidewire.Client, subject string, opts tidewire.SubOptions) *tidewire.Subscription {
	t.Helper()
	sub, err := c.Subscribe(deadline(t), subject, opts)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// next returns the next item, which must be a T.
func next[T tidewire.Item](t *testing.T, sub *tidewire.Subscription) T {
	t.Helper()
	item, err := sub.Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	typed, ok := item.(T)
	if !ok {
		t.Fatalf("next item is %T %+v, want %T", item, item, typed)
	}
	return typed
}

// nothing says that no item is waiting, once everything sent before has been answered.
func nothing(t *testing.T, sub *tidewire.Subscription) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if item, err := sub.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %T %+v, %v; want nothing", item, item, err)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// states collects what OnState is told.
type states struct {
	mu  sync.Mutex
	all []tidewire.State
}

func (s *states) add(st tidewire.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, st)
}

func (s *states) find(f func(tidewire.State) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.all {
		if f(st) {
			return true
		}
	}
	return false
}
