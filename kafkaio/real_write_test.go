package kafkaio

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// The writing side against real Kafka.

func TestRealProduce(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Shared(t, version)
		topic, compacted, stamped := kafkatest.Topic(t), kafkatest.Topic(t), kafkatest.Topic(t)
		k.CreateTopic(topic, 2, map[string]string{"max.message.bytes": "10000"})
		k.CreateTopic(compacted, 1, map[string]string{"cleanup.policy": "compact"})
		k.CreateTopic(stamped, 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
		w := newWriter(t, Config{Brokers: k.Brokers()}, strings.Join([]string{topic, compacted, stamped}, ","))
		tooLarge(t, w, k.Brokers(), topic)

		in := bridge.Record{
			Timestamp: 1700000000000, Key: []byte("k"), Value: nil,
			Headers: []bridge.Header{{Key: "mid", Value: []byte("m")}, {Key: "null"}},
		}
		got, err := w.Produce(t.Context(), tp(topic, 1), in)
		if err != nil || got != (bridge.Produced{Offset: 0, Timestamp: 1700000000000}) {
			t.Errorf("%+v (%v)", got, err)
		}
		for _, r := range kafkatest.ReadCommitted(t, k.Brokers(), topic) {
			if r.Partition == 1 && (string(r.Key) != "k" || r.Value != nil || len(r.Headers) != 2 ||
				string(r.Headers[0].Value) != "m" || r.Headers[1].Value != nil || r.Timestamp.UnixMilli() != 1700000000000) {
				t.Errorf("Kafka has %+v", r)
			}
		}

		var rej *bridge.RejectedError
		var wg sync.WaitGroup
		for i := range 20 { // a null key among them, which a compacted topic refuses
			wg.Go(func() {
				r := bridge.Record{Key: []byte("k"), Value: []byte("v")}
				if i == 7 {
					r.Key = nil
				}
				_, err := w.Produce(t.Context(), tp(compacted, 0), r)
				if i == 7 && (!errors.As(err, &rej) || rej.TooLarge) || i != 7 && err != nil {
					t.Errorf("record %d: %v", i, err)
				}
			})
		}
		wg.Wait()

		begin := time.Now().UnixMilli()
		for range 3 { // the answer to a batch that had to be sent again has no append time
			got, err = w.Produce(t.Context(), tp(stamped, 0), in)
			if err != nil || got.Timestamp != in.Timestamp {
				break
			}
		}
		if err != nil || got.Timestamp < begin-1000 {
			t.Errorf("append time of %+v (%v)", got, err)
		}

		begin = time.Now().UnixMilli()
		if _, err := w.try(tp(kafkatest.Topic(t), 0), "no such topic", 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("unknown topic: %v", err)
		}
		if d := time.Now().UnixMilli() - begin; d > waitTimeout.Milliseconds() {
			t.Errorf("returned after %d ms", d)
		}
	})
}

// stream produces numbered records to the partitions of a topic until stop is called, each again and
// again until it is acknowledged, and then checks that Kafka has each once, in order, where it was said
// to be. A record given up by one call is not tried again: its fate is unknown, so it may be missing.
type stream struct {
	w       *writer
	topic   string
	stopC   chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	acked   map[string]bridge.Offset
	longest time.Duration
}

func (w *writer) stream(topic string, partitions int32) *stream {
	s := &stream{w: w, topic: topic, stopC: make(chan struct{}), acked: map[string]bridge.Offset{}}
	for p := range partitions {
		s.wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-s.stopC:
					return
				default:
				}
				v := fmt.Sprintf("%d-%06d", p, i)
				begin := time.Now()
				got, err := w.try(tp(topic, p), v, waitTimeout)
				if err != nil {
					w.t.Errorf("produce %s: %v", v, err)
					return
				}
				s.mu.Lock()
				s.acked[v] = got.Offset
				s.longest = max(s.longest, time.Since(begin))
				s.mu.Unlock()
			}
		})
	}
	return s
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.acked)
}

// more waits until the stream has moved on by n records.
func (s *stream) more(n int) {
	s.w.t.Helper()
	begin := s.count()
	deadline := time.Now().Add(waitTimeout)
	for s.count() < begin+n {
		if time.Now().After(deadline) {
			s.w.t.Fatalf("%d records in %v", s.count()-begin, waitTimeout)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *stream) check(brokers []string) {
	s.w.t.Helper()
	close(s.stopC)
	s.wg.Wait()
	last := map[int32]string{}
	n := 0
	for _, r := range kafkatest.ReadCommitted(s.w.t, brokers, s.topic) {
		v := string(r.Value)
		if v <= last[r.Partition] {
			s.w.t.Fatalf("partition %d has %s after %s", r.Partition, v, last[r.Partition])
		}
		last[r.Partition] = v
		if at, ok := s.acked[v]; !ok || int64(at) != r.Offset {
			s.w.t.Fatalf("%s is at %d, Produce said %d (%v)", v, r.Offset, at, ok)
		}
		n++
	}
	if n != len(s.acked) {
		s.w.t.Fatalf("Kafka has %d records, %d were acknowledged", n, len(s.acked))
	}
	s.w.t.Logf("%d records, the slowest took %v", n, s.longest.Round(time.Millisecond))
}

// One broker that is stopped in order, killed, and comes back, while records are written: nothing is
// lost, nothing doubled, and no caller sees an error.
func TestRealProduceThroughRestarts(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Start(t, kafkatest.Options{Version: version})
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 3, nil)
		w := newWriter(t, Config{Brokers: k.Brokers()}, topic)
		s := w.stream(topic, 3)
		s.more(100)
		k.StopBroker(0)
		k.StartBroker(0)
		s.more(100)
		k.KillBroker(0)
		k.StartBroker(0)
		s.more(100)
		s.check(k.Brokers())
	})
}

