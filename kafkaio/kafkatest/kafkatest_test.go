package kafkatest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// values returns the values of records, for comparing.
func values(records []Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// rec is a record with a key, a value and a timestamp that does not matter.
func rec(topic, key, value string) *Record {
	return &Record{Topic: topic, Key: []byte(key), Value: []byte(value)}
}

// TestOldRecordsStay has a record of long ago outlive the broker's looks at what is too old, of which a topic that says how old
// records may be shows that one has been taken.
func TestOldRecordsStay(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Shared(t, version)
		ages, stays, goes := map[string]string{"retention.ms": "1000"}, Topic(t), Topic(t)
		c.CreateTopic(stays, 1, nil)
		c.CreateTopic(goes, 1, ages)
		p := NewProducer(t, c.Brokers())
		for _, topic := range []string{stays, goes} {
			r := rec(topic, "k", "old")
			r.Timestamp = time.UnixMilli(1_700_000_000_000)
			p.Produce(r)
		}
		deadline := time.Now().Add(time.Minute)
		for len(ReadCommitted(t, c.Brokers(), goes)) > 0 {
			if time.Now().After(deadline) {
				t.Fatal("the broker has not looked for old records for a minute")
			}
			time.Sleep(100 * time.Millisecond)
		}
		equal(t, "old records", values(ReadCommitted(t, c.Brokers(), stays)), []string{"old"})
	})
}

// TestTopics makes, grows, trims and deletes a topic, with real records in it.
func TestTopics(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Shared(t, version)
		topic := Topic(t)
		c.CreateTopic(topic, 1, nil)
		p := NewProducer(t, c.Brokers())
		p.Produce(rec(topic, "k", "a"), rec(topic, "k", "b"), rec(topic, "k", "c"))
		equal(t, "read", values(ReadCommitted(t, c.Brokers(), topic)), []string{"a", "b", "c"})

		c.DeleteRecords(topic, 0, 2)
		equal(t, "after DeleteRecords", values(ReadCommitted(t, c.Brokers(), topic)), []string{"c"})
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(t.Context(), clientTimeout)
		defer cancel()
		late, err := readPartition(ctx, cl, topic, 0, 0, 3) // as when they are deleted while it reads
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "from what is deleted on", values(late), []string{"c"})
		c.AddPartitions(topic, 3)
		m := NewManualProducer(t, c.Brokers())
		m.Produce(&Record{Topic: topic, Partition: 2, Value: []byte("d")})
		equal(t, "after AddPartitions", values(ReadCommitted(t, c.Brokers(), topic)), []string{"c", "d"})
		c.DeleteTopic(topic)
		if _, err := readCommitted(context.Background(), c.Brokers(), topic, nil); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Fatalf("read a deleted topic: %v", err)
		}
		c.CreateTopic(topic, 1, nil)
		equal(t, "made anew", values(ReadCommitted(t, c.Brokers(), topic)), nil)
	})
}

// TestReadCommitted has the reference reader leave out what was aborted, also at
// the end of the log, where a consumer would wait for ever.
func TestReadCommitted(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Shared(t, version)
		topic := Topic(t)
		c.CreateTopic(topic, 1, nil)
		tx := NewTransactionalProducer(t, c.Brokers(), topic)
		NewProducer(t, c.Brokers()).Produce(rec(topic, "k", "plain"))
		tx.Abort(rec(topic, "k", "aborted 1"))
		tx.Commit(rec(topic, "k", "committed"))
		tx.Abort(rec(topic, "k", "aborted 2"))
		got := ReadCommitted(t, c.Brokers(), topic)
		equal(t, "committed", values(got), []string{"plain", "committed"})
		// plain 0, aborted 1 and its marker 1-2, committed 3.
		if got[1].Offset != 3 {
			t.Fatalf("the committed record is at %d, want 3", got[1].Offset)
		}
	})
}

