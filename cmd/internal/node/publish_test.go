package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// errSentAway: the node says goodbye.
var errSentAway = errors.New("sent away")

// publishAll publishes count messages over one connection with up to window on their way, every second
// one twice with the same mid, and returns the acknowledgements by message.
func publishAll(ctx context.Context, addr, topic, who string, count, window int) (map[int][]frame, error) {
	c, err := dialWire(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	type job struct{ message, id int }
	var jobs []job
	id := 0
	for m := range count {
		id++
		jobs = append(jobs, job{m, id})
		if m%2 == 0 {
			id++
			jobs = append(jobs, job{m, id})
		}
	}
	message := map[int]int{}
	for _, j := range jobs {
		message[j.id] = j.message
	}
	send := func(id int) error {
		m := message[id]
		ack := "kafka"
		if m%3 == 0 {
			ack = "replicated"
		}
		return c.send(ctx, map[string]any{
			"op": "pub", "id": id, "subject": fmt.Sprintf("/%s/%s-%d", topic, who, m%50),
			"data": json.RawMessage(fmt.Sprintf(`{"who":%q,"m":%d}`, who, m)),
			"mid":  fmt.Sprintf("%s-%d", who, m), "ack": ack, "headers": map[string]string{"h": "v"},
		})
	}
	slots := make(chan struct{}, window)
	sent := make(chan error, 1)
	go func() {
		for _, j := range jobs {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				sent <- ctx.Err()
				return
			}
			if err := send(j.id); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	acks := map[int][]frame{}
	unsure := map[int]bool{} // may have been written by a publish that was not acknowledged
	for left := len(jobs); left > 0; {
		f, err := c.next(ctx)
		switch {
		case err != nil:
			return nil, err
		case f.Code == "unavailable": // as on a busy machine, where an answer comes late: to be sent again with the same mid
			unsure[message[int(f.ID)]] = true
			if err := send(int(f.ID)); err != nil {
				return nil, err
			}
			continue
		case f.Op == "bye":
			return nil, fmt.Errorf("%w: %s", errSentAway, f.Reason)
		case f.Op != "acked":
			return nil, fmt.Errorf("answer to a publish: %s %s: %s", f.Op, f.Code, f.Message)
		}
		m := message[int(f.ID)]
		acks[m] = append(acks[m], *f)
		left--
		<-slots
	}
	for m := range unsure {
		if firsts := slices.IndexFunc(acks[m], func(f frame) bool { return !f.Duplicate }); firsts < 0 {
			acks[m][0].Duplicate = false // of one whose acknowledgement nobody got
		}
	}
	return acks, <-sent
}

// 10,000 publishes from clients on all nodes, half of them sent twice with the same mid: each is once in
// Kafka and once with every subscriber, and the repeats are answered as duplicates of the first.
func TestPublishesArriveOnceOnEveryNode(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		for range 3 {
			shown := false
			if !t.Run("try", func(t *testing.T) { shown = publishesArriveOnce(t, k) }) || shown {
				return
			}
		}
		t.Fatal("this machine is too busy to show anything")
	})
}

