package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// nodes are members of one group, and who coordinates what.
type nodes struct {
	t       testing.TB
	cfg     Config
	group   string
	topics  map[string]int32
	timeout time.Duration // of sessions
	commits time.Duration // between commits

	mu          sync.Mutex
	coordinator map[bridge.TopicPartition]bridge.NodeID
	offsets     map[bridge.TopicPartition]bridge.CommitOffset
}

func newNodes(t testing.TB, cfg Config, topics map[string]int32) *nodes {
	noLeaks(t)
	return someNodes(t, cfg, topics)
}

// someNodes does so for a test that looks for goroutines itself.
func someNodes(t testing.TB, cfg Config, topics map[string]int32) *nodes {
	cfg.Log = zerolog.New(zerolog.NewTestWriter(t))
	return &nodes{
		t: t, cfg: cfg, group: kafkatest.Topic(t), topics: topics, timeout: 6 * time.Second, commits: 50 * time.Millisecond,
		coordinator: map[bridge.TopicPartition]bridge.NodeID{},
		offsets:     map[bridge.TopicPartition]bridge.CommitOffset{},
	}
}

// coordinate says which node coordinates a partition.
func (n *nodes) coordinate(node bridge.NodeID, tps ...bridge.TopicPartition) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, tp := range tps {
		n.coordinator[tp] = node
	}
}

// reached says what a partition's coordinator commits from now on.
func (n *nodes) reached(tp bridge.TopicPartition, o bridge.Offset, metadata string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offsets[tp] = bridge.CommitOffset{TP: tp, Offset: o, Metadata: metadata}
}

// join starts a member, which leaves with the test at the latest.
func (n *nodes) join(node bridge.NodeID) *Group {
	n.t.Helper()
	client, err := NewClient(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	g, err := NewGroup(GroupConfig{
		Client: client, GroupID: n.group, Node: node,
		Coordinator: func(tp bridge.TopicPartition) (bridge.NodeID, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			c, ok := n.coordinator[tp]
			return c, ok
		},
		Offsets: func() (out []bridge.CommitOffset) {
			n.mu.Lock()
			defer n.mu.Unlock()
			for tp, o := range n.offsets {
				if n.coordinator[tp] == node {
					out = append(out, o)
				}
			}
			return out
		},
		Log:            n.cfg.Log.With().Str("node", string(node)).Logger(),
		SessionTimeout: n.timeout, HeartbeatInterval: 100 * time.Millisecond,
		CommitInterval: n.commits, SettleTime: 300 * time.Millisecond,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = g.Close(ctx)
		_ = client.Close()
	})
	g.SetTopics(n.topics)
	return g
}

// kill ends a member as a power cut does: the broker hears nothing of it.
func (g *Group) kill() {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	g.cut()
	_ = g.Close(gone)
}

// has waits until the group has assigned exactly these partitions to g.
func (n *nodes) has(g *Group, want ...bridge.TopicPartition) {
	n.t.Helper()
	var got []bridge.TopicPartition
	var ok bool
	deadline := time.Now().Add(waitTimeout)
	for {
		if got, ok = g.Assigned(); ok && fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s has %v (joined: %v), want %v", g.cfg.Node, got, ok, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// committed waits until g reads this from Kafka.
func (n *nodes) committed(g *Group, tp bridge.TopicPartition, o bridge.Offset, metadata string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), waitTimeout)
	defer cancel()
	want := bridge.CommitOffset{TP: tp, Offset: o, Metadata: metadata}
	for {
		got, err := g.Committed(ctx, []bridge.TopicPartition{tp})
		if err == nil && got[tp] == want {
			return
		}
		if err != nil {
			n.t.Fatalf("committed for %s: %+v (%v), want %+v", tp, got[tp], err, want)
		}
		nap(ctx, 10*time.Millisecond)
	}
}

func TestGroupFollowsTheCoordinators(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(3, "a"))
	groupFollowsTheCoordinators(t, k.Brokers(), "a")
}

