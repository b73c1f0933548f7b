package replication

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

func TestRevokeBetweenNodes(t *testing.T) {
	c := newCluster(t, 2, 1, inMemory, unshaken)
	c.waitConnected()
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	want := bridge.Revocation{By: bridge.ByTokenID, Value: "é", At: 5, Until: 1 << 50, Reason: "lost phone"}
	var answer error
	c.svcs[1].revoke = func(ctx context.Context, got bridge.Revocation) error {
		if got != want {
			t.Errorf("asked for %+v, not %+v", got, want)
		}
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a call without a deadline")
		}
		return answer
	}
	if err := c.nodes[0].Revoke(context.Background(), "n1", want); err != nil {
		t.Error(err)
	}
	for _, sentinel := range []error{bridge.ErrNotCoordinator, bridge.ErrTooManyRevocations, bridge.ErrOldBuilds} {
		answer = sentinel
		if err := c.nodes[0].Revoke(ctx, "n1", want); !errors.Is(err, sentinel) || err.Error() != sentinel.Error() {
			t.Errorf("%v became %v", sentinel, err)
		}
	}
	answer = errors.New("some bug \xff")
	var away *bridge.UnavailableError
	if err := c.nodes[0].Revoke(ctx, "n1", want); !errors.As(err, &away) {
		t.Errorf("an unknown error became %v", err)
	}
	// What no node sends is refused before anybody sees it.
	c.svcs[1].revoke = func(_ context.Context, got bridge.Revocation) error {
		t.Errorf("asked for %+v", got)
		return nil
	}
	if err := c.nodes[0].Revoke(ctx, "n1", bridge.Revocation{By: bridge.BySubject, Value: strings.Repeat("x", 1000)}); err == nil || errors.As(err, &away) || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("one that is too long: %v", err)
	}
	if err := c.nodes[0].Revoke(ctx, "nobody", want); !errors.Is(err, bridge.ErrNotCoordinator) {
		t.Errorf("to nobody: %v", err)
	}
}

// A build that knows of no revocations would have another state after one. So a node that has some goes together with
// none, on either side, and as long as there is one that does not know, none are made.
func TestBuildsWithoutRevocations(t *testing.T) {
	var has atomic.Bool
	older := newGreeting(Config{Version: "older", Groups: 4})
	older.Wire = revocationsWire - 1
	cfg := Config{Version: "newer", Groups: 4, HasRevocations: has.Load}
	for _, some := range []bool{false, true, false} {
		has.Store(some)
		g := newGreeting(cfg)
		for _, err := range []error{g.goesWith(older), g.goesWith(oldGreeting()), older.goesWith(g)} {
			if errors.Is(err, ErrIncompatible) != some || (err != nil) != some {
				t.Errorf("with revocations %v: %v", some, err)
			}
		}
		if err := g.goesWith(newGreeting(Config{Groups: 4})); err != nil {
			t.Errorf("with revocations %v, to its like: %v", some, err)
		}
	}

	p := newFakePeer(t)
	p.set(func() { p.told = older })
	w := &watcher{
		id: "b", route: newRoute(p.ln.Addr().String()), dialer: dialer{conns: newConnSet()}, log: zerolog.Nop(),
		cfg: Config{Groups: 4, PingEvery: 10 * time.Millisecond, Silence: 2 * time.Second, HasRevocations: has.Load},
		met: func(hello) {}, born: func() {}, died: func(death) {},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	defer func() { cancel(); <-done }()
	alive := func(want bool) {
		t.Helper()
		eventually(t, "the older build is let in or not", func() bool { _, ok := w.alive(); return ok == want })
	}
	alive(true)
	has.Store(true)
	p.cut() // it comes back
	alive(false)
	if _, err := w.route.preface(kindRaft, 0, "b"); !errors.Is(err, ErrIncompatible) {
		t.Errorf("Raft speaks to it: %v", err)
	}
	has.Store(false)
	alive(true)

	c := newCluster(t, 2, 1, inMemory, unshaken)
	c.waitConnected()
	n := c.nodes[0]
	if old := n.WithoutRevocations(); len(old) > 0 {
		t.Errorf("%v do not know of revocations", old)
	}
	n.members.route("n1").met(older, nil)
	if old := n.WithoutRevocations(); !slices.Equal(old, []bridge.NodeID{"n1"}) {
		t.Errorf("%v do not know of revocations, want n1", old)
	}
	c.stop(1, 0)
	eventually(t, "a node that is away keeps nobody from revoking", func() bool { return len(n.WithoutRevocations()) == 0 })
}

// A node that begins is not up to date by what it finds on its disk: somebody must have told it what is committed.
func TestUpToDate(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.propose(0, "a")
	c.waitSame(0, 1)
	all := func() bool {
		for _, n := range c.nodes {
			if !n.UpToDate(0) {
				return false
			}
		}
		return true
	}
	eventually(t, "all nodes are up to date", all)
	l := c.waitLeader(0)
	f := c.nodes[(l+1)%3]
	var v view
	eventually(t, "the leader is heard from", func() (ok bool) { v, ok = f.views.get(c.peers[l].ID); return ok })
	behind := func(what string, change func(*standing)) {
		t.Helper()
		told := func(change func(*standing)) bool {
			w := v
			w.at, w.groups = time.Now(), slices.Clone(v.groups)
			change(&w.groups[0])
			f.views.set(c.peers[l].ID, w)
			return f.UpToDate(0)
		}
		same := func(*standing) {}
		// Views come in between, and leaderships may move: tried until nothing else can have been the reason.
		eventually(t, what, func() bool { return told(same) && !told(change) && told(same) })
	}
	// Its leader has it in its log, and has not applied it yet, as after a start of all nodes.
	behind("a node lacks what its leader has in its log", func(s *standing) { s.Last += 1000 })
	behind("who did not lead when it was asked says nothing", func(s *standing) { s.Leader = "n9" })
	eventually(t, "all nodes are up to date again", all)

	for i := range c.nodes {
		c.stop(i, 0)
	}
	c.start(0)
	// It has its log, and stands for election in vain.
	eventually(t, "it has noticed that it is alone", func() bool { return c.nodes[0].groups[0].raft.State() == raft.Candidate })
	if c.nodes[0].UpToDate(0) {
		t.Error("a node that is alone is up to date")
	}
	c.start(1)
	c.start(2)
	eventually(t, "all nodes are up to date after a start", all)
	for i := range c.nodes {
		eventually(t, "what they were taking in", func() bool { return len(c.toys[i].applied(0)) > 0 })
	}
}
