package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// What happens in Kafka while a cluster reads it.

func produce(t *testing.T, k *aKafka, topic string, keys, n int, tag string) {
	t.Helper()
	p := kafkatest.NewProducer(t, k.brokers)
	var records []*kafkatest.Record
	for i := range n {
		records = append(records, &kafkatest.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i%keys), Value: fmt.Appendf(nil, "%s-%d", tag, i)})
	}
	p.Produce(records...)
}

// kafka-consumer-groups shows the nodes as members, each with the partitions that it coordinates, and
// how far behind they are.
func TestConsumerGroupShowsMembersPartitionsAndLag(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 6, nil)
		c := startCluster(t, k, 3, topic, nil)
		produce(t, k, topic, 20, 300, "v")
		var text string
		eventually(t, "the group to show what the cluster does", func() bool {
			text = k.real.ConsumerGroupsDescribe(c.group)
			return describes(text, topic, c)
		})
		t.Log("\n" + text)
	})
}

// describes says whether the tool's table has all partitions, without lag, each with the member of the
// node that coordinates it.
func describes(text, topic string, c *aCluster) bool {
	rows := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 9 || f[1] != topic {
			continue
		}
		var partition int32
		if _, err := fmt.Sscan(f[2], &partition); err != nil || f[5] != "0" {
			return false
		}
		node, _ := c.nodes[0].node.bridge.Coordinator(bridge.TopicPartition{Topic: topic, Partition: partition})
		if !strings.Contains(f[6]+f[8], string(node)) {
			return false
		}
		rows++
	}
	return rows == 6
}

// New topics that match and partitions that are added are picked up, from their first record.
func TestNewTopicsAndPartitions(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 2, nil)
		c := startCluster(t, k, 3, "/^"+topic+".*/", nil)
		w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(0) })
		produce(t, k, topic, 10, 50, "before")
		k.real.AddPartitions(topic, 5)
		produce(t, k, topic, 30, 200, "after")
		all, n := expected(t, k, topic, nil)
		compare(t, w, all, n)

		later := topic + "-later"
		k.create(t, later, 2, nil)
		produce(t, k, later, 5, 40, "early")
		lw := watchWhenThere(t, "/"+later+"/*", -1, c.addr(1))
		all, n = expected(t, k, later, nil)
		compare(t, lw, all, n)
	})
}

// watchWhenThere subscribes to a topic that the cluster may not know yet.
func watchWhenThere(t *testing.T, subject string, history int, addr string) *watcher {
	t.Helper()
	eventually(t, subject+" to be exposed", func() bool {
		c, err := dialWire(t.Context(), addr)
		if err != nil {
			return false
		}
		defer c.close()
		f, err := c.ask(t.Context(), 1, map[string]any{"op": "sub", "subject": subject})
		return err == nil && f.Op == "subbed"
	})
	return watch(t, subject, history, func(int) string { return addr })
}

// A topic that is deleted and created again goes on in a new epoch, and subscribers are told of the gap
// or that the topic went.
func TestTopicCreatedAgain(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 1, nil)
		c := startCluster(t, k, 3, topic, nil)
		w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(0) })
		produce(t, k, topic, 3, 100, "old")
		eventually(t, "the old records", func() bool { return w.count() == 100 })
		c.waitIngested(topic)
		w.stop()
		k.real.DeleteTopic(topic)
		k.create(t, topic, 1, nil)
		produce(t, k, topic, 3, 30, "new")
		var nw *watcher
		eventually(t, "the new topic", func() bool {
			for _, p := range c.nodes[1].node.bridge.PartitionStatuses() {
				if p.Topic == topic && p.Epoch > 1 && p.Next == 30 { // of the old one, 100
					return true
				}
			}
			return false
		})
		nw = watch(t, "/"+topic+"/*", -1, func(int) string { return c.addr(1) })
		// The node still has the old ones, which nobody can take back; then comes the gap.
		eventually(t, "the new records", func() bool { return nw.count() >= 130 })
		records, _ := nw.snapshot()
		list := records[0]
		for i, r := range list[len(list)-30:] {
			if want := fmt.Sprintf("new-%d", i); r.text != want || r.pos.Epoch < 2 {
				t.Fatalf("record %d is %q in epoch %d, want %q in a new epoch", i, r.text, r.pos.Epoch, want)
			}
		}
	})
}