// groupFollowsTheCoordinators runs two nodes through the life of a group; topic has 3 partitions.
func groupFollowsTheCoordinators(t *testing.T, brokers []string, topic string) {
	n := newNodes(t, Config{Brokers: brokers}, map[string]int32{topic: 3})
	p0, p1, p2 := tp(topic, 0), tp(topic, 1), tp(topic, 2)
	n.coordinate("n1", p0, p2)
	n.coordinate("n2", p1)
	n1 := n.join("n1")
	n.has(n1, p0, p1, p2) // n2 is not there yet
	n2 := n.join("n2")
	n.has(n1, p0, p2)
	n.has(n2, p1)

	n.coordinate("n2", p0, p1, p2) // also: a member without partitions commits nothing, but stays
	n.has(n2, p0, p1, p2)
	n.has(n1)
	n.reached(p0, 7, "epochs=1:0")
	n.committed(n1, p0, 7, "epochs=1:0")

	n.coordinate("n1", p0, p1) // the assignment needs a while: the commit does not wait for it
	n.reached(p0, 8, "epochs=1:0,2:8")
	n.committed(n2, p0, 8, "epochs=1:0,2:8")
	n.has(n1, p0, p1)
	n.has(n2, p2)

	last := bridge.Offset(5)
	for ; ; last++ {
		n.reached(p2, last, "last words")
		begin := time.Now()
		err := n2.Close(t.Context())
		if took := time.Since(begin); took < finalCommitTimeout && err == nil {
			break
		} else if took < finalCommitTimeout || last == 10 {
			t.Fatalf("%v after %v", err, took)
		}
		// Kafka stood still for the time that there is for it.
		n2 = n.join("n2")
		n.has(n1, p0, p1)
		n.has(n2, p2)
	}
	n.has(n1, p0, p1, p2)
	n.committed(n1, p2, last, "last words")
}

// The last commit is made, though the group's coordinator moves just then. It used to be given up at the first answer.
func TestGroupLastCommit(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	for _, e := range []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress} {
		t.Run(e.Message, func(t *testing.T) {
			n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 1})
			n.commits = time.Hour
			n.coordinate("n1", tp("a", 0))
			g := n.join("n1")
			n.has(g, tp("a", 0))
			n.reached(tp("a", 0), 7, "last words")
			f := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: e, Count: 2})
			if err := g.lastCommit(t.Context()); err != nil || f.Hits() != 2 {
				t.Errorf("%d times: %v", f.Hits(), err)
			}
			n.committed(g, tp("a", 0), 7, "last words")
			k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.TopicAuthorizationFailed})
			n.reached(tp("a", 0), 8, "refused")
			if err := g.lastCommit(t.Context()); !errors.Is(err, kafka.TopicAuthorizationFailed) {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestGroupTopicsChange(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a", "b"))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 1})
	n.coordinate("n1", tp("a", 0), tp("b", 0), tp("b", 1))
	g := n.join("n1")
	n.has(g, tp("a", 0))
	g.SetTopics(map[string]int32{"a": 1, "b": 1})
	n.has(g, tp("a", 0), tp("b", 0))
	if err := k.Cluster.CreateTopic("c", 1, nil); err != nil {
		t.Fatal(err)
	}
	g.SetTopics(map[string]int32{"b": 1, "c": 1})
	n.has(g, tp("b", 0), tp("c", 0))
	g.SetTopics(nil)
	waitFor(t, "no membership", func() bool { _, joined := g.Assigned(); return !joined })
	g.SetTopics(map[string]int32{"b": 1})
	n.has(g, tp("b", 0))
}

// A topic that does not exist stays so, and does not keep the others from being assigned.
func TestGroupCreatesNoTopic(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"), kfake.AllowAutoTopicCreation())
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 1, "deleted": 1})
	n.coordinate("n1", tp("a", 0))
	asked := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Observe: true, Count: -1, Topic: "deleted"})
	g := n.join("n1")
	n.has(g, tp("a", 0), tp("deleted", 0))
	if k.TopicInfo("deleted") != nil {
		t.Error("the topic was created")
	}
	if asked.Hits() == 0 {
		t.Error("nobody asked for the topic: the test shows nothing")
	}
}

// The flag is found wherever the stream is cut, and nothing else is touched.
func TestNoTopicCreation(t *testing.T) {
	frame := func(key, version byte, body ...byte) []byte {
		return append([]byte{0, 0, 0, byte(4 + len(body)), 0, key, 0, version}, body...)
	}
	in := slices.Concat(frame(18, 0, 1, 1), frame(3, 6, 9, 9, 1), []byte{0, 0, 0, 0}, frame(3, 6, 1), frame(3, 1, 7, 1),
		frame(11, 6, 1), frame(3, 6), frame(3, 6, 0, 3, 0, 6, 1))
	want := slices.Concat(frame(18, 0, 1, 1), frame(3, 6, 9, 9, 0), []byte{0, 0, 0, 0}, frame(3, 6, 0), frame(3, 1, 7, 1),
		frame(11, 6, 1), frame(3, 6), frame(3, 6, 0, 3, 0, 6, 0))
	for i := range in {
		for j := i; j <= len(in); j++ {
			var f noTopicCreation
			orig := slices.Clone(in)
			got := slices.Concat(f.filter(orig[:i]), f.filter(orig[i:j]), f.filter(orig[j:]))
			if !slices.Equal(got, want) || !slices.Equal(orig, in) {
				t.Fatalf("cut at %d and %d:\n%v, want\n%v", i, j, got, want)
			}
		}
	}
}

