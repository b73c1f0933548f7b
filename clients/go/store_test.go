package tidewire_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

// flakyStore is a VectorStore that fails when it is told to.
type flakyStore struct {
	mu   sync.Mutex
	kept map[string]tidewire.Vector
	err  error
}

func (f *flakyStore) Load(_ context.Context, key string) (tidewire.Vector, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept[key], f.err
}

func (f *flakyStore) Save(_ context.Context, key string, v tidewire.Vector) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.kept[key] = v
	}
	return f.err
}

func (f *flakyStore) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *flakyStore) seqno(key string) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, _ := f.kept[key].At(0)
	return p.Seqno
}

// What was given out is stored when the application asks for more and at the end; a store that fails is told
// once and not asked again at once, and the stream goes on.
func TestVectorIsStored(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	c := start(t, cl, 1, nil)
	store := &flakyStore{kept: map[string]tidewire.Vector{}}
	opts := tidewire.SubOptions{Store: store, StoreKey: "mine"}
	sub := subscribe(t, c, "/t/k", opts)
	next[*tidewire.Live](t, sub)
	cl.Append("/t/k", 0, 1)
	next[*tidewire.Record](t, sub)
	if n := store.seqno("mine"); n != 0 {
		t.Fatalf("record %d is stored before the application has dealt with it", n)
	}
	nothing(t, sub)
	if n := store.seqno("mine"); n != 1 {
		t.Fatalf("%d is stored, not 1", n)
	}
	full := errors.New("disk full")
	store.fail(full)
	cl.Append("/t/k", 0, 2)
	next[*tidewire.Record](t, sub)
	if _, err := sub.Next(deadline(t)); !errors.Is(err, tidewire.ErrStore) || !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	cl.Append("/t/k", 0, 3)
	next[*tidewire.Record](t, sub)
	if err := sub.Close(); !errors.Is(err, tidewire.ErrStore) {
		t.Fatalf("close: %v", err)
	}
	store.fail(nil)
	// From 1 again: 2 and 3 were never stored.
	sub = subscribe(t, c, "/t/k", opts)
	next[*tidewire.Resumed](t, sub)
	for _, want := range []string{"2", "3"} {
		if r := next[*tidewire.Record](t, sub); string(r.Value()) != want {
			t.Fatalf("got %s, want %s", r.Value(), want)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := store.seqno("mine"); n != 3 {
		t.Fatalf("%d is stored at the end, not 3", n)
	}
	store.fail(full)
	if _, err := start(t, &tidewiretest.Cluster{}, 1, nil).Subscribe(deadline(t), "/t/k", opts); !errors.Is(err, tidewire.ErrStore) {
		t.Fatalf("subscribe: %v", err)
	}
}
