package verify

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// One cluster serves all runs, the one that stops a node last.
func TestRun(t *testing.T) {
	c := startCluster(t, "/^verify.*/")
	t.Run("broken streams", func(t *testing.T) { brokenStreams(t, c) })
	t.Run("ended early", func(t *testing.T) { endedEarlyIsJudged(t, c) })
	t.Run("sound cluster", func(t *testing.T) { soundClusterIsClean(t, c) })
}

func options(t *testing.T, c *aCluster, topic string) Options {
	return Options{Nodes: c.addrs, Brokers: c.brokers, Topics: []string{topic}, Create: true, Partitions: 4,
		Rate: 200, PublishRate: 60, Settle: waitTime, Seed: 1, Progress: t.Logf}
}

// runWhile drives a run for as long as during takes, but no longer than waitTime: how long it takes until something has happened
// depends on the machine. during is called when the load begins; wait is false when the run is over before what it waits for.
func runWhile(t *testing.T, o Options, during func(wait func(func(Counters) bool) bool)) (*Driver, History) {
	t.Helper()
	o.Duration = waitTime
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		select {
		case <-d.Loading():
		case <-over:
			return
		}
		during(func(cond func(Counters) bool) bool {
			for !cond(d.Counters()) {
				select {
				case <-over:
					return false
				case <-time.After(10 * time.Millisecond):
				}
			}
			return true
		})
	}()
	h, err := d.Run(ctx)
	close(over)
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	return d, h
}

// A cluster that keeps its promises is found clean, by a run in which everything that a run is made of
// happened; and a node that stops in the middle changes nothing.
func soundClusterIsClean(t *testing.T, c *aCluster) {
	d, h := runWhile(t, options(t, c, "verify"), func(wait func(func(Counters) bool) bool) {
		if !wait(func(n Counters) bool { return n.Delivered >= 1000 }) {
			return
		}
		c.stop(t, 2)
		before := int64(-1)
		wait(func(n Counters) bool { // one of ten publishes is repeated
			if before < 0 {
				before = n.Delivered
			}
			return n.Delivered >= before+3000 && n.Aborted > 0 && n.Acked >= 200 && n.Resumes > 0 && n.Disconnects > 0
		})
	})
	r := Judge(h)
	t.Logf("\n%s", r.text())
	if !r.Clean() || !h.Settled {
		t.Fatalf("settled %v, %d breaches", h.Settled, len(r.Breaches))
	}
	for what, n := range map[string]int{"records": r.Records, "aborted": r.Aborted, "acked": r.Acked, "repeated publishes": r.Duplicates,
		"delivered": r.Delivered, "resumes": r.Resumes, "disconnects": r.Disconnects} {
		if n == 0 {
			t.Errorf("no %s", what)
		}
	}
	if r.Delivered < 3*r.Records {
		t.Errorf("%d deliveries of %d records", r.Delivered, r.Records)
	}
	if n := d.Counters(); n.Subscribers != 0 || n.Delivered != int64(r.Delivered) {
		t.Errorf("counters at the end: %+v", n)
	}
}

// Ctrl-C ends the load, and what there is is judged all the same, a burst of large records and a crowd included.
func endedEarlyIsJudged(t *testing.T, c *aCluster) {
	o := options(t, c, "verify")
	o.Duration, o.Crowd = time.Hour, 7
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	const burst, padding = 100, 1000
	ctx, cancel := context.WithCancel(t.Context())
	burstErr := make(chan error, 1)
	go func() {
		<-d.Loading()
		burstErr <- d.Burst(ctx, burst, padding)
		for d.Counters().Delivered < 500 {
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
	}()
	h, err := d.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r := Judge(h); !r.Clean() || !h.Settled || r.Records < burst {
		t.Errorf("settled %v:\n%s", h.Settled, r.text())
	}
	if err := <-burstErr; err != nil {
		t.Error(err)
	}
	crowd, large := 0, 0
	for _, s := range h.Subscribers {
		if strings.HasPrefix(s.Name, "crowd-") {
			crowd++
		}
		if strings.HasPrefix(s.Name, "all-0") {
			for _, e := range s.Events {
				if bigSize(e.ID) == padding {
					large++
				}
			}
		}
	}
	if crowd != 7 || large != burst {
		t.Errorf("%d subscribers in the crowd, %d large records delivered", crowd, large)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{}, {Nodes: []string{"a"}}, {Nodes: []string{"a"}, Brokers: []string{"b"}},
		{Nodes: []string{"a"}, Brokers: []string{"b"}, Topics: []string{"t"}, Duration: -1}} {
		if _, err := New(o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// A subscriber that belongs to a node finds whichever node there is while its own is away, however many others are
// too, and goes back.
func TestPinnedFindsANode(t *testing.T) {
	const nodes = 5
	for home := range nodes {
		for lives := range nodes {
			node, failures, at := home, 0, map[int]int{}
			for ; node != lives; at[node]++ {
				if failures++; failures > 2*pinnedTries*nodes {
					t.Fatalf("from %d node %d is not found: tried %v", home, lives, at)
				}
				node = pinnedNext(node, home, nodes, failures)
			}
			if other := (home + 1) % nodes; lives != home && lives != other && at[other] < pinnedTries {
				t.Errorf("from %d to %d, node %d was tried %d times", home, lives, other, at[other])
			}
			if next := pinnedNext(node, home, nodes, 0); (next == home) == (node == home) {
				t.Errorf("from %d, which broke, %d goes to %d", node, home, next)
			}
		}
	}
	if pinnedNext(0, 0, 1, 100) != 0 {
		t.Error("of one node another")
	}
}
