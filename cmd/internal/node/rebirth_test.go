package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A cluster whose disks are all gone takes its epochs up again from the metadata in the group's commits:
// clients go on where they were, without loss or repeat, also those that have what was given out after the
// last commit.
func TestEveryDiskLost(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		const partitions = 4
		topic := k.topic(t, partitions, nil)
		c := startCluster(t, k, 3, topic, nil)
		g := newGate()
		next := func(from int) func(int) string { return func(i int) string { g.wait(); return c.addr(from + i) } }
		all := watch(t, "/"+topic+"/*", 0, next(0))
		one := watch(t, "/"+topic+"/key-3", 0, next(1))
		t.Cleanup(g.open)
		cl := k.client(t, kgo.MaxVersions(kversion.V2_8_0())) // later ones name topics by id

		old, _ := c.commitsBehind(t, cl, topic, partitions, all, func(i int, half string) { produce(t, k, topic, 20, 100, half) })
		g.shut()
		for i := range c.nodes {
			c.stop(i)
		}
		storeCommits(t, cl, c.group, old)
		for _, a := range c.nodes {
			if err := os.RemoveAll(a.cfg.DataDir); err != nil {
				t.Fatal(err)
			}
		}
		produce(t, k, topic, 20, 100, "while dead")

		for i := range c.nodes {
			c.start(i)
		}
		c.waitReady()
		subs := []int{all.subscriptions(), one.subscriptions()}
		g.open()
		eventually(t, "both to resume", func() bool { return all.subscriptions() > subs[0] && one.subscriptions() > subs[1] })
		produce(t, k, topic, 20, 100, "reborn")
		checkCuts(t, k, topic, all, one)
		for _, e := range c.epochs(topic) {
			if e < 1000 {
				t.Errorf("epoch %d of the new life is not far from those of the old", e)
			}
		}
	})
}

// Publishes that were written before all disks were lost, some after the last commit, are repeated to the new
// cluster from its first moment on, while others have written more than a window has ids: each is answered as a
// duplicate, is once in Kafka and once with a subscriber.
func TestPublishesRepeatedAfterEveryDiskLost(t *testing.T) {
	eachKafka(t, func(t *testing.T, k *aKafka) {
		const partitions = 4
		topic := k.topic(t, partitions, nil)
		c := startCluster(t, k, 3, topic, openForPublishing(t, topic))
		g := newGate()
		w := watch(t, "/"+topic+"/*", 0, func(i int) string { g.wait(); return c.addr(i) })
		t.Cleanup(g.open)
		cl := k.client(t, kgo.MaxVersions(kversion.V2_8_0())) // later ones name topics by id
		publish := func(who string) map[int][]frame {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), waitTime)
			defer cancel()
			acks, err := publishAll(ctx, c.addr(0), topic, who, 100, 16)
			if err != nil {
				t.Fatal(err)
			}
			return acks
		}
		first := map[string]map[int][]frame{}
		old, sent := c.commitsBehind(t, cl, topic, partitions, w, func(i int, half string) {
			who := fmt.Sprint(half, i)
			first[who] = publish(who)
		})
		g.shut()
		for i := range c.nodes {
			c.stop(i)
		}
		storeCommits(t, cl, c.group, old) // as if they had been killed
		for _, a := range c.nodes {
			if err := os.RemoveAll(a.cfg.DataDir); err != nil {
				t.Fatal(err)
			}
		}
		produce(t, k, topic, 20, 2*1024*partitions, "while dead")
		for i := range c.nodes {
			c.start(i)
		}
		for who, acks := range first {
			for m, list := range acks {
				a := c.publishAgain(t, topic, who, m)
				if !a.Duplicate || a.Offset != list[0].Offset || a.Partition != list[0].Partition {
					t.Fatalf("%s %d was at %d of %d, and again: %+v", who, m, list[0].Offset, list[0].Partition, a)
				}
			}
		}
		g.open()
		c.waitReady()
		want, n := expected(t, k, topic, nil)
		if n != sent+2*1024*partitions {
			t.Errorf("%d records in Kafka", n)
		}
		compare(t, w, want, n)
	})
}

