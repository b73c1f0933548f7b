package verify

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// generate makes a clean history at random: partitions, epochs that begin anywhere, subscribers of
// patterns and keys that resume wherever they are cut, publishes of which some are sent twice.
func generate(rng *rand.Rand) History {
	h := History{Version: HistoryVersion, Began: time.UnixMilli(1_700_000_000_000), Settled: true, End: time.Hour}
	now := time.Duration(0)
	tick := func() time.Duration { now += time.Duration(1+rng.IntN(3)) * time.Millisecond; return now }
	partitions := 1 + rng.IntN(3)
	epochs := make([][]int64, partitions) // the first offset of each epoch
	pos := func(p int32, offset int64) Pos {
		at := Pos{}
		for i, first := range epochs[p] {
			if first <= offset {
				at = Pos{uint64(i) + 1, uint64(offset-first) + 1}
			}
		}
		return at
	}
	next := make([]int64, partitions)
	n := 30 + rng.IntN(60)
	for i := range n {
		p := int32(rng.IntN(partitions))
		if len(epochs[p]) == 0 || rng.IntN(12) == 0 {
			epochs[p] = append(epochs[p], next[p])
		}
		r := Record{Partition: Partition{topic, p}, Offset: next[p], ID: fmt.Sprintf("r%d", i), Subject: fmt.Sprintf("/t/k%d-%d", p, rng.IntN(3)), TS: h.Began.Add(tick()).UnixMilli()}
		next[p] += 1 + int64(rng.IntN(2)) // markers of transactions
		if rng.IntN(3) > 0 {
			h.Written = append(h.Written, Write{Partition: r.Partition, Offset: r.Offset, ID: r.ID, Subject: r.Subject, Outcome: Committed, At: tick()})
		} else {
			r.Mid = r.ID
			a := Attempt{Sent: now, Answered: tick(), Node: "n1", Ack: "replicated", Outcome: Acked, Partition: p, Offset: r.Offset, Pos: pos(p, r.Offset)}
			attempts := []Attempt{a}
			if rng.IntN(3) == 0 {
				a.Sent, a.Duplicate = a.Answered, true
				a.Answered = tick()
				attempts = append(attempts, a)
			}
			h.Publishes = append(h.Publishes, Publish{Topic: topic, Subject: r.Subject, ID: r.ID, Mid: r.Mid, Attempts: attempts})
		}
		h.Kafka = append(h.Kafka, r)
	}
	subjects := []string{"/t/*", "/t/*", h.Kafka[0].Subject}
	for i, subject := range subjects {
		s := Subscriber{Name: fmt.Sprintf("c%d", i), Subject: subject}
		add := func(e Event) { e.Time = tick(); s.Events = append(s.Events, e) }
		vector := make([]Place, partitions)
		for p := range vector {
			vector[p] = Place{int32(p), Pos{}}
		}
		add(Event{Kind: Connect, Detail: &Detail{Node: "n1"}})
		add(Event{Kind: Subbed, Detail: &Detail{At: slices.Clone(vector)}})
		for _, k := range h.Kafka {
			if !matches(subject, k.Subject) {
				continue
			}
			add(Event{Kind: Msg, Place: Place{k.Index, pos(k.Index, k.Offset)}, Subject: k.Subject, ID: k.ID})
			vector[k.Index].Pos = pos(k.Index, k.Offset)
			if rng.IntN(15) == 0 {
				add(Event{Kind: Disconnect, Detail: &Detail{By: Ours}})
				add(Event{Kind: Connect, Detail: &Detail{Node: fmt.Sprintf("n%d", 1+rng.IntN(3))}})
				add(Event{Kind: Subbed, Detail: &Detail{At: slices.Clone(vector), Resumed: true, Recovered: true}})
			}
		}
		add(Event{Kind: Live})
		h.Subscribers = append(h.Subscribers, s)
	}
	return h
}