// Three brokers: the leader of the partition is killed while records are written.
func TestRealProduceThroughFailover(t *testing.T) {
	k := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	topic := kafkatest.Topic(t)
	k.CreateTopic(topic, 3, nil)
	w := newWriter(t, Config{Brokers: k.Brokers()}, topic)
	s := w.stream(topic, 3)
	s.more(100)
	leader := k.Leader(topic, 0)
	k.KillBroker(leader)
	s.more(100)
	k.StartBroker(leader)
	s.more(100)
	s.check(k.Brokers())
}

func TestRealSecurity(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Start(t, kafkatest.Options{Version: version, SASL: true})
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 1, nil)
		login := func(mechanism, password string) Security {
			return Security{TLS: true, CA: k.CAFile, Mechanism: mechanism, Username: k.Username, Password: secret.Of(password)}
		}
		config := func(brokers []string, s Security) Config {
			tc, mech, err := s.Build()
			if err != nil {
				t.Fatal(err)
			}
			return Config{Brokers: brokers, TLS: tc, SASL: mech, DialTimeout: waitTimeout}
		}
		for _, m := range []string{MechanismPlain, MechanismScramSHA256, MechanismScramSHA512} {
			t.Run(m, func(t *testing.T) {
				cfg := config(k.SASLBrokers(), login(m, k.Password))
				w := newWriter(t, cfg, topic)
				w.produce(tp(topic, 0), m)
				n := newNodes(t, cfg, map[string]int32{topic: 1})
				n.coordinate("n1", tp(topic, 0))
				n.reached(tp(topic, 0), 1, m)
				g := n.join("n1")
				n.has(g, tp(topic, 0))
				n.committed(g, tp(topic, 0), 1, m)
			})
			t.Run(m+" wrong password", func(t *testing.T) {
				client, err := NewClient(config(k.SASLBrokers(), login(m, "guess")))
				if err != nil {
					t.Fatal(err)
				}
				_, err = client.DialAny(t.Context())
				var auth *AuthError
				if !errors.As(err, &auth) || auth.Mechanism != m || auth.User != k.Username {
					t.Fatalf("error %v", err)
				}
				if s := err.Error(); strings.Contains(s, "guess") || !strings.Contains(s, m) || !strings.Contains(s, k.Username) {
					t.Errorf("error %s", s)
				}
			})
		}
		t.Run("mutual TLS", func(t *testing.T) {
			w := newWriter(t, config(k.TLSBrokers(), Security{TLS: true, CA: k.CAFile, Cert: k.ClientCertFile, Key: k.ClientKeyFile}), topic)
			w.produce(tp(topic, 0), "mutual TLS")
		})
		for name, cfg := range map[string]Config{
			"no client certificate": config(k.TLSBrokers(), Security{TLS: true, CA: k.CAFile}),
			"unknown authority":     config(k.SASLBrokers(), Security{TLS: true}),
			"plaintext to TLS":      {Brokers: k.TLSBrokers()},
			"TLS to plaintext":      {Brokers: k.Brokers(), TLS: &tls.Config{MinVersion: tls.VersionTLS12}},
		} {
			t.Run(name, func(t *testing.T) {
				client, err := NewClient(cfg)
				if err != nil {
					t.Fatal(err)
				}
				conn, err := client.DialAny(t.Context())
				if err == nil {
					_ = conn.Close()
					t.Fatal("connected")
				}
				t.Log(err)
			})
		}
	})
}

func TestRealGroup(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 3, nil)
		groupFollowsTheCoordinators(t, k.Brokers(), topic)
	})
}

// Kafka's own tool shows members, partitions, offsets and lag.
func TestRealGroupDescribe(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 2, nil)
		w := newWriter(t, Config{Brokers: k.Brokers()}, topic)
		for i := range 10 {
			w.produce(tp(topic, int32(i%2)), "x")
		}
		n := newNodes(t, Config{Brokers: k.Brokers(), ClientID: "tidewire-n1"}, map[string]int32{topic: 2})
		n.coordinate("n1", tp(topic, 0), tp(topic, 1))
		n.reached(tp(topic, 0), 5, "e")
		n.reached(tp(topic, 1), 2, "e")
		g := n.join("n1")
		n.has(g, tp(topic, 0), tp(topic, 1))
		n.committed(g, tp(topic, 1), 2, "e")
		out := k.ConsumerGroupsDescribe(n.group)
		for _, want := range []string{`%s +0 +5 +5 +0 +tidewire-n1`, `%s +1 +2 +5 +3 +tidewire-n1`} {
			if !regexp.MustCompile(fmt.Sprintf(want, regexp.QuoteMeta(topic))).MatchString(out) {
				t.Errorf("no %s in\n%s", want, out)
			}
		}
	})
}

// A member that vanishes without leaving: after the session timeout the other one has its partitions.
func TestRealGroupMemberKilled(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		k.CreateTopic(topic, 2, nil)
		n := newNodes(t, Config{Brokers: k.Brokers()}, map[string]int32{topic: 2})
		n.coordinate("n1", tp(topic, 0))
		n.coordinate("n2", tp(topic, 1))
		n1, n2 := n.join("n1"), n.join("n2")
		n.has(n1, tp(topic, 0))
		n.has(n2, tp(topic, 1))
		n.coordinate("n1", tp(topic, 1))
		n2.kill()
		n.has(n1, tp(topic, 0), tp(topic, 1))
	})
}
