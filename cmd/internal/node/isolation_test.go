package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// askUpgrade asks a node for a WebSocket by hand, to see how it refuses.
func askUpgrade(ctx context.Context, addr string) (*http.Response, error) {
	c, res, err := websocket.Dial(ctx, "ws://"+addr+"/ws", nil)
	if err == nil {
		_ = c.CloseNow()
	}
	if res == nil {
		return nil, err
	}
	return res, nil
}

// minority starts three nodes that publish to what they expose, and waits until n1, which the test will cut
// off, leads groups.
func minority(t *testing.T, grace time.Duration) (c *aCluster, net *links, topic string) {
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic = k.topic(t, 6, nil)
	net = newLinks(t)
	c = startCluster(t, k, 3, topic, func(cfg *Config) {
		cfg.IsolationGrace = grace
		cfg.PublishTopics = cfg.Topics
		net.between(cfg)
	})
	eventually(t, "n1 to lead a group", func() bool {
		for _, g := range c.nodes[0].node.Status().Groups {
			if g.Leader == "n1" {
				return true
			}
		}
		return false
	})
	return c, net, topic
}

// produceNamed writes so many records with keys and values of their own.
func produceNamed(t *testing.T, k *aKafka, topic, name string, records int) {
	p := kafkatest.NewProducer(t, k.brokers)
	for i := range records {
		p.Produce(&kafkatest.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i), Value: fmt.Appendf(nil, `"%s%d"`, name, i)})
	}
}

// A node that is cut off from the majority pushes nothing, although it has Kafka and led groups, and
// takes no publish. The majority goes on meanwhile; in the end all have the same records at the same
// positions.
func TestMinorityCommitsNothing(t *testing.T) {
	t.Parallel()
	c, net, topic := minority(t, time.Hour)
	others := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(1) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*waitTime)
	defer cancel()
	client, err := dialWire(ctx, c.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.close()
	if f, err := client.ask(ctx, 1, map[string]any{"op": "sub", "subject": "/" + topic + "/*"}); err != nil || f.Op != "subbed" {
		t.Fatalf("subscribe: %+v, %v", f, err)
	}

	net.cut("n1")
	const records, publishes = 60, 12
	produceNamed(t, c.kafka, topic, "r", records)
	eventually(t, "the majority to push what came", func() bool { return others.count() >= records })
	for i := range publishes {
		op := map[string]any{"op": "pub", "id": 100 + i, "subject": fmt.Sprintf("/%s/p-%d", topic, i), "data": json.RawMessage(`1`)}
		if err := client.send(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	for answered := 0; answered < publishes; {
		f, err := client.next(ctx)
		if err != nil {
			t.Fatalf("%d publishes answered, then: %v", answered, err)
		}
		switch f.Op {
		case "msg":
			t.Errorf("the minority pushed [%v] %s", f.Pos, f.Data)
		case "acked":
			t.Errorf("the minority took a publish: %+v", f)
			answered++
		case "error":
			if f.Code != "unavailable" {
				t.Errorf("a publish was answered with %+v", f)
			}
			answered++
		}
	}
	if all, n := expected(t, c.kafka, topic, nil); n != records {
		t.Errorf("Kafka holds %d records, %d were produced: %v", n, records, all)
	}
	// For a moment a node may look so that has been busy.
	eventually(t, "n1 alone to know that it is cut off", func() bool {
		for _, a := range c.nodes {
			if (a.node.replication.Isolated() != "") != (a == c.nodes[0]) {
				return false
			}
		}
		return true
	})

	net.mend("n1")
	got := 0
	for got < records {
		f, err := client.next(ctx)
		if err != nil {
			t.Fatalf("%d records after the split, then: %v", got, err)
		}
		if f.Op == "msg" {
			got++
		}
	}
	back := watch(t, "/"+topic+"/*", -1, func(int) string { return c.addr(0) })
	all, n := expected(t, c.kafka, topic, nil)
	compare(t, others, all, n)
	compare(t, back, all, n)
	samePositions(t, others, back)
}

// A node that has been cut off for TIDEWIRE_ISOLATION_GRACE sends its clients elsewhere and takes none
// until it is back. They resume on another node and miss nothing.
func TestIsolatedNodeSendsItsClientsElsewhere(t *testing.T) {
	t.Parallel()
	// Long enough that a busy machine does not take a node for cut off before the test cuts it.
	c, net, topic := minority(t, 3*time.Second)
	others := watch(t, "/"+topic+"/*", 0, func(int) string { return c.addr(1) })
	roaming := watch(t, "/"+topic+"/*", 0, func(i int) string { return c.addr(i) })
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	var client *wire
	eventually(t, "a client on n1", func() (ok bool) {
		var err error
		client, err = dialWire(ctx, c.addr(0))
		return err == nil
	})
	defer client.close()

	net.cut("n1")
	const records = 60
	produceNamed(t, c.kafka, topic, "r", records)
	f, err := client.next(ctx)
	if err != nil || f.Op != "bye" || f.Reason != "isolated" || f.RetryMS < 1 {
		t.Errorf("goodbye: %+v, %v", f, err)
	}
	var closed websocket.CloseError
	if _, err := client.next(ctx); !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("after bye: %v", err)
	}
	res, err := askUpgrade(ctx, c.addr(0))
	if err != nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a new client of an isolated node: %+v, %v", res, err)
	}
	if away := c.nodes[0].node.Status().Away; away != "isolated" {
		t.Errorf("its status says that it is away for %q", away)
	}
	eventually(t, "the roaming client to resume elsewhere", func() bool { return roaming.count() >= records })

	net.mend("n1")
	eventually(t, "n1 to take clients again", func() bool {
		res, err := askUpgrade(ctx, c.addr(0))
		return err == nil && res.StatusCode == http.StatusSwitchingProtocols
	})
	back := watch(t, "/"+topic+"/*", -1, func(int) string { return c.addr(0) })
	produceNamed(t, c.kafka, topic, "s", records)
	all, n := expected(t, c.kafka, topic, nil)
	for _, w := range []*watcher{others, roaming, back} {
		compare(t, w, all, n)
	}
	samePositions(t, others, roaming, back)
}

func TestWhenClientsHaveToGo(t *testing.T) {
	begin := time.Unix(1000, 0)
	w := isolation{grace: 10 * time.Second}
	for _, step := range []struct {
		at     int // seconds
		cutOff bool
		ready  bool
		want   move
	}{
		{0, false, false, stay},
		{1, true, false, stay},
		{10, true, false, stay},
		{11, true, false, leave},
		{12, true, false, stay},
		{13, false, false, stay}, // back, catching up
		{14, false, true, comeBack},
		{20, true, false, stay},
		{29, false, false, stay}, // an interruption shorter than the grace
		{31, true, false, stay},
		{41, true, false, leave},
		{42, false, false, stay},
		{43, true, false, stay}, // flaps: still away
		{44, false, false, stay},
		{53, false, false, stay},
		{54, false, false, comeBack}, // back for a grace, and never ready
	} {
		if got := w.look(begin.Add(time.Duration(step.at)*time.Second), step.cutOff, step.ready); got != step.want {
			t.Errorf("at %d s: %v, want %v", step.at, got, step.want)
		}
	}
}