// Errors of every request of the group's life: it goes on, for ever.
func TestGroupSurvives(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(2, "a"))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 2})
	n.coordinate("n1", tp("a", 0), tp("a", 1))
	g := n.join("n1")
	errs := []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownServerError}
	for i, key := range []kmsg.Key{kmsg.Heartbeat, kmsg.JoinGroup, kmsg.SyncGroup, kmsg.FindCoordinator, kmsg.OffsetFetch, kmsg.OffsetCommit} {
		for j := range 2 {
			e := errs[(i+3*j)%len(errs)] // each error somewhere, each request with two
			n.has(g, tp("a", 0), tp("a", 1))
			f := k.Fault(
				kfake.Fault{Keys: []kmsg.Key{key}, TopLevel: key != kmsg.OffsetCommit, Err: e},
				kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.RebalanceInProgress},
			)
			o := bridge.Offset(100*i + j)
			n.reached(tp("a", 0), o, "")
			n.has(g, tp("a", 0), tp("a", 1))
			n.committed(g, tp("a", 0), o, "")
			f.Remove()
		}
	}
}

// A node that the group has forgotten must not overwrite what its successor commits, and joins again.
func TestGroupFencesAnOldMember(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 1})
	n.coordinate("n1", tp("a", 0))
	g := n.join("n1")
	n.has(g, tp("a", 0))
	n.reached(tp("a", 0), 10, "new")
	n.committed(g, tp("a", 0), 10, "new")
	var old, stranger *membership
	waitFor(t, "a membership", func() bool { // it has one, unless the machine has stood still for the length of a session
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.member != nil {
			old = &membership{generation: g.member.generation - 1, id: g.member.id}
			stranger = &membership{generation: g.member.generation, id: "gone"}
		}
		return g.member != nil
	})
	for _, m := range []*membership{old, stranger} {
		var err error
		waitFor(t, "an answer", func() bool {
			err = g.commits.commit(t.Context(), m, []bridge.CommitOffset{{TP: tp("a", 0), Offset: 3, Metadata: "old"}})
			return !isTimeout(err)
		})
		if !isFenced(err) {
			t.Errorf("error %v", err)
		}
	}
	n.committed(g, tp("a", 0), 10, "new")
}

func TestGroupMetadataLimit(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(2, "a"))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 2})
	n.coordinate("n1", tp("a", 0), tp("a", 1))
	n.reached(tp("a", 0), 1, strings.Repeat("m", 4096))
	n.reached(tp("a", 1), 1, strings.Repeat("m", 4097))
	g := n.join("n1")
	n.committed(g, tp("a", 0), 1, strings.Repeat("m", 4096))
	got, err := g.Committed(t.Context(), []bridge.TopicPartition{tp("a", 1)})
	if err != nil || len(got) != 0 {
		t.Errorf("committed %v (%v)", got, err)
	}
}

// A node dies and is back before the group has noticed: its new incarnation gets the partitions, not the
// old one, and all is as before once the old one has timed out.
func TestGroupNewIncarnation(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(2, "a"), kfake.GroupMinSessionTimeout(time.Second))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 2})
	n.timeout = time.Second
	n.coordinate("n1", tp("a", 0))
	n.coordinate("n2", tp("a", 1))
	n1, n2 := n.join("n1"), n.join("n2")
	n.has(n1, tp("a", 0))
	n.has(n2, tp("a", 1))
	n2.kill()
	again := n.join("n2")
	n.has(again, tp("a", 1))
	n.has(n1, tp("a", 0))
	n.reached(tp("a", 1), 9, "again")
	n.committed(again, tp("a", 1), 9, "again")
}

// Only what has changed is committed.
func TestGroupCommitsChangesOnly(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(2, "a"))
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 2})
	n.coordinate("n1", tp("a", 0), tp("a", 1))
	n.reached(tp("a", 0), 1, "x")
	n.reached(tp("a", 1), 1, "x")
	g := n.join("n1")
	n.committed(g, tp("a", 0), 1, "x")
	n.committed(g, tp("a", 1), 1, "x")
	var mu sync.Mutex
	var partitions []int32
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Observe: true, Count: -1, When: func(r kmsg.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range r.(*kmsg.OffsetCommitRequest).Topics[0].Partitions {
			partitions = append(partitions, p.Partition)
		}
		return true
	}})
	for i := range 3 {
		n.reached(tp("a", 1), bridge.Offset(2+i), "x")
		n.committed(g, tp("a", 1), bridge.Offset(2+i), "x")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(partitions) == 0 || strings.Contains(fmt.Sprint(partitions), "0") {
		t.Errorf("committed partitions %v", partitions)
	}
}

