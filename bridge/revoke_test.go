package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/cache"
)

// A revocation that one node is asked for is on all of them, through whichever leads, and on those that come later.
func TestRevokeOnEveryNode(t *testing.T) {
	r, k := newRaft(), newKafka()
	var clock atomic.Int64
	clock.Store(100)
	now := func(c *Config) { c.Now = func() time.Time { return time.UnixMilli(clock.Load()) } }
	a, b, c := r.node(t, k, "a", now), r.node(t, k, "b", now), r.node(t, k, "c", now)
	ctx := testContext(t)
	alice, t1 := subject("alice", 100, 200), tokenID("t1", 100, 300)
	want := func(n *testNode, list ...Revocation) {
		t.Helper()
		eventually(t, func() bool { return slices.Equal(n.Revocations(), list) && n.RevocationCount() == len(list) },
			func() string { return fmt.Sprintf("node %s has %v, want %v", n.id, n.Revocations(), list) })
	}
	a.lead()
	r.hold(0, "c", true)
	eventually(t, func() bool { return a.Bridge.lead(0) != nil }, func() string { return "no leader" })
	if err := a.Revoke(ctx, alice); err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(ctx, t1); err != nil { // not the leader
		t.Fatal(err)
	}
	want(a, alice, t1)
	want(b, alice, t1)
	if c.Revoked(Token{Subject: "alice"}) || !b.Revoked(Token{Subject: "alice"}) {
		t.Error("a node knows what it has not applied, or does not know what it has")
	}
	r.hold(0, "c", false)
	want(c, alice, t1)

	// Nothing is done on a node that does not lead, without a leader, or beside a build that knows of none.
	if err := b.LocalRevoke(ctx, t1); !errors.Is(err, ErrNotCoordinator) {
		t.Errorf("on a follower: %v", err)
	}
	r.mu.Lock()
	r.old = []NodeID{"c"}
	r.mu.Unlock()
	if err := b.Revoke(ctx, tokenID("t2", 1, 300)); !errors.Is(err, ErrOldBuilds) || !strings.Contains(err.Error(), "[c]") {
		t.Errorf("beside an older build: %v", err)
	}
	r.mu.Lock()
	r.old = nil
	r.mu.Unlock()
	if err := a.Revoke(ctx, subject("", 1, 2)); err == nil {
		t.Error("nobody is revoked")
	}
	a.depose()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var away *UnavailableError
	if err := b.Revoke(short, tokenID("t2", 1, 300)); !errors.As(err, &away) {
		t.Errorf("without a leader: %v", err)
	}
	want(b, alice, t1)

	// A leader lets those leave that have expired by its clock, on all nodes.
	clock.Store(201)
	b.lead()
	for _, n := range []*testNode{a, b, c} {
		want(n, t1)
	}

	// Who takes a snapshot has what is in it, and no more.
	snap, err := b.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	d := r.node(t, k, "d")
	d.Apply(0, 1, 1, encodeOps([]op{&revokeOp{Revocations: []Revocation{subject("bob", 1, 200)}}}))
	if err := d.Restore(0, snap); err != nil {
		t.Fatal(err)
	}
	want(d, t1)
	if err := d.Restore(1, snap); err == nil {
		t.Error("another group's snapshot brings revocations")
	}
}

// A proposal whose outcome is not known is repeated: the revocation is in force when the caller is told so.
func TestRevokeWhoseOutcomeIsUnknown(t *testing.T) {
	r, k := newRaft(), newKafka()
	a := r.node(t, k, "a")
	a.lead()
	eventually(t, func() bool { return a.Bridge.lead(0) != nil }, func() string { return "no leader" })
	for _, commit := range []bool{true, false} {
		tries := 0
		r.mu.Lock()
		r.refuse = func(_ GroupID, ops []op) (bool, bool) {
			if _, ok := ops[0].(*revokeOp); !ok {
				return false, true
			}
			tries++
			return tries == 1, commit
		}
		r.mu.Unlock()
		id := fmt.Sprint(commit)
		if err := a.Revoke(testContext(t), tokenID(id, 0, 10)); err != nil || tries != 2 || !a.Revoked(Token{ID: id}) {
			t.Errorf("committed the first time is %v: %v after %d tries", commit, err, tries)
		}
	}
}

func TestRevokeWhenThereIsNoRoom(t *testing.T) {
	r, k := newRaft(), newKafka()
	a, b := r.node(t, k, "a"), r.node(t, k, "b")
	a.lead()
	eventually(t, func() bool { return a.Bridge.lead(0) != nil }, func() string { return "no leader" })
	full := &revokeOp{}
	for i := range MaxRevocations {
		full.Revocations = append(full.Revocations, tokenID(fmt.Sprint(i), 0, 10))
	}
	if _, err := a.cfg.Replicator.Propose(0, encodeOps([]op{full})).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := b.Revoke(testContext(t), tokenID("one more", 0, 10)); !errors.Is(err, ErrTooManyRevocations) || b.RevocationCount() != MaxRevocations {
		t.Errorf("%v; there are %d", err, b.RevocationCount())
	}
}

// Who wants to know is told after a revocation is in force, by an entry as by a snapshot, and not by those that leave.
func TestOnRevoked(t *testing.T) {
	b := New(Config{Node: "n1", Groups: 2, Cache: cache.NewStore(cache.Config{}), Log: zerolog.Nop()})
	told := make(chan bool, 10)
	b.OnRevoked(func() { told <- b.Revoked(Token{Subject: "alice"}) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	await := func() {
		t.Helper()
		select {
		case in := <-told:
			if !in {
				t.Error("told before it is in force")
			}
		case <-time.After(waitTime):
			t.Fatal("nobody is told")
		}
	}
	b.Apply(1, 1, 1, encodeOps([]op{&revokeOp{Revocations: []Revocation{subject("alice", 1, 2)}}}))
	if b.Revoked(Token{Subject: "alice"}) {
		t.Error("another group's entry revokes")
	}
	b.Apply(0, 1, 1, encodeOps([]op{&revokeOp{Revocations: []Revocation{subject("alice", 1, 2)}}}))
	await()
	b.Apply(0, 1, 2, encodeOps([]op{&revokeOp{Now: 1}}))
	snap, err := b.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) > 0 {
		t.Error("told of one that leaves")
	}
	if err := b.Restore(0, snap); err != nil {
		t.Fatal(err)
	}
	await()
}
