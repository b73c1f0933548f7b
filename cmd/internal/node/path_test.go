package node

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// One record, every node: the thin path through all layers.
func TestRecordReachesSubscribersOnEveryNode(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 4, nil)
		c := startCluster(t, k, 3, topic, nil)
		var watchers []*watcher
		for i := range c.nodes {
			watchers = append(watchers,
				watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(i) }),
				watch(t, "/"+topic+"/EURUSD", 0, func(int) string { return c.addr(i) }))
		}
		p := kafkatest.NewProducer(t, k.brokers)
		for i := range 20 {
			p.Produce(&kafkatest.Record{Topic: topic, Key: []byte([]string{"EURUSD", "USDJPY"}[i%2]), Value: fmt.Appendf(nil, `{"n":%d}`, i)})
		}
		all, n := expected(t, k, topic, nil)
		one, m := expected(t, k, topic, func(r kafkatest.Record) bool { return string(r.Key) == "EURUSD" })
		for i, w := range watchers {
			if i%2 == 0 {
				compare(t, w, all, n)
			} else {
				compare(t, w, one, m)
			}
		}
		samePositions(t, watchers...)
	})
}

// load writes records of keys to a topic with a plain producer and a transactional one of which every
// fourth transaction is aborted, and marks each value so that it occurs once.
func load(t *testing.T, k *aKafka, topic string, records, keys int) {
	t.Helper()
	plain := kafkatest.NewProducer(t, k.brokers)
	trans := kafkatest.NewTransactionalProducer(t, k.brokers, "load-"+topic)
	rng := rand.New(rand.NewPCG(1, 2))
	const run = 500
	for i, round := 0, 0; i < records; round++ {
		batch := make([]*kafkatest.Record, 0, run)
		for ; len(batch) < run && i < records; i++ {
			batch = append(batch, &kafkatest.Record{
				Topic:   topic,
				Key:     fmt.Appendf(nil, "key-%d", rng.IntN(keys)),
				Value:   fmt.Appendf(nil, `{"n":%d,"round":%d}`, i, round),
				Headers: nil,
			})
		}
		switch round % 4 {
		case 0, 1:
			plain.Produce(batch...)
		case 2:
			trans.Commit(batch...)
		case 3:
			trans.Abort(batch...)
		}
	}
}

// What a read_committed consumer sees is what pattern and key subscribers on all three nodes get, in
// order and with equal positions: 100,000 records over 12 partitions and 1,000 keys from a plain
// producer and one with transactions, some aborted, and a compacted topic beside it.
func TestSubscribersSeeWhatAReadCommittedConsumerSees(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		const keys = 1000
		records := 100_000
		if raceEnabled {
			records = 20_000
		}
		topic := k.topic(t, 12, nil)
		compacted := topic + "-compacted"
		k.create(t, compacted, 3, map[string]string{
			"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100",
		})
		c := startCluster(t, k, 3, topic+","+compacted, nil)
		var patterns, ofKeys, ofCompacted []*watcher
		for i := range c.nodes {
			node := func(int) string { return c.addr(i) }
			patterns = append(patterns, watch(t, "/"+topic+"/*", 0, node))
			for j := range 20 {
				ofKeys = append(ofKeys, watch(t, fmt.Sprintf("/%s/key-%d", topic, 7*i+j), 0, node))
			}
			ofCompacted = append(ofCompacted, watch(t, "/"+compacted+"/*", 0, node))
		}
		// A value is overtaken when all have it, and not before: the broker may compact it away, twice a second, and who reads later
		// than that never sees it.
		small := kafkatest.NewProducer(t, k.brokers)
		for i := range 600 {
			small.Produce(&kafkatest.Record{Topic: compacted, Key: fmt.Appendf(nil, "c%d", i%10), Value: fmt.Appendf(nil, "v%d", i)})
			for _, w := range ofCompacted {
				eventually(t, "the compacted topic", func() bool { return i%10 < 9 || w.count() == i+1 })
			}
		}
		load(t, k, topic, records, keys)
		all, n := expected(t, k, topic, nil)
		if n < records/2 {
			t.Fatalf("only %d records in Kafka", n)
		}
		for _, w := range patterns {
			compare(t, w, all, n)
		}
		keyed := byKey(t, k, topic)
		for _, w := range ofKeys {
			one := keyed[w.subject[strings.LastIndexByte(w.subject, '/')+1:]]
			compare(t, w, one, one.size())
		}
		samePositions(t, append(patterns, ofKeys...)...)
		for _, w := range ofCompacted {
			if problems := w.problemList(); w.count() != 600 || len(problems) > 0 {
				t.Errorf("%s: %d records of 600, %v", w.subject, w.count(), problems)
			}
		}
		samePositions(t, ofCompacted...)
	})
}

// byKey sorts what a read_committed consumer sees of a topic by key.
func byKey(t *testing.T, k *aKafka, topic string) map[string]want {
	t.Helper()
	keys := map[string]want{}
	for _, r := range kafkatest.ReadCommitted(t, k.brokers, topic) {
		w := keys[string(r.Key)]
		if w == nil {
			w = want{}
			keys[string(r.Key)] = w
		}
		w[r.Partition] = append(w[r.Partition], string(r.Value))
	}
	return keys
}

// size is the number of records that are wanted.
func (w want) size() (n int) {
	for _, values := range w {
		n += len(values)
	}
	return n
}