// TestCompaction shows that a compacted topic gets holes within a test's patience
// and that the reference reader walks over them.
func TestCompaction(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Shared(t, version)
		topic := Topic(t)
		c.CreateTopic(topic, 1, map[string]string{
			"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01",
			"segment.ms": "100", "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "100",
		})
		p := NewProducer(t, c.Brokers())
		p.Produce(rec(topic, "k", "1"))
		p.Produce(rec(topic, "k", "2"))
		ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
		defer cancel()
		err := poll(ctx, func() error {
			// A record rolls the segment, which only then may be compacted.
			p.Produce(rec(topic, "k", "n"))
			got := ReadCommitted(t, c.Brokers(), topic)
			if got[0].Offset == 0 {
				return errors.New("offset 0 is still there")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// TestRestart stops, kills and starts the only broker: ports and records stay.
func TestRestart(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Start(t, Options{Version: version, Config: map[string]string{"message.max.bytes": "2000"}})
		topic := Topic(t)
		c.CreateTopic(topic, 1, nil)
		p := NewProducer(t, c.Brokers())
		p.Produce(rec(topic, "k", "a"))
		brokers := c.Brokers()
		c.StopBroker(0)
		c.StartBroker(0)
		p.Produce(rec(topic, "k", "b"))
		c.KillBroker(0)
		begin := time.Now()
		c.StartBroker(0)
		t.Logf("back after a kill in %v", time.Since(begin).Round(time.Millisecond))
		p.Produce(rec(topic, "k", "c"))
		equal(t, "brokers", c.Brokers(), brokers)
		equal(t, "records", values(ReadCommitted(t, c.Brokers(), topic)), []string{"a", "b", "c"})
		// Config reaches the broker.
		raw := NewProducer(t, c.Brokers(), kgo.ProducerBatchCompression(kgo.NoCompression()))
		err := raw.Client.ProduceSync(context.Background(), rec(topic, "k", strings.Repeat("x", 4000))).FirstErr()
		if !errors.Is(err, kerr.MessageTooLarge) {
			t.Fatalf("a record over message.max.bytes: %v", err)
		}
	})
}

// TestThreeBrokers kills the leader of a partition and goes on with another.
func TestThreeBrokers(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Start(t, Options{Version: version, Brokers: 3})
		topic := Topic(t)
		c.CreateTopic(topic, 1, nil)
		p := NewProducer(t, c.Brokers())
		p.Produce(rec(topic, "k", "a"))
		leader := c.Leader(topic, 0)
		c.KillBroker(leader)
		begin := time.Now()
		p.Produce(rec(topic, "k", "b"))
		t.Logf("next record acknowledged %v after the leader's death", time.Since(begin).Round(time.Millisecond))
		if now := c.Leader(topic, 0); now == leader {
			t.Fatalf("broker %d leads still", now)
		}
		begin = time.Now()
		c.StartBroker(leader)
		t.Logf("killed broker back after %v", time.Since(begin).Round(time.Millisecond))
		equal(t, "records", values(ReadCommitted(t, c.Brokers(), topic)), []string{"a", "b"})
	})
}

// TestSASL logs in by each mechanism over TLS, is refused with a wrong password
// and without the authority's certificate, and uses a client certificate.
func TestSASL(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Start(t, Options{Version: version, SASL: true})
		ca, err := os.ReadFile(c.CAFile)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			t.Fatal("no certificate in CAFile")
		}
		trusting := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		mechanisms := func(password string) map[string]sasl.Mechanism {
			s := scram.Auth{User: c.Username, Pass: password}
			return map[string]sasl.Mechanism{
				"PLAIN":         plain.Auth{User: c.Username, Pass: password}.AsMechanism(),
				"SCRAM-SHA-256": s.AsSha256Mechanism(),
				"SCRAM-SHA-512": s.AsSha512Mechanism(),
			}
		}
		for name, m := range mechanisms(c.Password) {
			if err := ask(t, kgo.SeedBrokers(c.SASLBrokers()...), kgo.DialTLSConfig(trusting), kgo.SASL(m)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for name, m := range mechanisms("wrong") {
			if err := ask(t, kgo.SeedBrokers(c.SASLBrokers()...), kgo.DialTLSConfig(trusting), kgo.SASL(m)); !errors.Is(err, kerr.SaslAuthenticationFailed) {
				t.Errorf("%s with a wrong password: %v", name, err)
			}
		}
		var unknown x509.UnknownAuthorityError
		stranger := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		if err := ask(t, kgo.SeedBrokers(c.SASLBrokers()...), kgo.DialTLSConfig(stranger)); !errors.As(err, &unknown) {
			t.Errorf("without the authority: %v", err)
		}

		pair, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientKeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(t, kgo.SeedBrokers(c.TLSBrokers()...), kgo.DialTLSConfig(trusting)); err == nil {
			t.Error("TLSBrokers took a client without certificate")
		}
		mutual := trusting.Clone()
		mutual.Certificates = []tls.Certificate{pair}
		if err := ask(t, kgo.SeedBrokers(c.TLSBrokers()...), kgo.DialTLSConfig(mutual)); err != nil {
			t.Errorf("with a client certificate: %v", err)
		}
	})
}