// publishAgain repeats a publish of publishAll until a node takes it.
func (c *aCluster) publishAgain(t *testing.T, topic, who string, m int) (a frame) {
	t.Helper()
	eventually(t, "a publish to be taken", func() bool {
		w, err := dialWire(t.Context(), c.addr(m))
		if err != nil {
			return false // it has just been started
		}
		defer w.close()
		f, err := w.ask(t.Context(), 1, map[string]any{
			"op": "pub", "subject": fmt.Sprintf("/%s/%s-%d", topic, who, m%50),
			"data": json.RawMessage(fmt.Sprintf(`{"who":%q,"m":%d}`, who, m)), "mid": fmt.Sprintf("%s-%d", who, m),
		})
		if err != nil || f.Op != "acked" {
			return false // unavailable, until the ids are back
		}
		a = *f
		return true
	})
	return a
}

// commitsBehind returns the group's commits as they are before the last hundred of the records are given out that write writes,
// a hundred each time it is called, in the same epochs: had the nodes been killed then, they would be Kafka's last. And how many
// records w has been given.
func (c *aCluster) commitsBehind(t *testing.T, cl *kgo.Client, topic string, partitions int32, w *watcher, write func(i int, half string)) (old *kmsg.OffsetFetchResponse, sent int) {
	t.Helper()
	for i := 0; ; i++ {
		write(i, "a")
		sent += 100
		// The commits must know the epochs in force: one that a coordinator opened after them is rightly unknown to the
		// next life.
		eventually(t, "commits of all that was written", func() bool {
			old = fetchCommits(t, cl, c.group, topic, partitions)
			return committed(old) == sent
		})
		before := c.epochs(topic)
		write(i, "b")
		sent += 100
		eventually(t, "the records", func() bool { return w.count() == sent })
		if after := c.epochs(topic); after == before {
			return old, sent
		} else if i == 20 {
			t.Fatalf("the coordinators do not settle: epochs %v, then %v", before, after)
		}
	}
}

// epochs are the newest epochs that any node knows; all must be up.
func (c *aCluster) epochs(topic string) (epochs [4]uint64) {
	for _, n := range c.nodes { // any of them may be behind
		for _, p := range n.node.bridge.PartitionStatuses() {
			if p.Topic == topic {
				epochs[p.Partition] = max(epochs[p.Partition], uint64(p.Epoch))
			}
		}
	}
	return epochs
}

func fetchCommits(t *testing.T, cl *kgo.Client, group, topic string, partitions int32) *kmsg.OffsetFetchResponse {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = group
	rt := kmsg.NewOffsetFetchRequestTopic()
	rt.Topic = topic
	for p := range partitions {
		rt.Partitions = append(rt.Partitions, p)
	}
	req.Topics = append(req.Topics, rt)
	res, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// committed is how many records lie before the commits that carry epochs; there are no transactions.
func committed(res *kmsg.OffsetFetchResponse) (records int) {
	for _, rt := range res.Topics {
		for _, p := range rt.Partitions {
			if p.ErrorCode == 0 && p.Offset > 0 && p.Metadata != nil && *p.Metadata != "" {
				records += int(p.Offset)
			}
		}
	}
	return records
}

// storeCommits writes commits of a group that has no members.
func storeCommits(t *testing.T, cl *kgo.Client, group string, old *kmsg.OffsetFetchResponse) {
	t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	for _, from := range old.Topics {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic = from.Topic
		for _, p := range from.Partitions {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.Metadata = p.Partition, p.Offset, p.Metadata
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	eventually(t, "the group to take commits from outside", func() bool { // once its members are gone
		res, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		for _, rt := range res.Topics {
			for _, p := range rt.Partitions {
				if p.ErrorCode != 0 {
					return false
				}
			}
		}
		return true
	})
}