// publishesArriveOnce says whether there was something to see: when a coordinator moves, or a node sends its clients away, as on a
// machine that is very busy, Kafka may have a record twice, and answers get lost. What subscribers see then is shown by others.
func publishesArriveOnce(t *testing.T, k *aKafka) bool {
	total := 10_000
	if raceEnabled {
		total = 2_000
	}
	topic := k.topic(t, 4, nil)
	c := startCluster(t, k, 3, topic, openForPublishing(t, topic))
	var watchers []*watcher
	for i := range c.nodes {
		watchers = append(watchers, watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(i) }))
	}
	const clients = 6
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitTime)
	defer cancel()
	var wg sync.WaitGroup
	results := make([]map[int][]frame, clients)
	errs := make([]error, clients)
	for i := range clients {
		wg.Go(func() {
			results[i], errs[i] = publishAll(ctx, c.addr(i), topic, fmt.Sprintf("c%d", i), total/clients, 64)
		})
	}
	wg.Wait()
	away := false
	for i, err := range errs {
		if away = away || errors.Is(err, errSentAway); err != nil && !errors.Is(err, errSentAway) {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	if epochs := c.epochs(topic); away || slices.Max(epochs[:]) > 1 {
		t.Logf("disturbed: epochs %v, %v", epochs, errors.Join(errs...))
		return false
	}
	in := map[string]int{}
	for _, r := range kafkatest.ReadCommitted(t, k.brokers, topic) {
		in[string(r.Value)]++
	}
	want, n := expected(t, k, topic, nil)
	if n != total/clients*clients {
		t.Errorf("%d records in Kafka for %d publishes", n, total/clients*clients)
	}
	for v, times := range in {
		if times != 1 {
			t.Fatalf("%s is %d times in Kafka", v, times)
		}
	}
	for _, w := range watchers {
		compare(t, w, want, n)
	}
	samePositions(t, watchers...)
	for i, acks := range results {
		for m, list := range acks {
			duplicates := 0
			for _, f := range list {
				if f.Duplicate {
					duplicates++
				}
				if f.Offset != list[0].Offset || f.Partition != list[0].Partition {
					t.Fatalf("client %d, message %d: acknowledged at %d and %d", i, m, list[0].Offset, f.Offset)
				}
				if m%3 == 0 && len(f.Pos) != 3 {
					t.Fatalf("client %d, message %d: ack replicated without a position", i, m)
				}
			}
			if duplicates != len(list)-1 {
				t.Fatalf("client %d, message %d: %d of %d answers are duplicates", i, m, duplicates, len(list))
			}
		}
	}
	return true
}

func openForPublishing(t *testing.T, topics string) func(*Config) {
	s, err := kafkaio.ParseSelectors(topics)
	if err != nil {
		t.Fatal(err)
	}
	return func(cfg *Config) { cfg.PublishTopics = s }
}

// Only topics that are open for it can be published to, and every refusal says why.
func TestPublishRefusals(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	open, closed := k.topic(t, 1, nil), kafkatest.Topic(t)+"-closed"
	k.create(t, closed, 1, nil)
	c := startCluster(t, k, 1, open+","+closed, openForPublishing(t, open))
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	w, err := dialWire(ctx, c.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for i, tc := range []struct {
		op   map[string]any
		code string
	}{
		{map[string]any{"op": "pub", "subject": "/" + closed + "/k", "data": 1}, "bad_subject"},
		{map[string]any{"op": "pub", "subject": "/no-such-topic/k", "data": 1}, "bad_subject"},
		{map[string]any{"op": "pub", "subject": "/" + open + "/*", "data": 1}, "bad_subject"},
		{map[string]any{"op": "pub", "subject": "/" + open + "/k", "data": 1, "headers": map[string]string{"tidewire-mid": "x"}}, "bad_request"},
		{map[string]any{"op": "pub", "subject": "/" + open + "/k", "data": 1, "text": "x"}, "bad_request"},
	} {
		f, err := w.ask(ctx, int64(i+1), tc.op)
		if err != nil {
			t.Fatal(err)
		}
		if f.Op != "error" || f.Code != tc.code || f.Message == "" {
			t.Errorf("%v: answered %s %s %q, want %s", tc.op, f.Op, f.Code, f.Message, tc.code)
		}
	}
}

// With Kafka away a publish is answered unavailable in bounded time, and goes through when it is back.
func TestPublishWithKafkaAway(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version string) {
		cluster := kafkatest.Start(t, kafkatest.Options{Version: version})
		k := &aKafka{brokers: cluster.Brokers(), real: cluster}
		topic := k.topic(t, 1, nil)
		c := startCluster(t, k, 3, topic, openForPublishing(t, topic))
		w := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(1) })
		ctx, cancel := context.WithTimeout(t.Context(), 3*waitTime)
		defer cancel()
		conn, err := dialWire(ctx, c.addr(2))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.close()
		pub := func(id int64) *frame {
			f, err := conn.ask(ctx, id, map[string]any{"op": "pub", "subject": "/" + topic + "/k", "data": 7, "mid": "the-one"})
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		cluster.StopBroker(0)
		if f := pub(1); f.Code != "unavailable" || f.RetryMS <= 0 {
			t.Fatalf("with Kafka away: %+v, want unavailable with retry_ms", f)
		}
		cluster.StartBroker(0)
		id := int64(1)
		eventually(t, "the publish to go through", func() bool { id++; return pub(id).Op == "acked" })
		want, n := expected(t, k, topic, nil)
		if n != 1 {
			t.Errorf("%d records in Kafka, want 1", n)
		}
		compare(t, w, want, n)
		if w.subscriptions() != 1 {
			t.Errorf("the subscriber was disconnected")
		}
	})
}
