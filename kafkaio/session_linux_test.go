package kafkaio

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// countingMechanism counts authentications.
type countingMechanism struct {
	sasl.Mechanism
	starts atomic.Int64
}

func (m *countingMechanism) Start(ctx context.Context) (sasl.StateMachine, []byte, error) {
	m.starts.Add(1)
	return m.Mechanism.Start(ctx)
}

// A real broker that ends sessions after 5 s, for several of those: every connection of this package stays as it is,
// the consumer group is not rebalanced, no record is lost or repeated, publishes go on, nothing is complained of.
func TestRealSessionsAreRenewed(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Start(t, kafkatest.Options{Version: version, SASL: true, Config: map[string]string{
			"connections.max.reauth.ms": "5000",
			"broker.session.timeout.ms": "20000", // a busy machine's pauses are not what this is about
		}})
		endpoint := newTokenEndpoint(t, func() (string, int) { return kafkatest.UnsignedToken("tidewire", 20*time.Second), 20 })
		noLeaks(t)
		var all []*sessionRig
		for mechanism, s := range map[string]Security{
			"PLAIN":         {Username: k.Username, Password: secret.Of(k.Password)},
			"SCRAM-SHA-512": {Username: k.Username, Password: secret.Of(k.Password)},
			"OAUTHBEARER":   {OAuth: endpoint.oauth(clientPassword)},
		} {
			s.TLS, s.CA, s.Mechanism = true, k.CAFile, mechanism
			all = append(all, newSessionRig(t, k, s))
		}
		for round := 1; ; round++ {
			wrong, slowest := renewals(t, k, all)
			if len(wrong) == 0 {
				break
			}
			// Who waits for an answer for as long as that gives up, and dials again: nothing is wrong with the session.
			if round == 5 || slowest < busyMachine {
				t.Fatalf("the slowest step took %v:\n%s", slowest, strings.Join(wrong, "\n"))
			}
			t.Logf("a step took %v, once more", slowest)
		}
		for _, r := range all {
			r.check()
		}
	})
}

// busyMachine is how long a step takes, milliseconds otherwise, only where nobody gets a processor.
const busyMachine = 300 * time.Millisecond

