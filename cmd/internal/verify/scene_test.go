package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// scene builds histories by hand. A new one holds a topic of one partition with ten records of two keys,
// offsets 0 to 9, the first five in epoch 1 and the rest in epoch 2, each written by a producer.
type scene struct {
	History
	now time.Duration
}

const topic = "t"

func newScene() *scene {
	s := &scene{History: History{Version: HistoryVersion, Began: time.UnixMilli(1_700_000_000_000), Settled: true, End: time.Hour}}
	for i := range 10 {
		s.write(fmt.Sprintf("r%d", i), fmt.Sprintf("/t/k%d", i%2))
	}
	return s
}

func (s *scene) tick() time.Duration { s.now += time.Millisecond; return s.now }

func (s *scene) next() int64 {
	next := int64(0)
	for _, k := range s.Kafka {
		next = max(next, k.Offset+1)
	}
	return next
}

// write is a record that a producer wrote.
func (s *scene) write(id, subject string) {
	at, offset := s.tick(), s.next()
	s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 0}, Offset: offset, ID: id, Subject: subject, TS: s.Began.Add(at).UnixMilli()})
	s.Written = append(s.Written, Write{Partition: Partition{topic, 0}, Offset: offset, ID: id, Subject: subject, Outcome: Committed, At: at})
}

// publish is a record that was published with a mid, and acknowledged.
func (s *scene) publish(id, subject string) *Publish {
	offset := s.next()
	s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 0}, Offset: offset, ID: id, Subject: subject, TS: s.Began.Add(s.tick()).UnixMilli(), Mid: id})
	s.Publishes = append(s.Publishes, Publish{Topic: topic, Subject: subject, ID: id, Mid: id, Attempts: []Attempt{
		{Sent: s.now, Answered: s.tick(), Node: "n1", Ack: "replicated", Outcome: Acked, Offset: offset, Pos: posAt(offset)}}})
	return &s.Publishes[len(s.Publishes)-1]
}

// remove takes offsets [from, to) out of Kafka; to 0 is all from there on.
func (s *scene) remove(kind RemovalKind, from, to int64) {
	rm := Removal{Partition: Partition{topic, 0}, Kind: kind, From: from, To: to, Began: s.tick(), Ended: s.tick()}
	s.Removed = append(s.Removed, rm)
	var kept []Record
	for _, k := range s.Kafka {
		if !rm.covers(k.Offset) {
			kept = append(kept, k)
		}
	}
	s.Kafka = kept
}

// unanswered takes back that the producer had an answer for a record.
func (s *scene) unanswered(id string) {
	s.Written = slices.DeleteFunc(s.Written, func(w Write) bool { return w.ID == id })
}

// posAt is the position of an offset: epoch 2 begins at offset 5.
func posAt(offset int64) Pos {
	if offset < 5 {
		return Pos{1, uint64(offset) + 1}
	}
	return Pos{2, uint64(offset) - 4}
}

// client is a subscriber whose events are written down.
type client struct {
	*scene
	i int
}

func (s *scene) client(subject string) client {
	s.Subscribers = append(s.Subscribers, Subscriber{Name: fmt.Sprintf("c%d", len(s.Subscribers)), Subject: subject})
	return client{s, len(s.Subscribers) - 1}
}

func (c client) add(e Event) client {
	e.Time = c.tick()
	c.Subscribers[c.i].Events = append(c.Subscribers[c.i].Events, e)
	return c
}

func (c client) connect(node string) client {
	return c.add(Event{Kind: Connect, Detail: &Detail{Node: node}})
}
func (c client) cut() client  { return c.add(Event{Kind: Disconnect, Detail: &Detail{By: Ours}}) }
func (c client) leave()       { c.Subscribers[c.i].Left = true }
func (c client) live() client { return c.add(Event{Kind: Live}) }

// begin is a first subscription with everything up to pos behind it.
func (c client) begin(pos Pos) client {
	return c.connect("n1").add(Event{Kind: Subbed, Detail: &Detail{At: []Place{{0, pos}}}})
}

// resume is a resume on a node.
func (c client) resume(node string, at Pos) client {
	return c.connect(node).add(Event{Kind: Subbed, Detail: &Detail{At: []Place{{0, at}}, Resumed: true, Recovered: true}})
}

// notRecovered is a resume that was told of a loss.
func (c client) notRecovered(at Pos, reason string, lost ...LostRange) client {
	return c.connect("n2").add(Event{Kind: Subbed, Detail: &Detail{At: []Place{{0, at}}, Resumed: true, Reason: reason, Lost: lost}})
}

func (c client) gap(at Pos, reason string) client {
	return c.add(Event{Kind: Gap, Detail: &Detail{At: []Place{{0, at}}, Reason: reason}})
}

// msg gives the client the record at an offset.
func (c client) msg(offsets ...int64) client {
	for _, o := range offsets {
		for _, k := range c.Kafka {
			if k.Offset == o {
				c.msgAs(k.ID, posAt(o))
			}
		}
	}
	return c
}

func (c client) msgAs(id string, pos Pos) client {
	subject := ""
	for _, k := range c.Kafka {
		if k.ID == id {
			subject = k.Subject
		}
	}
	for _, w := range c.Written {
		if w.ID == id {
			subject = w.Subject
		}
	}
	return c.msgOf(id, subject, pos)
}

func (c client) msgOf(id, subject string, pos Pos) client {
	return c.add(Event{Kind: Msg, Place: Place{0, pos}, ID: id, Subject: subject})
}

// all gives the client every record of the scene.
func (c client) all() client {
	for _, k := range c.Kafka {
		c.msg(k.Offset)
	}
	return c
}

func (r *Report) text() string {
	var s strings.Builder
	_ = r.WriteText(&s)
	return s.String()
}
