package node

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is an ordinary member of a consumer group, which polls and commits as such members do.
func consumer(t *testing.T, k *aKafka, group, topic string) (records func() int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	n := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			f := cl.PollFetches(ctx)
			mu.Lock()
			n += f.NumRecords()
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		cl.Close()
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// An ordinary consumer that joins the cluster's group, before the nodes or after them, disturbs nobody: the
// group shows who reads and is not what reading depends on.
func TestStrangerInTheGroup(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		name := "after the nodes"
		if first {
			name = "before the nodes"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachKafka(t, func(t *testing.T, k *aKafka) {
				topic := k.topic(t, 4, nil)
				group := "stranger-" + topic
				if first {
					read := consumer(t, k, group, topic)
					produce(t, k, topic, 10, 20, "early")
					eventually(t, "the stranger to be a member", func() bool { return read() >= 20 })
				}
				c := startCluster(t, k, 3, topic, func(cfg *Config) { cfg.KafkaGroupID = group })
				c.waitIngested(topic) // the nodes begin where the stranger's last commit is, which may be before its last record
				all := watch(t, "/"+topic+"/*", -1, func(i int) string { return c.addr(i) })
				eventually(t, "what is cached", func() bool { return all.isLive() })
				start := all.count()
				produce(t, k, topic, 10, 100, "a")
				eventually(t, "the records", func() bool { return all.count() == start+100 })
				if !first {
					consumer(t, k, group, topic)
				}
				for range 5 {
					produce(t, k, topic, 10, 100, "b")
				}
				eventually(t, "the records beside the stranger", func() bool { return all.count() >= start+600 })
				if got := all.count(); got != start+600 {
					t.Errorf("%d records, want %d", got, start+600)
				}
				if problems := all.problemList(); len(problems) > 0 {
					t.Error(problems[0])
				}
				if all.subscriptions() != 1 {
					t.Error("the subscriber was disconnected")
				}
			})
		})
	}
}
