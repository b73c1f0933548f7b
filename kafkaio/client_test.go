package kafkaio

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

func TestClientConfig(t *testing.T) {
	for _, brokers := range [][]string{nil, {}, {"host"}, {":9092"}, {"host:"}, {"a:1", ""}} {
		if _, err := NewClient(Config{Brokers: brokers}); err == nil {
			t.Errorf("%q were taken", brokers)
		}
	}
}

func dialTest(t *testing.T, cfg Config) (*protocol.Conn, error) {
	t.Helper()
	noLeaks(t)
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = waitTimeout
	}
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	conn, err := c.DialAny(t.Context())
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func TestClientDial(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(3, "a"))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := closed.Addr().String()
	_ = closed.Close()
	conn, err := dialTest(t, Config{Brokers: append([]string{dead}, k.Brokers()...)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := RoundTrip(t.Context(), conn, &metadata.Request{TopicNames: []string{"a"}})
	if err != nil || len(m.(*metadata.Response).Topics[0].Partitions) != 3 {
		t.Fatalf("%+v (%v)", m, err)
	}
	if _, err := dialTest(t, Config{Brokers: []string{dead}}); err == nil || !strings.Contains(err.Error(), dead) {
		t.Errorf("error %v", err)
	}
}

func TestClientVersions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*kmsg.ApiVersionsResponseApiKey) (keep bool)
		want   string
	}{
		"too new": {func(k *kmsg.ApiVersionsResponseApiKey) bool {
			if k.ApiKey == int16(kmsg.ListOffsets) {
				k.MinVersion, k.MaxVersion = 90, 99
			}
			return true
		}, "no common version of ListOffsets: the broker has v90 to v99"},
		"missing": {func(k *kmsg.ApiVersionsResponseApiKey) bool {
			return k.ApiKey != int16(kmsg.InitProducerID)
		}, "does not support InitProducerId"},
	} {
		t.Run(name, func(t *testing.T) {
			k := kafkatest.Fake(t)
			k.ControlKey(int16(kmsg.ApiVersions), func(req kmsg.Request) (kmsg.Response, error, bool) {
				res := req.ResponseKind().(*kmsg.ApiVersionsResponse)
				for key := range kmsg.MaxKey {
					if r := kmsg.RequestForKey(int16(key)); r != nil {
						a := kmsg.ApiVersionsResponseApiKey{ApiKey: int16(key), MaxVersion: r.MaxVersion()}
						if c.change(&a) {
							res.ApiKeys = append(res.ApiKeys, a)
						}
					}
				}
				return res, nil, true
			})
			_, err := dialTest(t, Config{Brokers: k.Brokers()})
			var ve *VersionError
			if !errors.As(err, &ve) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The guard sees every frame wherever the stream is cut, and refuses what cannot be one.
func TestFrameGuard(t *testing.T) {
	good := []byte{0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 9}
	for _, c := range []struct {
		bytes []byte
		ok    bool
	}{
		{good, true},
		{append(slices.Clone(good), "HTTP"...), false},
		{append(slices.Clone(good), 0xff, 0xff, 0xff, 0xff), false},
		{append(slices.Clone(good), 0x15, 3, 3, 0), false},
	} {
		for i := range c.bytes {
			var g frameGuard
			err := g.check(c.bytes[:i])
			if err == nil {
				err = g.check(c.bytes[i:])
			}
			if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrNotKafka) {
				t.Errorf("%x cut at %d: %v", c.bytes, i, err)
			}
		}
	}
}

// A peer that is no Kafka, hangs or breaks off: an error within the time allowed, and no panic.
func TestClientStrangePeers(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"silent":    func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
		"closing":   func(c net.Conn) { _ = c.Close() },
		"http":      func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
		"negative":  func(c net.Conn) { _, _ = c.Write([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1}) },
		"bad array": func(c net.Conn) { _, _ = c.Write([]byte{0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0x80, 0, 0, 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					defer c.Close()
					serve(c)
				}
			}()
			defer func() { _ = l.Close(); <-done }()
			begin := time.Now()
			if _, err := dialTest(t, Config{Brokers: []string{l.Addr().String()}, DialTimeout: 200 * time.Millisecond}); err == nil {
				t.Error("connected")
			}
			if d := time.Since(begin); d > waitTimeout { // a wait without end, or for minutes
				t.Errorf("took %v", d)
			}
		})
	}
}

func TestRoundTripEndsWithItsContext(t *testing.T) {
	k := kafkatest.Fake(t)
	conn, err := dialTest(t, Config{Brokers: k.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	k.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		k.SleepControl(func() { <-ctx.Done() })
		return nil, errors.New("cut"), true
	})
	if _, err := RoundTrip(ctx, conn, &metadata.Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestClientSASL(t *testing.T) {
	k := kafkatest.Fake(t, kfake.EnableSASL(), kfake.Superuser("PLAIN", "ann", "pw"),
		kfake.Superuser("SCRAM-SHA-256", "bob", "pw"), kfake.Superuser("SCRAM-SHA-512", "cid", "pw"))
	for mech, user := range map[string]string{"PLAIN": "ann", "SCRAM-SHA-256": "bob", "SCRAM-SHA-512": "cid"} {
		for _, password := range []string{"pw", "guess"} {
			_, m, err := Security{Mechanism: mech, Username: user, Password: secret.Of(password)}.Build()
			if err != nil {
				t.Fatal(err)
			}
			_, err = dialTest(t, Config{Brokers: k.Brokers(), SASL: m})
			var auth *AuthError
			switch {
			case password == "pw" && err != nil:
				t.Errorf("%s: %v", mech, err)
			case password != "pw" && (!errors.As(err, &auth) || auth.User != user || auth.Mechanism != mech):
				t.Errorf("%s with a wrong password: %v", mech, err)
			case err != nil && strings.Contains(err.Error(), password):
				t.Errorf("the error tells the password: %v", err)
			}
		}
	}
}

// kafka-go's own client works over our transport.
func TestClientTransport(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(3, "a"))
	c, err := NewClient(Config{Brokers: k.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.KafkaClient().Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"a"}})
	if err != nil || len(res.Brokers) != 1 {
		t.Errorf("%+v (%v)", res, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.DialAny(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v", err)
	}
}

// Warm opens a connection to the leader before the first record, and to the next leader as well.
func TestProducerWarm(t *testing.T) {
	k := kafkatest.Fake(t, kfake.SeedTopics(1, "a"), kfake.NumBrokers(2))
	w := newWriter(t, Config{Brokers: k.Brokers()}, "a")
	warm := func(addr string) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		b := w.brokers[addr]
		return b != nil && len(b.idle) == 1
	}
	for range 2 {
		addr, _, ok := w.topics.Leader(tp("a", 0))
		if !ok {
			t.Fatal("no leader")
		}
		w.Warm([]bridge.TopicPartition{tp("a", 0)})
		waitFor(t, "a connection to the leader", func() bool { return warm(addr) })
		if err := k.MoveTopicPartition("a", 0, 1-k.LeaderFor("a", 0)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the new leader", func() bool {
			_ = w.topics.Refresh(t.Context())
			now, _, _ := w.topics.Leader(tp("a", 0))
			return now != addr
		})
	}
}