// What the broker does not take, for a topic that it knows no more, say, is sent again the next time: alone. Everything used
// to be sent each second, for as long as it was refused.
func TestCommitRefusedForOneTopic(t *testing.T) {
	c := newCommitter(GroupConfig{})
	all := []bridge.CommitOffset{{TP: tp("a", 0), Offset: 1}, {TP: tp("gone", 0), Offset: 2}}
	for i, step := range []struct {
		code kafka.Error // for the topic that is gone
		want []bridge.CommitOffset
		full bool
	}{
		{kafka.UnknownTopicOrPartition, all, true},
		{kafka.UnknownTopicOrPartition, all[1:], false},
		{0, all[1:], false},
		{0, nil, false},
	} {
		got, full := c.pick(all)
		if !slices.Equal(got, step.want) || full != step.full {
			t.Errorf("step %d: %v, full: %v", i, got, full)
		}
		sent := map[bridge.TopicPartition]bridge.CommitOffset{}
		res := &offsetcommit.Response{}
		for _, o := range got {
			code := int16(0)
			if o.TP.Topic == "gone" {
				code = int16(step.code)
			}
			sent[o.TP] = o
			res.Topics = append(res.Topics, offsetcommit.ResponseTopic{Name: o.TP.Topic, Partitions: []offsetcommit.ResponsePartition{{ErrorCode: code}}})
		}
		if err := c.record(res, sent, full); (err != nil) != (step.code != 0) {
			t.Errorf("step %d: %v", i, err)
		}
	}
}

// Close is bounded by its context, even while the broker holds a JoinGroup.
func TestGroupCloseIsBounded(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"))
	release := make(chan struct{})
	defer close(release)
	joined := make(chan struct{}, 100)
	k.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		joined <- struct{}{}
		k.SleepControl(func() { <-release })
		return nil, errors.New("too late"), true
	})
	n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{"a": 1})
	g := n.join("n1")
	<-joined
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_ = g.Close(ctx)
	if d := time.Since(begin); d > rebalanceTimeout { // for as long at least a JoinGroup is waited for
		t.Errorf("Close took %v", d)
	}
}

func TestGroupConfig(t *testing.T) {
	client, err := NewClient(Config{Brokers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	co := func(bridge.TopicPartition) (bridge.NodeID, bool) { return "", false }
	for _, cfg := range []GroupConfig{
		{},
		{Client: client, GroupID: "g", Node: "n"},
		{Client: client, GroupID: "g", Coordinator: co},
		{Client: client, Node: "n", Coordinator: co},
		{Client: client, GroupID: "g", Node: "n", Coordinator: co, SessionTimeout: time.Second, HeartbeatInterval: time.Second},
	} {
		if _, err := NewGroup(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestBalancer(t *testing.T) {
	data := func(node bridge.NodeID, started int64) []byte {
		b, err := (&balancer{data: func() memberData { return memberData{Node: node, Started: started} }}).UserData()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	coordinators := map[bridge.TopicPartition]bridge.NodeID{
		tp("a", 0): "n1", tp("a", 1): "n2", tp("a", 2): "gone", tp("b", 0): "n2", tp("b", 1): "n2", tp("b", 2): "gone",
	}
	b := &balancer{coordinator: func(tp bridge.TopicPartition) (bridge.NodeID, bool) {
		n, ok := coordinators[tp]
		return n, ok
	}, topics: func() map[string]int32 { return map[string]int32{"a": 3, "c": 1} }}
	var partitions []kafka.Partition
	for _, p := range []bridge.TopicPartition{tp("b", 2), tp("a", 0), tp("a", 1), tp("b", 0), tp("b", 1)} {
		partitions = append(partitions, kafka.Partition{Topic: p.Topic, ID: int(p.Partition)})
	}
	members := []kafka.GroupMember{
		{ID: "m1", UserData: data("n1", 100)},
		{ID: "m2-old", UserData: data("n2", 100)},
		{ID: "m2-new", UserData: data("n2", 101)},
		{ID: "stranger", UserData: nil},
		{ID: "nonsense", UserData: []byte("{{{")},
		{ID: "nameless", UserData: []byte(`{"started":5}`)},
		{ID: "huge", UserData: data(bridge.NodeID(strings.Repeat("n", 5000)), 1)},
	}
	want := "map[huge:map[] m1:map[a:[0 2] c:[0]] m2-new:map[a:[1] b:[0 1 2]] m2-old:map[] nameless:map[] nonsense:map[] stranger:map[]]"
	if got := fmt.Sprint(b.AssignGroups(members, partitions)); got != want {
		t.Errorf("assignment %s\nwant       %s", got, want)
	}
	if got := fmt.Sprint(b.AssignGroups(members[3:5], partitions)); got != "map[nonsense:map[] stranger:map[]]" {
		t.Errorf("assignment of strangers: %s", got)
	}
}
