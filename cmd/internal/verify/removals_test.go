package verify

import (
	"reflect"
	"testing"
	"time"
)

// What went out of Kafka is worked out with as much of an end as is known: a removal without one would explain
// whatever comes after it.
func TestInferRemovals(t *testing.T) {
	p := Partition{topic, 0}
	state := func(id byte, first, end int64) map[string]*topicState {
		return map[string]*topicState{topic: {id: [16]byte{id}, partitions: []int32{0}, first: map[int32]int64{0: first}, end: map[int32]int64{0: end}}}
	}
	wrote := func(id string, offset int64, at time.Duration) Write {
		return Write{Partition: p, Offset: offset, ID: id, Outcome: Committed, At: at}
	}
	held := func(id string, offset int64) Record { return Record{Partition: p, Offset: offset, ID: id} }
	const s = time.Second
	for name, c := range map[string]struct {
		before, after map[string]*topicState
		h             History
		said, want    []Removal
	}{
		"nothing": {before: state(1, 0, 0), after: state(1, 0, 2), h: History{Kafka: []Record{held("a", 0), held("b", 1)},
			Written: []Write{wrote("a", 0, s), wrote("b", 1, 2*s)}}},
		"created again": {before: state(1, 0, 0), after: state(2, 0, 2),
			h: History{Kafka: []Record{held("c", 0), held("d", 1)}, Written: []Write{wrote("a", 0, s), wrote("b", 7, 2*s), wrote("d", 1, 5*s), wrote("c", 0, 4*s),
				{Partition: p, Offset: -1, ID: "e", Outcome: Unknown}}},
			want: []Removal{{Partition: p, Kind: Recreated, To: 8 + unanswered, Ended: 4 * s}}},
		"created again, with publishes": {before: state(1, 0, 5), after: state(2, 0, 0),
			h: History{Publishes: []Publish{{Topic: topic, ID: "p", Attempts: []Attempt{{Outcome: Refused, Offset: 99}, {Outcome: Acked, Offset: 30}}},
				{Topic: "other", ID: "q", Attempts: []Attempt{{Outcome: Acked, Offset: 80}}}}},
			want: []Removal{{Partition: p, Kind: Recreated, To: 31 + unanswered}}},
		"created again, of which nothing is known but how long it was": {before: state(1, 0, 5), after: state(2, 0, 0),
			want: []Removal{{Partition: p, Kind: Recreated, To: 5 + unanswered}}},
		"created again, as was said": {before: state(1, 0, 0), after: state(2, 0, 1),
			h:    History{Kafka: []Record{held("c", 0)}, Written: []Write{wrote("a", 0, s), wrote("b", 7, 2*s), wrote("c", 0, 4*s)}},
			said: []Removal{{Partition: p, Kind: Recreated, To: 1000}}},
		"deleted": {before: state(1, 2, 5), after: state(1, 4, 9), want: []Removal{{Partition: p, Kind: Deleted, From: 2, To: 4}}},
		"deleted, as was said": {before: state(1, 0, 5), after: state(1, 4, 9),
			said: []Removal{{Partition: p, Kind: Deleted, To: 4}}},
		"truncated": {before: state(1, 0, 0), after: state(1, 0, 2), h: History{Kafka: []Record{held("a", 0), held("x", 1)},
			Written: []Write{wrote("a", 0, s), wrote("c", 2, 2*s), wrote("b", 1, 2*s)}},
			want: []Removal{{Partition: p, Kind: Truncated, From: 1}}},
		"truncated, and more so than was said": {before: state(1, 0, 0), after: state(1, 0, 1), h: History{Kafka: []Record{held("a", 0)},
			Written: []Write{wrote("a", 0, s), wrote("b", 1, 2*s), wrote("c", 2, 2*s)}},
			said: []Removal{{Partition: p, Kind: Truncated, From: 1, To: 2}}, want: []Removal{{Partition: p, Kind: Truncated, From: 2}}},
	} {
		if got := inferRemovals(c.before, c.after, &c.h, c.said); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