// mutations break a history; each returns false where the history offers nothing to break.
var mutations = map[string]struct {
	found []Kind // one of these must be named
	apply func(rng *rand.Rand, h *History) bool
}{
	"drop a record": {[]Kind{Lost}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		s.Events = slices.Delete(s.Events, i, i+1)
		return true
	}},
	"repeat a record": {[]Kind{Repeated}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		s.Events = slices.Insert(s.Events, i+1, s.Events[i])
		return true
	}},
	"repeat a record later": {[]Kind{Repeated}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		s.Events = append(s.Events, s.Events[i])
		return true
	}},
	"swap two records": {[]Kind{OutOfOrder}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		for j := i + 1; j < len(s.Events) && s.Events[j].Kind == Msg; j++ {
			if s.Events[j].Partition == s.Events[i].Partition {
				s.Events[i], s.Events[j] = s.Events[j], s.Events[i]
				return true
			}
		}
		return false
	}},
	// The position of a lone record of a lone witness is as good as any other, so one is altered of which
	// another subscriber has the right one.
	"alter a position": {[]Kind{Disagree}, func(rng *rand.Rand, h *History) bool {
		e := &h.Subscribers[0].Events[rng.IntN(len(h.Subscribers[0].Events))]
		if e.Kind != Msg {
			return false
		}
		if rng.IntN(2) == 0 {
			e.Seqno += uint64(1 + rng.IntN(3))
		} else {
			e.Epoch++
		}
		return true
	}},
	"invent a gap": {[]Kind{FalseLoss}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		s.Events = slices.Insert(s.Events, i, Event{Kind: Gap, Time: s.Events[i].Time, Detail: &Detail{At: []Place{s.Events[i].Place}, Reason: "truncated"}})
		return true
	}},
	"deny a resume": {[]Kind{FalseLoss}, func(rng *rand.Rand, h *History) bool {
		for i := range h.Subscribers {
			for _, e := range h.Subscribers[i].Events {
				if e.Kind == Subbed && e.Resumed {
					e.Recovered, e.Reason = false, "unknown_epoch"
					return true
				}
			}
		}
		return false
	}},
	"resume farther on": {[]Kind{Lost}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		e := s.Events[i]
		s.Events[i] = Event{Kind: Subbed, Time: e.Time, Detail: &Detail{At: []Place{e.Place}, Resumed: true, Recovered: true}}
		return true
	}},
	"another record of another subscriber's stream": {[]Kind{Phantom, WrongAnswer, Repeated, OutOfOrder, Disagree}, func(rng *rand.Rand, h *History) bool {
		s, i := someMsg(rng, h)
		s.Events[i].ID = "nobody's"
		return true
	}},
	"forget an acknowledged publish": {[]Kind{AckedLost}, func(rng *rand.Rand, h *History) bool {
		if len(h.Publishes) == 0 {
			return false
		}
		id := h.Publishes[rng.IntN(len(h.Publishes))].ID
		h.Kafka = slices.DeleteFunc(h.Kafka, func(k Record) bool { return k.ID == id })
		return true
	}},
	"deliver a message twice": {[]Kind{Doubled}, func(rng *rand.Rand, h *History) bool {
		if len(h.Publishes) == 0 {
			return false
		}
		// Kafka has it again at its end, and a subscriber of everything gets it there.
		id := h.Publishes[rng.IntN(len(h.Publishes))].ID
		var again, last Record
		for _, k := range h.Kafka {
			if k.ID == id {
				again = k
			}
		}
		var lastPos Pos
		for _, k := range h.Kafka {
			if k.Partition == again.Partition && k.Offset >= last.Offset {
				last = k
			}
		}
		for _, e := range h.Subscribers[0].Events {
			if e.Kind == Msg && e.ID == last.ID {
				lastPos = e.Pos
			}
		}
		again.Offset = last.Offset + 1
		h.Kafka = append(h.Kafka, again)
		h.Subscribers[0].Events = append(h.Subscribers[0].Events, Event{Kind: Msg, Time: h.End, Place: Place{again.Index, Pos{lastPos.Epoch, lastPos.Seqno + 1}}, ID: id, Subject: again.Subject})
		return true
	}},
	"deliver an aborted record": {[]Kind{Phantom}, func(rng *rand.Rand, h *History) bool {
		if len(h.Written) == 0 {
			return false
		}
		w := &h.Written[rng.IntN(len(h.Written))]
		w.Outcome = Aborted
		h.Kafka = slices.DeleteFunc(h.Kafka, func(k Record) bool { return k.ID == w.ID })
		return true
	}},
	"delete a record from Kafka and tell nobody who had not got it": {[]Kind{Undeclared}, func(rng *rand.Rand, h *History) bool {
		s := &h.Subscribers[0]
		i := rng.IntN(len(s.Events))
		e := s.Events[i]
		later := func(o Event) bool { return o.Kind == Msg && o.Partition == e.Partition }
		if e.Kind != Msg || !slices.ContainsFunc(s.Events[i+1:], later) {
			return false
		}
		for _, k := range h.Kafka {
			if k.ID == e.ID {
				h.Removed = append(h.Removed, Removal{Partition: k.Partition, Kind: Deleted, From: k.Offset, To: k.Offset + 1})
			}
		}
		h.Kafka = slices.DeleteFunc(h.Kafka, func(k Record) bool { return k.ID == e.ID })
		s.Events = slices.Delete(s.Events, i, i+1)
		return true
	}},
}

// someMsg picks a record of some subscriber.
func someMsg(rng *rand.Rand, h *History) (*Subscriber, int) {
	for {
		s := &h.Subscribers[rng.IntN(len(h.Subscribers))]
		if i := rng.IntN(len(s.Events)); s.Events[i].Kind == Msg {
			return s, i
		}
	}
}

// A clean history is clean, and any one mutation of it is found and named.
func TestMutationsAreFound(t *testing.T) {
	rounds := uint64(300)
	applied := map[string]int{}
	for seed := range rounds {
		clean := generate(rand.New(rand.NewPCG(seed, 1)))
		if r := Judge(clean); !r.Clean() {
			t.Fatalf("seed %d: a clean history is not:\n%s", seed, r.text())
		}
		for _, name := range sortedKeys(mutations) {
			m := mutations[name]
			h := generate(rand.New(rand.NewPCG(seed, 1)))
			if !m.apply(rand.New(rand.NewPCG(seed, 2)), &h) {
				continue
			}
			applied[name]++
			r := Judge(h)
			if !slices.ContainsFunc(m.found, func(k Kind) bool { return r.Counts[k] > 0 }) {
				t.Errorf("seed %d, %s: want one of %v:\n%s", seed, name, m.found, r.text())
			}
		}
		if t.Failed() {
			return
		}
	}
	for name := range mutations {
		if applied[name] < int(rounds)/4 {
			t.Errorf("%q was tried only %d times", name, applied[name])
		}
	}
}
