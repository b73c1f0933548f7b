package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// fill writes values v0, v1, ... of one key and waits until a subscriber has them; it returns them.
func fill(t *testing.T, c *aCluster, topic, key string, n int) []*frame {
	t.Helper()
	k := dial(t, c.addr(0))
	k.sub("/"+topic+"/"+key, "")
	k.want("live")
	var records []*kafkatest.Record
	for i := range n {
		records = append(records, &kafkatest.Record{Topic: topic, Key: []byte(key), Value: fmt.Appendf(nil, "v%d", i)})
	}
	kafkatest.NewProducer(t, c.kafka.brokers).Produce(records...)
	var msgs []*frame
	for range n {
		msgs = append(msgs, k.want("msg"))
	}
	_ = k.c.CloseNow()
	return msgs
}

// vectorOf is the vector of a subscriber with everything up to a record.
func vectorOf(m *frame) string { return fmt.Sprintf("[[%d,%d,%d]]", m.Pos[0], m.Pos[1], m.Pos[2]) }

func after(a, b []uint64) bool { return (place{a[1], a[2]}).after(place{b[1], b[2]}) }

// history gives the n newest records, then live, once; at lies right before them.
func protocolHistory(t *testing.T, c *aCluster, topic string) {
	written := fill(t, c, topic, "k", 5)
	for _, tc := range []struct {
		more, want string
	}{
		{"", ""}, {`,"history":0`, ""}, {`,"history":1`, "v4"}, {`,"history":3`, "v2 v3 v4"}, {`,"history":5`, "v0 v1 v2 v3 v4"},
		{`,"history":6`, "v0 v1 v2 v3 v4"}, {`,"history":-1`, "v0 v1 v2 v3 v4"}, {`,"history":9007199254740991`, "v0 v1 v2 v3 v4"},
		{`,"history":2147483648`, "v0 v1 v2 v3 v4"},
	} {
		for _, subject := range []string{"/" + topic + "/k", "/" + topic + "/*"} {
			k := dial(t, c.addr(0))
			f := k.sub(subject, tc.more)
			if f.Recovered != nil || f.Gap != "" || f.Lost != nil {
				t.Errorf("%s%s: nothing was to be resumed, subbed says %+v", subject, tc.more, f)
			}
			want := 4
			if subject[len(subject)-1] != '*' {
				want = 1
			}
			if len(f.At) != want {
				t.Errorf("%s: at %v, want %d partitions", subject, f.At, want)
			}
			msgs := k.backlog(subject)
			if values(msgs) != tc.want {
				t.Errorf("%s%s: %q, want %q", subject, tc.more, values(msgs), tc.want)
			}
			for i, m := range msgs {
				if m.Subject != "/"+topic+"/k" || fmt.Sprint(m.Pos) != fmt.Sprint(written[5-len(msgs)+i].Pos) {
					t.Errorf("%s%s: record %d is %+v, written at %v", subject, tc.more, i, m, written[5-len(msgs)+i].Pos)
				}
			}
			for _, at := range f.At {
				if at[0] != written[0].Pos[0] {
					continue
				}
				if len(msgs) > 0 && !after(msgs[0].Pos, at) || len(msgs) == 0 && after(written[4].Pos, at) {
					t.Errorf("%s%s: at %v, first record %+v", subject, tc.more, at, msgs)
				}
			}
		}
	}
}

// history over several partitions is the n newest by Kafka timestamp; each partition stays in order.
func protocolHistoryOfSeveralPartitions(t *testing.T, c *aCluster, topic string) {
	k := dial(t, c.addr(0))
	k.sub("/"+topic+"/*", "")
	k.want("live")
	p := kafkatest.NewManualProducer(t, c.kafka.brokers)
	now := time.Now().Add(-time.Minute)
	// Timestamps in seconds, by partition.
	for partition, seconds := range [][]int{{1, 4, 7}, {2, 8, 9}, {3, 5, 6}} {
		for _, s := range seconds {
			p.Produce(&kafkatest.Record{
				Topic: topic, Partition: int32(partition), Value: fmt.Appendf(nil, "p%d-%d", partition, s), Timestamp: now.Add(time.Duration(s) * time.Second),
			})
			k.want("msg")
		}
	}
	for n, newest := range map[int]map[string]bool{
		3:  {"p1-9": true, "p1-8": true, "p0-7": true},
		-1: {"p0-1": true, "p0-4": true, "p0-7": true, "p1-9": true, "p1-2": true, "p1-8": true, "p2-3": true, "p2-5": true, "p2-6": true},
	} {
		k := dial(t, c.addr(0))
		f := k.sub("/"+topic+"/*", fmt.Sprintf(`,"history":%d`, n))
		msgs := k.backlog("/" + topic + "/*")
		at := map[uint64][]uint64{}
		for _, p := range f.At {
			at[p[0]] = p
		}
		got := map[string]bool{}
		for _, m := range msgs {
			got[m.value()] = true
			if !after(m.Pos, at[m.Pos[0]]) {
				t.Errorf("history %d: %v is not after %v", n, m.Pos, at[m.Pos[0]])
			}
			at[m.Pos[0]] = m.Pos
		}
		for v := range newest {
			if !got[v] {
				t.Errorf("history %d: %s is missing in %s", n, v, values(msgs))
			}
		}
		if len(msgs) != len(newest) {
			t.Errorf("history %d: %s", n, values(msgs))
		}
	}
}

// live follows the last record that was there when the subscription was made, once, while records
// are written all the time; every record comes once.
func protocolLiveOnceUnderLoad(t *testing.T, c *aCluster, topic string) {
	fill(t, c, topic, "k", 200)
	p := kafkatest.NewProducer(t, c.kafka.brokers)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 200
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
				p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("k"), Value: fmt.Appendf(nil, "v%d", n)})
				n++
			}
		}
	}()
	var conns []*talk
	next := map[*talk]int{}
	for range 10 {
		k := dial(t, c.addr(0))
		k.sub("/"+topic+"/k", `,"history":-1`)
		conns = append(conns, k)
		backlog := k.backlog("/" + topic + "/k")
		if len(backlog) < 200 {
			t.Errorf("live after %d records, 200 were there", len(backlog))
		}
		for i, m := range backlog {
			if m.value() != fmt.Sprintf("v%d", i) {
				t.Fatalf("record %d is %s", i, m.value())
			}
		}
		next[k] = len(backlog)
	}
	close(stop)
	n := <-done
	for _, k := range conns {
		for i := next[k]; i < n; i++ {
			if m := k.want("msg"); m.value() != fmt.Sprintf("v%d", i) {
				t.Fatalf("record %d is %s", i, m.value())
			}
		}
		k.raw(`{"op":"ping"}`)
		k.want("pong")
	}
}