// A subscriber whose records Kafka has deleted is told which are lost, exactly.
func TestRecordsDeletedUnderAResumingClient(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 1, nil)
		c := startCluster(t, k, 3, topic, func(cfg *Config) { cfg.CacheBytes = 1 << 20; cfg.CacheTTL = time.Second })
		g := newGate()
		w := watch(t, "/"+topic+"/*", 0, func(i int) string { g.wait(); return c.addr(i) })
		t.Cleanup(g.open)
		whole := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(2) })
		produce(t, k, topic, 3, 100, "a")
		eventually(t, "the first records", func() bool { return w.count() == 100 })
		g.shut()
		w.cut()
		produce(t, k, topic, 3, 100, "b")
		c.waitIngested(topic)
		eventually(t, "the positions of the others", func() bool { return whole.count() == 200 })
		k.real.DeleteRecords(topic, 0, 150)
		eventually(t, "the caches to forget", func() bool {
			for _, a := range c.nodes {
				if l, ok := a.node.store.Lookup(topic, 0); ok && !forgot(l, "b-49") { // the last that is deleted
					return false
				}
			}
			return true
		})
		g.open()
		eventually(t, "the rest", func() bool { return w.count() >= 150 })
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.gaps) != 1 || w.gaps[0].Gap != "evicted" || len(w.gaps[0].Lost) != 1 {
			t.Fatalf("told of %+v, want one loss by eviction", w.gaps)
		}
		records, _ := whole.snapshot()
		from, to := records[0][100].pos, records[0][149].pos
		if got, want := string(w.gaps[0].Lost[0]), fmt.Sprintf(`{"partition":0,"from":[%d,%d],"to":[%d,%d]}`, from.Epoch, from.Seqno, to.Epoch, to.Seqno); got != want {
			t.Errorf("lost %s, want %s", got, want)
		}
		if got := w.records[100].text; got != "b-50" {
			t.Errorf("it goes on with %q, want b-50", got)
		}
		if len(w.records) != 150 {
			t.Errorf("%d records, want 150", len(w.records))
		}
	})
}

// A broker that is restarted holds the records up and loses none.
func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		k := &aKafka{brokers: cluster.Brokers(), real: cluster}
		topic := k.topic(t, 3, nil)
		c := startCluster(t, k, 3, topic, nil)
		w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(2) })
		produce(t, k, topic, 9, 300, "before")
		cluster.StopBroker(0)
		cluster.StartBroker(0)
		produce(t, k, topic, 9, 300, "after")
		all, n := expected(t, k, topic, nil)
		compare(t, w, all, n)
		if w.subscriptions() != 1 {
			t.Error("the subscriber was disconnected")
		}
	})
}

// The whole path over TLS and SASL.
func TestWholePathOverTLSAndSASL(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version, SASL: true})
		for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			t.Run(mechanism, func(t *testing.T) {
				k := &aKafka{brokers: cluster.SASLBrokers(), security: kafkaio.Security{
					TLS: true, CA: cluster.CAFile, Mechanism: mechanism, Username: cluster.Username, Password: secret.Of(cluster.Password),
				}}
				plain := &aKafka{brokers: cluster.Brokers(), real: cluster}
				topic := kafkatest.Topic(t)
				plain.create(t, topic, 3, nil)
				c := startCluster(t, k, 3, topic, openForPublishing(t, topic))
				w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(0) })
				produce(t, plain, topic, 5, 50, "v")
				if _, err := publishAll(t.Context(), c.addr(1), topic, "tls", 20, 8); err != nil {
					t.Fatal(err)
				}
				all, n := expected(t, plain, topic, nil)
				compare(t, w, all, n)
			})
		}
	})
}