// ask connects to the first seed broker with opts and asks for metadata, once.
func ask(t *testing.T, opts ...kgo.Opt) error {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	_, err = cl.SeedBrokers()[0].Request(ctx, kmsg.NewPtrMetadataRequest())
	return err
}

// TestConsumerGroupsDescribe has Kafka's own tool show a group's position.
func TestConsumerGroupsDescribe(t *testing.T) {
	t.Parallel()
	EachVersion(t, func(t *testing.T, version string) {
		t.Parallel()
		c := Shared(t, version)
		topic, group := Topic(t), Topic(t)
		c.CreateTopic(topic, 1, nil)
		NewProducer(t, c.Brokers()).Produce(rec(topic, "k", "a"), rec(topic, "k", "b"), rec(topic, "k", "c"))
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...), kgo.ConsumerGroup(group),
			kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.ClientID("reader-7"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
		defer cancel()
		fetches := cl.PollRecords(ctx, 2)
		if err := cl.CommitRecords(ctx, fetches.Records()...); err != nil {
			t.Fatal(err)
		}
		out := c.ConsumerGroupsDescribe(group)
		want := fmt.Sprintf("%s %s 0 2 3 1 ", group, topic) // group, topic, partition, offset, end, lag
		if line := strings.Join(strings.Fields(out), " "); !strings.Contains(line, want) || !strings.Contains(line, "reader-7") {
			t.Fatalf("want %q and reader-7 in:\n%s", want, out)
		}
		if _, err := c.Tool("org.apache.kafka.tools.TopicCommand", "--no-such-flag"); err == nil {
			t.Fatal("a tool that failed gave no error")
		}
	})
}

// TestFake shows that the reference clients work with kfake as with Kafka.
func TestFake(t *testing.T) {
	c := Fake(t, kfake.SeedTopics(3, "seeded"))
	tx := NewTransactionalProducer(t, c.Brokers(), "tx")
	tx.Commit(rec("seeded", "k", "a"))
	tx.Abort(rec("seeded", "k", "b"))
	equal(t, "records", values(ReadCommitted(t, c.Brokers(), "seeded")), []string{"a"})
}

// TestVersions reads the environment.
func TestVersions(t *testing.T) {
	t.Setenv(envBrokers, "")
	t.Setenv(envVersions, "")
	equal(t, "default", Versions(), []string{"3.9", "4"})
	t.Setenv(envVersions, "4")
	equal(t, "narrowed", Versions(), []string{"4"})
	t.Setenv(envBrokers, "h:1, g:2")
	equal(t, "external", Versions(), []string{External})
	c := Shared(t, External)
	equal(t, "external brokers", c.Brokers(), []string{"h:1", "g:2"})
}

// TestExternalSkips has the methods that need a Kafka of our own skip where there
// is only somebody else's, and "off" skip everything.
func TestExternalSkips(t *testing.T) {
	skips := func(name string, f func(t *testing.T)) {
		t.Helper()
		var inner *testing.T
		t.Run(name, func(t *testing.T) { inner = t; f(t) })
		if !inner.Skipped() {
			t.Errorf("%s did not skip", name)
		}
	}
	t.Setenv(envBrokers, "127.0.0.1:1")
	skips("stop", func(t *testing.T) { Start(t, Options{}).StopBroker(0) })
	skips("sasl", func(t *testing.T) { Start(t, Options{SASL: true}) })
	skips("three", func(t *testing.T) { Start(t, Options{Brokers: 3}) })
	t.Setenv(envMode, "off")
	skips("off", func(t *testing.T) { Shared(t, "4") })
	t.Setenv(envMode, "")
	t.Setenv(envBrokers, "")
	t.Setenv("PATH", t.TempDir()) // neither java nor docker
	skips("nothing there", func(t *testing.T) { Start(t, Options{Version: "4.0.1"}) })
}

// TestLogTail keeps what matters of a broker's log: warnings and the end.
func TestLogTail(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("12:00:00 [main] WARN early\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "12:00:01 [main] INFO line %d\n", i)
	}
	file := t.TempDir() + "/log"
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tail := logTail(file)
	if !strings.Contains(tail, "early") || !strings.HasSuffix(tail, "line 999") || strings.Contains(tail, "line 500\n") {
		t.Fatalf("got %q", tail)
	}
}
