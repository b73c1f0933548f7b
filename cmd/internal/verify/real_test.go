package verify

import (
	"testing"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// What goes out of Kafka during a run is noticed by the driver itself, and neither blamed on the cluster nor
// forgiven where it says nothing of it: records deleted under clients, and a topic created again.
func TestRunWithRemovalsFromKafka(t *testing.T) {
	kafkatest.EachVersion(t, func(t *testing.T, version string) {
		k := kafkatest.Shared(t, version)
		topic := kafkatest.Topic(t)
		c := startClusterOn(t, k.Brokers(), topic)
		for _, m := range []struct {
			kind   RemovalKind
			remove func()
		}{
			{Deleted, func() { k.DeleteRecords(topic, 1, 20) }},
			{Recreated, func() { k.DeleteTopic(topic); k.CreateTopic(topic, 4, nil) }},
		} {
			t.Run(string(m.kind), func(t *testing.T) {
				_, h := runWhile(t, options(t, c, topic), func(wait func(func(Counters) bool) bool) {
					if !wait(func(n Counters) bool { return n.Delivered >= 1500 }) {
						return
					}
					m.remove()
					before := int64(-1)
					wait(func(n Counters) bool {
						if before < 0 {
							before = n.Delivered
						}
						return n.Delivered >= before+1500
					})
				})
				r := Judge(h)
				t.Logf("%+v\n%s", h.Removed, r.text())
				if !r.Clean() {
					t.Errorf("%d breaches", len(r.Breaches))
				}
				if len(h.Removed) == 0 || h.Removed[0].Kind != m.kind || r.Removed == 0 {
					t.Errorf("removed: %+v, %d records; want %s", h.Removed, r.Removed, m.kind)
				}
			})
		}
	})
}
