package node

import (
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// want is what a subscriber should have had: by partition the values in order.
type want map[int32][]string

// expected returns what a read_committed consumer sees of a topic, left to the records that keep lets by.
func expected(t *testing.T, k *aKafka, topic string, keep func(r kafkatest.Record) bool) (want, int) {
	t.Helper()
	w, n := want{}, 0
	for _, r := range kafkatest.ReadCommitted(t, k.brokers, topic) {
		if keep == nil || keep(r) {
			value := "<null>"
			if r.Value != nil {
				value = string(r.Value)
			}
			w[r.Partition] = append(w[r.Partition], value)
			n++
		}
	}
	return w, n
}

// compare waits until the watcher has as many records as are wanted and then compares them: each
// partition's values in order, nothing missing, nothing twice.
func compare(t *testing.T, w *watcher, wanted want, n int) {
	t.Helper()
	for deadline := time.Now().Add(waitTime); w.count() < n && len(w.problemList()) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s: waited in vain for %d records, has %d; told of these losses: %+v", w.subject, n, w.count(), w.gapList())
			break
		}
	}
	records, problems := w.snapshot()
	for i, p := range problems {
		if i < 5 {
			t.Errorf("%s: %s", w.subject, p)
		}
	}
	for partition, values := range wanted {
		have := records[partition]
		for i, v := range values {
			if i >= len(have) {
				t.Errorf("%s: partition %d ends after %d of %d records", w.subject, partition, len(have), len(values))
				break
			}
			if have[i].text != v {
				t.Errorf("%s: partition %d, record %d is %q, Kafka has %q", w.subject, partition, i, have[i].text, v)
				break
			}
		}
		if len(have) > len(values) {
			t.Errorf("%s: partition %d has %d records, Kafka %d", w.subject, partition, len(have), len(values))
		}
	}
	for partition := range records {
		if wanted[partition] == nil {
			t.Errorf("%s: records of partition %d that Kafka has not", w.subject, partition)
		}
	}
}

func (w *watcher) gapList() []frame { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.gaps) }

func (w *watcher) problemList() []string { w.mu.Lock(); defer w.mu.Unlock(); return w.problems }

// samePositions checks that watchers were told the same position for the same record (I1).
func samePositions(t *testing.T, watchers ...*watcher) {
	t.Helper()
	type at struct {
		partition int32
		pos       place
	}
	values := map[at]string{}
	for _, w := range watchers {
		records, _ := w.snapshot()
		for _, list := range records {
			for _, r := range list {
				key := at{r.partition, r.pos}
				if v, ok := values[key]; ok && v != r.text {
					t.Errorf("[%d %v] is %q on one node and %q on another", key.partition, key.pos, v, r.text)
					return
				}
				values[key] = r.text
			}
		}
	}
}

func keyIs(key string) func(kafkatest.Record) bool {
	return func(r kafkatest.Record) bool { return string(r.Key) == key }
}
