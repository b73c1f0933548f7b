package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/cache"
)

// A node of these tests, and its outside world: a Kafka of slices (fakekafka_test.go), Raft groups that commit as soon as
// something is proposed (fakeraft_test.go), and a Feed that reads the one for the other (fakefeed_test.go). Each has a few
// levers for what can go wrong.

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errAway = errors.New("no broker can be reached")
	nolog   = func() zerolog.Logger {
		if os.Getenv("BRIDGE_TEST_LOG") != "" {
			return zerolog.New(zerolog.NewConsoleWriter())
		}
		return zerolog.New(io.Discard)
	}()
)

// A testEncoder writes a frame that says what a record was, and where.
type testEncoder struct{}

func (testEncoder) AppendMsg(dst []byte, _ TopicPartition, r Record, pos, _ Position, _ bool) []byte {
	return fmt.Appendf(dst, "%s@%d,%d\n", r.Value, pos.Epoch, pos.Seqno)
}

// A testNode is a Bridge with its Feed.
type testNode struct {
	*Bridge
	t     *testing.T
	id    NodeID
	raft  *fakeRaft
	kafka *fakeKafka
	feed  *fakeFeed
	store *cache.Store

	mu    sync.Mutex
	roles map[GroupID]func() // ends the role and waits for it
}

type nodeOption func(*Config)

// node adds a node that runs until the test ends. It is past its start unless the option says otherwise.
func (r *fakeRaft) node(t *testing.T, k *fakeKafka, id NodeID, opts ...nodeOption) *testNode {
	store := cache.NewStore(cache.Config{})
	rep := replicator{r, id}
	cfg := Config{
		Node: id, Groups: 1, Cache: store, CacheTTL: time.Hour, Encoder: testEncoder{}, Replicator: rep, Peers: rep,
		Offsets: k, Committed: k, Replayer: k, Producer: k, Start: StartPolicy{Earliest: true}, Log: nolog,
		Now: func() time.Time { return time.Unix(0, 0) }, // epochs after a rebirth then rise by the leap alone
	}
	for _, o := range opts {
		o(&cfg)
	}
	n := &testNode{Bridge: New(cfg), t: t, id: id, raft: r, kafka: k, store: store, roles: make(map[GroupID]func())}
	n.feed = newFeed(k, n.Bridge)
	n.SetFeed(n.feed)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.Run(ctx) })
	r.mu.Lock()
	r.nodes[id] = n
	r.mu.Unlock()
	t.Cleanup(func() {
		n.depose()
		cancel()
		wg.Wait()
		n.feed.close()
	})
	return n
}

// lead makes the node the leader of the groups, in a new term.
func (n *testNode) lead(groups ...GroupID) {
	if len(groups) == 0 {
		groups = []GroupID{0}
	}
	for _, g := range groups {
		fg := n.raft.group(g)
		fg.mu.Lock()
		old := fg.leader
		fg.mu.Unlock()
		if o := (replicator{n.raft, n.id}).other(old); o != nil {
			o.depose(g)
		}
		fg.mu.Lock()
		fg.term++
		term := fg.term
		fg.leader = n.id
		fg.held[n.id] = false
		n.raft.catchUp(g, fg)
		fg.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { n.Lead(ctx, g, term) })
		n.mu.Lock()
		n.roles[g] = func() { cancel(); wg.Wait() }
		n.mu.Unlock()
	}
}

// depose ends the node's role in groups (all: none named).
func (n *testNode) depose(groups ...GroupID) {
	n.mu.Lock()
	var ends []func()
	for g, end := range n.roles {
		if len(groups) == 0 || slices.Contains(groups, g) {
			fg := n.raft.group(g)
			ends = append(ends, func() {
				fg.mu.Lock()
				if fg.leader == n.id {
					fg.leader = ""
				}
				fg.mu.Unlock()
				end()
			})
			delete(n.roles, g)
		}
	}
	n.mu.Unlock()
	for _, end := range ends {
		end()
	}
}

// shown is what the log of a partition holds, in order, gaps as GAP:reason@position.
func (n *testNode) shown(tp TopicPartition) (out []string) {
	log, ok := n.store.Lookup(tp.Topic, tp.Partition)
	if !ok {
		return nil
	}
	for i := log.Bounds().Start; ; {
		c := log.ReadAll(i, 1)
		switch {
		case c.Behind || c.Next == i:
			return out
		case c.Gap != nil:
			out = append(out, fmt.Sprintf("GAP:%s@%d,%d", c.Gap.Reason, c.Gap.At.Epoch, c.Gap.At.Seqno))
		default:
			out = append(out, string(c.Bytes[:len(c.Bytes)-1]))
		}
		i = c.Next
	}
}

func (n *testNode) wantShown(tp TopicPartition, want ...string) {
	n.t.Helper()
	var got []string
	eventually(n.t, func() bool { got = n.shown(tp); return slices.Equal(got, want) }, func() string {
		return fmt.Sprintf("node %s shows of %v\n%q, want\n%q", n.id, tp, got, want)
	})
}

// wantShownLast wants the log to end with these.
func (n *testNode) wantShownLast(tp TopicPartition, want ...string) {
	n.t.Helper()
	var got []string
	eventually(n.t, func() bool {
		got = n.shown(tp)
		return len(got) >= len(want) && slices.Equal(got[len(got)-len(want):], want)
	}, func() string { return fmt.Sprintf("node %s shows of %v\n%q, want\n%q at its end", n.id, tp, got, want) })
}

// next is the ledger's next offset, -1 before its start.
func (n *testNode) next(tp TopicPartition) Offset {
	o := Offset(-1)
	if p := n.started(tp); p != nil {
		p.view(func(l *ledger) { o = l.next() })
	}
	return o
}

func (n *testNode) wantNext(tp TopicPartition, want Offset) {
	n.t.Helper()
	eventually(n.t, func() bool { return n.next(tp) == want }, func() string {
		return fmt.Sprintf("node %s: %v is at %d, want %d", n.id, tp, n.next(tp), want)
	})
}

// waitTime is for how long anything is waited for that has to come: long, as machines are busy at times.
const waitTime = 45 * time.Second

// eventually waits for a condition that something else brings about.
func eventually(t *testing.T, cond func() bool, what func() string) {
	t.Helper()
	for deadline := time.Now().Add(waitTime); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what())
		}
	}
}

func topicMap(name string, partitions int32, id byte) map[string]TopicMeta {
	return map[string]TopicMeta{name: {ID: TopicID{id}, Partitions: partitions, Exposed: true, Publish: true, Initial: true}}
}

// testContext ends with the test, and long before the test times out.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	t.Cleanup(cancel)
	return ctx
}