// renewals has all sessions renewed four times and returns what was wrong meanwhile, and how long the slowest step took.
func renewals(t *testing.T, k *kafkatest.Cluster, all []*sessionRig) (wrong []string, slowest time.Duration) {
	t.Helper()
	// Those that are needed at the start alone have gone when nothing has changed for a while.
	before := kafkatest.ConnectionsTo(t, k.SASLBrokers()[0])
	since := time.Now()
	waitFor(t, "connections that stay", func() bool {
		if now := kafkatest.ConnectionsTo(t, k.SASLBrokers()[0]); !maps.Equal(now, before) {
			before, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	enough := int64(4 * len(before) / len(all))
	for _, r := range all {
		r.begin()
	}
	deadline := time.Now().Add(3 * time.Minute)
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for slices.ContainsFunc(all, func(r *sessionRig) bool { return r.renewed() < enough }) {
		if time.Now().After(deadline) {
			t.Fatalf("sessions are not renewed")
		}
		for _, r := range all {
			begun := time.Now()
			r.step()
			slowest = max(slowest, time.Since(begun))
		}
		<-pace.C
	}
	for _, r := range all {
		wrong = append(wrong, r.wrong()...)
	}
	now := kafkatest.ConnectionsTo(t, k.SASLBrokers()[0])
	for c := range before {
		if !now[c] {
			wrong = append(wrong, fmt.Sprintf("connection %s has gone, of %d", c, len(before)))
		}
	}
	t.Logf("%d connections", len(before))
	return wrong, slowest
}

// sessionRig is everything that this package does, with one mechanism.
type sessionRig struct {
	t        *testing.T
	k        *kafkatest.Cluster
	mech     *countingMechanism
	topic    string
	w        *writer
	r        *rig
	g        *Group
	n        *nodes
	replayer *Replayer
	produced []string

	// At the beginning of a round.
	generation int32
	starts     int64
	complained int
	failed     []string // what did not work since
}

func newSessionRig(t *testing.T, k *kafkatest.Cluster, s Security) *sessionRig {
	tc, mech, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	r := &sessionRig{t: t, k: k, mech: &countingMechanism{Mechanism: mech}, topic: kafkatest.Topic(t)}
	k.CreateTopic(r.topic, 1, nil)
	cfg := Config{Brokers: k.SASLBrokers(), TLS: tc, SASL: r.mech}
	if m, ok := mech.(*oauthMechanism); ok {
		t.Cleanup(m.close) // the clients see the counting one
	}
	r.w = startWriter(t, cfg, r.topic)
	r.r = newRigWith(t, cfg, r.topic)
	r.r.start(tp(r.topic, 0), 0)
	r.replayer = NewReplayer(r.r.client, r.r.topics, r.r.offsets)
	t.Cleanup(r.replayer.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	reach := NewReach(r.r.client, r.r.topics, func(bridge.TopicPartition) bridge.GroupID { return 0 })
	reach.silence = time.Minute // a busy machine's pauses are not what this is about
	wg.Go(func() { reach.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	r.n = someNodes(t, cfg, map[string]int32{r.topic: 1})
	r.n.coordinate("n1", tp(r.topic, 0))
	r.g = r.n.join("n1")
	r.n.has(r.g, tp(r.topic, 0))
	r.step()
	r.n.committed(r.g, tp(r.topic, 0), 1, r.produced[0])
	return r
}

// begin begins a round.
func (r *sessionRig) begin() {
	r.generation, r.starts, r.complained, r.failed = r.membership(), r.mech.starts.Load(), r.complaints(), nil
}

// renewed is how many authentications there were in this round.
func (r *sessionRig) renewed() int64 { return r.mech.starts.Load() - r.starts }

// complaints counts those of the log.
func (r *sessionRig) complaints() int {
	return r.r.logs.with(`"level":"warn"`) + r.r.logs.with(`"level":"error"`)
}

// wrong is what was wrong in this round.
func (r *sessionRig) wrong() (out []string) {
	if g := r.membership(); g != r.generation {
		out = append(out, fmt.Sprintf("%s: the group was rebalanced: generation %d after %d", r.mech.Name(), g, r.generation))
	}
	if n := r.complaints() - r.complained; n != 0 {
		out = append(out, fmt.Sprintf("%s: %d complaints in the log", r.mech.Name(), n))
	}
	for _, f := range r.failed {
		out = append(out, r.mech.Name()+": "+f)
	}
	return out
}

// membership is the generation that the node is a member of.
func (r *sessionRig) membership() int32 {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if r.g.member == nil {
		return -1
	}
	return r.g.member.generation
}

// step publishes, commits, replays and asks, once each.
func (r *sessionRig) step() {
	r.t.Helper()
	value := fmt.Sprint("v", len(r.produced))
	r.w.produce(tp(r.topic, 0), value)
	r.produced = append(r.produced, value)
	r.n.reached(tp(r.topic, 0), bridge.Offset(len(r.produced)), value)
	if _, err := r.w.MaxMessageBytes(r.t.Context(), r.topic); err != nil {
		r.failed = append(r.failed, err.Error())
	}
	n := 0
	if err := r.replayer.Replay(r.t.Context(), bridge.ReplayRange{TP: tp(r.topic, 0), From: 0, To: 1}, func(f bridge.Fetched) error {
		n += len(f.Records)
		return nil
	}); err != nil || n != 1 {
		r.failed = append(r.failed, fmt.Sprintf("replayed %d records: %v", n, err))
	}
}

// check checks what has to hold at the end, however busy the machine was.
func (r *sessionRig) check() {
	r.t.Helper()
	wantValues(r.t, r.k.Brokers(), r.topic, r.produced...)
	r.r.untilNext(tp(r.topic, 0), bridge.Offset(len(r.produced)))
	var got []string
	for _, rec := range r.r.records(tp(r.topic, 0)) {
		got = append(got, string(rec.Value))
	}
	if !slices.Equal(got, r.produced) {
		r.t.Errorf("read %q, want %q", got, r.produced)
	}
	r.n.committed(r.g, tp(r.topic, 0), bridge.Offset(len(r.produced)), r.produced[len(r.produced)-1])
	r.t.Logf("%s: %d authentications", r.mech.Name(), r.mech.starts.Load())
}
