package verify

import (
	"testing"
	"time"

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
				o := options(t, c, topic)
				o.Duration = 2500 * time.Millisecond
				d, err := New(o)
				if err != nil {
					t.Fatal(err)
				}
				removed := make(chan struct{})
				go func() {
					defer close(removed)
					<-d.Loading()
					for d.Counters().Delivered < 1500 {
						time.Sleep(10 * time.Millisecond)
					}
					m.remove()
				}()
				h, err := d.Run(t.Context())
				<-removed
				if err != nil {
					t.Fatal(err)
				}
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
