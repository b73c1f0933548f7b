package jstest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// event is a line of the script.
type event struct {
	Event   string
	Topic   string
	Subject string
	Pos     [3]uint64
	Value   json.RawMessage
	Key     string
	N       int
	Reason  string
	Error   string
	From    string
	To      string
}

// The packed client, in a process of its own, loses its connection at random moments, each time goes on at
// another node, and all the while receives one topic and publishes to another: nothing is lost, repeated or
// out of order, and every publish is written once. TIDEWIRE_TEST_CUTS says how often, 100 times if not set.
func TestCutsWithNodeChanges(t *testing.T) {
	cuts := cutsWanted(t)
	dir := install(t)
	const topic, chat, partitions = "prices", "chat", 3
	kafka := kafkatest.Fake(t, kfake.SeedTopics(partitions, topic, chat))
	nodes := startNodes(t, kafka.Brokers(), topic+","+chat, chat)
	args, err := json.Marshal(map[string]any{"nodes": nodes, "topic": topic, "chat": chat, "cuts": cuts})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, "cuts.js", string(args))

	stop := func() {}
	j := newJudge()
	patience := time.AfterFunc(waitTime+time.Duration(cuts)*time.Second, func() {
		t.Errorf("the script does not come to its end: %d messages, moved %d times", j.messages, j.moved)
		s.process.Kill()
	})
	defer patience.Stop()
	lines := bufio.NewScanner(s.out)
	lines.Buffer(nil, 1<<20)
	produced := -1
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		switch e.Event {
		case "ready":
			stop = produce(t, kafka.Brokers(), topic)
		case "cut":
			stop()
			produced = len(kafkatest.ReadCommitted(t, kafka.Brokers(), topic))
		default:
			if err := j.event(e); err != nil {
				t.Fatalf("%v, after %d messages", err, j.messages)
			}
		}
		// It has everything: as many as there are, none twice (the judge sees to that).
		if produced >= 0 && j.topic(topic) == produced && j.topic(chat) == j.allAcked() {
			s.stdin.Close()
			produced = -1
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	j.verdict(t, kafka.Brokers(), topic, partitions, cuts)
}

func cutsWanted(t *testing.T) int {
	t.Helper()
	text := os.Getenv("TIDEWIRE_TEST_CUTS")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("TIDEWIRE_TEST_CUTS=%s is not a number of cuts", text)
	}
	return n
}

// produce writes numbers under a few keys until it is told to stop.
func produce(t *testing.T, brokers []string, topic string) (stop func()) {
	p := kafkatest.NewProducer(t, brokers)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			p.Produce(&kafkatest.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", n%7), Value: strconv.AppendInt(nil, int64(n), 10)})
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// judge holds what the client told to what it promises.
type judge struct {
	last      map[string][3]uint64 // by topic and partition: the last position
	values    map[string][]string  // by topic and partition: what was received
	published map[string]int       // by key: the number that is received next
	acked     map[string]int       // by key: the number that is acknowledged next
	messages  int
	moved     int
}

func newJudge() *judge {
	return &judge{last: map[string][3]uint64{}, values: map[string][]string{}, published: map[string]int{}, acked: map[string]int{}}
}

// verdict holds what came against Kafka, when nothing comes any more: what came after the last that was due would have
// been too much.
func (j *judge) verdict(t *testing.T, brokers []string, topic string, partitions, cuts int) {
	t.Helper()
	want := map[string][]string{}
	for _, r := range kafkatest.ReadCommitted(t, brokers, topic) {
		key := fmt.Sprint(topic, " ", r.Partition)
		want[key] = append(want[key], string(r.Value))
	}
	for key, values := range want {
		if got := strings.Join(j.values[key], " "); got != strings.Join(values, " ") {
			t.Errorf("%s: received %d records that are not the %d of Kafka", key, len(j.values[key]), len(values))
		}
	}
	for key, n := range j.acked {
		if j.published[key] != n {
			t.Errorf("%s: %d publishes acknowledged, %d received", key, n, j.published[key])
		}
	}
	if j.moved < cuts || len(want) != partitions || j.allAcked() < cuts {
		t.Errorf("%d changes of node, %d partitions, %d publishes: the test shows less than it should", j.moved, len(want), j.allAcked())
	}
	t.Logf("%d cuts: %d changes of node, %d messages, %d publishes", cuts, j.moved, j.messages, j.allAcked())
}

func (j *judge) event(e event) error {
	switch e.Event {
	case "moved":
		if e.From == e.To {
			return fmt.Errorf("moved from %s to itself", e.From)
		}
		j.moved++
	case "acked":
		if want := j.acked[e.Key]; e.N != want {
			return fmt.Errorf("publish %d of %s was acknowledged, not %d", e.N, e.Key, want)
		}
		j.acked[e.Key]++
	case "msg":
		key := fmt.Sprint(e.Topic, " ", e.Pos[0])
		if last, ok := j.last[key]; ok && (e.Pos[1] < last[1] || e.Pos[1] == last[1] && e.Pos[2] <= last[2]) {
			return fmt.Errorf("%s: %v after %v", key, e.Pos, last)
		}
		j.last[key] = e.Pos
		j.messages++
		j.values[key] = append(j.values[key], string(e.Value))
		if e.Topic == "chat" {
			var v struct{ N int }
			name := e.Subject[strings.LastIndex(e.Subject, "/")+1:]
			if err := json.Unmarshal(e.Value, &v); err != nil || v.N != j.published[name] {
				return fmt.Errorf("%s: received publish %s, not %d", e.Subject, e.Value, j.published[name])
			}
			j.published[name]++
		}
	default:
		return fmt.Errorf("the client told of %s %s%s on %s", e.Event, e.Reason, e.Error, e.Topic)
	}
	return nil
}

func (j *judge) topic(name string) (n int) {
	for key, values := range j.values {
		if strings.HasPrefix(key, name+" ") {
			n += len(values)
		}
	}
	return n
}

func (j *judge) allAcked() (n int) {
	for _, k := range j.acked {
		n += k
	}
	return n
}
