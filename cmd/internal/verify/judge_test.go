package verify

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Histories without a breach: the judge must not cry wolf.
func TestCleanHistories(t *testing.T) {
	for name, make := range map[string]func(s *scene){
		"nothing at all": func(s *scene) { *s = scene{History: History{Settled: true}} },
		"one of everything, one of a key": func(s *scene) {
			s.client("/t/*").begin(Pos{}).all().live()
			s.client("/t/k1").begin(Pos{}).msg(1, 3, 5, 7, 9)
			s.client("/t/k*").begin(Pos{}) // a key, not a pattern
		},
		"subscribed half way": func(s *scene) { s.client("/t/*").begin(posAt(4)).msg(5, 6, 7, 8, 9) },
		"resumed on another node": func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut().resume("n2", posAt(2)).msg(3, 4, 5, 6, 7, 8, 9).live()
		},
		"the end of one epoch and the beginning of the next are one place": func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4).cut().resume("n2", Pos{2, 0}).msg(5, 6, 7, 8, 9)
		},
		"an epoch without records": func(s *scene) {
			s.client("/t/*").begin(Pos{}).all().cut().resume("n2", Pos{3, 0}).live()
		},
		"a key that is not at its place's end": func(s *scene) {
			s.client("/t/k0").begin(Pos{}).msg(0, 2, 4).cut().resume("n2", posAt(5)).msg(6, 8).cut().resume("n1", posAt(9))
			s.client("/t/*").begin(Pos{}).all()
		},
		"two records of one message in Kafka, one for subscribers": func(s *scene) {
			p := s.publish("p", "/t/k0")
			k := s.Kafka[len(s.Kafka)-1]
			k.Offset++
			s.Kafka = append(s.Kafka, k)
			p.Attempts = append(p.Attempts, p.Attempts[0])
			p.Attempts[0].Outcome, p.Attempts[0].Code = Refused, "unavailable"
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			s.Publishes[0].Attempts[1].Duplicate = true
		},
		"an aborted record that nobody got": func(s *scene) {
			s.Written = append(s.Written, Write{Partition: Partition{topic, 0}, Offset: 10, ID: "x", Outcome: Aborted})
			s.client("/t/*").begin(Pos{}).all()
		},
		"deleted and declared by a resume": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1).cut()
			s.remove(Deleted, 0, 6)
			c.notRecovered(posAt(5), "evicted", LostRange{0, posAt(2), posAt(5)}).msg(6, 7, 8, 9)
		},
		"deleted and declared by a gap": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1)
			s.remove(Deleted, 0, 6)
			c.gap(posAt(5), "evicted").msg(6, 7, 8, 9)
		},
		"deleted after it came": func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.remove(Deleted, 0, 6)
		},
		"truncated and declared": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			s.write("new9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("new9", Pos{3, 2})
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7).gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("new9", Pos{3, 2})
		},
		"sent again after the truncation of what was not acknowledged": func(s *scene) {
			s.unanswered("r9")
			c := s.client("/t/*").begin(Pos{}).all().msgOf("w", "/t/k0", posAt(11))
			s.remove(Truncated, 8, 1000)
			s.write("new8", "/t/k0")
			s.write("r9", "/t/k1") // its first copy stood at the same offset
			s.write("w", "/t/k0")  // and this one's at 11
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("r9", Pos{3, 2}).msgAs("w", Pos{3, 3})
			// This one reads slowly: it has from its node's cache what others had long before.
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7).msgOf("r8", "/t/k0", posAt(8)).msgAs("r9", posAt(9)).msgAs("w", posAt(11)).
				gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("r9", Pos{3, 2}).msgAs("w", Pos{3, 3})
		},
		"truncated and declared before the stream came there": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5).cut()
			d := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5)
			all := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			all.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1})
			c.notRecovered(posAt(5), "truncated", LostRange{0, posAt(8), posAt(9)}).msg(6, 7).msgAs("new8", Pos{3, 1})
			d.gap(posAt(5), "truncated").msg(6, 7).msgAs("new8", Pos{3, 1})
		},
		"created again and declared": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all().cut()
			s.remove(Recreated, 0, 0)
			s.write("new0", "/t/k0")
			c.notRecovered(Pos{3, 0}, "truncated").msgAs("new0", Pos{3, 1})
		},
		"sent again after the topic was created again, of what was not acknowledged": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all().msgOf("w", "/t/k0", posAt(10))
			s.remove(Recreated, 0, 1000)
			s.write("new0", "/t/k0")
			s.write("w", "/t/k0")
			c.gap(Pos{3, 0}, "truncated").msgAs("new0", Pos{3, 1}).msgAs("w", Pos{3, 2})
		},
		"truncated twice and declared twice": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 1000)
			s.write("new8", "/t/k0")
			s.write("new9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("new9", Pos{3, 2})
			s.remove(Truncated, 9, 1000)
			s.write("newer9", "/t/k1")
			c.gap(Pos{4, 0}, "truncated").msgAs("newer9", Pos{4, 1})
		},
		"records that Kafka had after the truncation and nobody read before": func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7)
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			c.msgAs("new8", posAt(8))
		},
		"left before the end": func(s *scene) { s.client("/t/*").begin(Pos{}).msg(0, 1); s.Subscribers[0].Left = true },
		"not settled":         func(s *scene) { s.Settled = false; s.client("/t/*").begin(Pos{}).msg(0, 1) },
		"a partition that the first vector did not name": func(s *scene) {
			c := s.client("/t/*").begin(posAt(9))
			s.now += time.Second
			s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 1}, ID: "q", Subject: "/t/q", TS: s.Began.Add(s.now).UnixMilli()})
			c.add(Event{Kind: Msg, Place: Place{1, Pos{1, 1}}, ID: "q", Subject: "/t/q"})
			s.client("/t/k1").begin(posAt(9)) // other subjects do not care
		},
		"prev": func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			for i := range s.Subscribers[0].Events {
				if e := &s.Subscribers[0].Events[i]; e.Kind == Msg && e.Seqno > 2 {
					e.Prev = Pos{e.Epoch, e.Seqno - 2}
				}
			}
		},
		// Where epoch 2 began only its last vector tells, and that counts two records that were aborted.
		"prev of before the run, in an epoch of which no record came": func(s *scene) {
			c := s.client("/t/*").begin(Pos{2, 7})
			for i, key := range []string{"k0", "k1", "k0"} {
				offset := int64(12 + i)
				s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 0}, Offset: offset, ID: fmt.Sprint("n", i), Subject: "/t/" + key, TS: s.Began.Add(s.tick()).UnixMilli()})
				c.msgAs(fmt.Sprint("n", i), Pos{3, uint64(i) + 1})
			}
			for i, prev := range []Pos{posAt(8), posAt(9), {3, 1}} {
				s.Subscribers[0].Events[2+i].Prev = prev
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene()
			make(s)
			r := Judge(throughJSON(t, s.History))
			if !r.Clean() {
				t.Errorf("cried wolf:\n%s", r.text())
			}
		})
	}
}

// Each kind of breach is found, and named as what it is.
func TestBreachesAreFound(t *testing.T) {
	type want map[Kind]int
	for name, c := range map[string]struct {
		want want
		make func(s *scene)
	}{
		"lost in the middle": {want{Lost: 1}, func(s *scene) { s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 4, 5, 6, 7, 8, 9) }},
		"lost at the end":    {want{Lost: 2}, func(s *scene) { s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7) }},
		"lost by all": {want{Lost: 4}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7)
			s.client("/t/*").begin(posAt(2)).msg(3, 4, 5, 6, 7)
		}},
		"all lost by all": {want{Lost: 10}, func(s *scene) { s.client("/t/*").begin(Pos{}) }},
		"lost by a key":   {want{Lost: 1}, func(s *scene) { s.client("/t/k1").begin(Pos{}).msg(1, 3, 7, 9) }},
		"lost at the seam of a resume": {want{Lost: 2}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut().resume("n2", posAt(2)).msg(5, 6, 7, 8, 9)
		}},
		"lost by a resume that goes on too late": {want{Lost: 2}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut().resume("n2", posAt(4)).msg(5, 6, 7, 8, 9)
		}},
		"lost at the beginning of an epoch": {want{Lost: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4).cut().resume("n2", Pos{2, 0}).msg(6, 7, 8, 9)
		}},
		"lost in a partition that the first vector did not name": {want{Lost: 1}, func(s *scene) {
			s.client("/t/*").begin(posAt(9))
			s.now += time.Second
			s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 1}, ID: "q", Subject: "/t/q", TS: s.Began.Add(s.now).UnixMilli()})
		}},
		"an acknowledged publish lost": {want{Lost: 1}, func(s *scene) {
			s.publish("p", "/t/k0")
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		}},
		"repeated":             {want{Repeated: 1}, func(s *scene) { s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9) }},
		"repeated by a resume": {want{Repeated: 2}, func(s *scene) { s.client("/t/*").begin(Pos{}).all().cut().resume("n2", posAt(9)).msg(8, 9) }},
		"repeated by a resume that goes back": {want{Repeated: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all().cut().resume("n2", posAt(8)).msg(9)
		}},
		"out of order": {want{OutOfOrder: 1}, func(s *scene) { s.client("/t/*").begin(Pos{}).msg(0, 1, 3, 2, 4, 5, 6, 7, 8, 9) }},
		"two nodes, two positions of one record": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.client("/t/*").begin(posAt(8)).msgAs("r9", Pos{2, 6})
		}},
		"two nodes, two epochs of one record": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.client("/t/*").begin(posAt(8)).msgAs("r9", Pos{3, 1})
		}},
		"two nodes, two records of one position": {want{Disagree: 2, OutOfOrder: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.client("/t/*").begin(posAt(7)).msgAs("r9", posAt(8)).msgAs("r8", posAt(9))
		}},
		"an acknowledgement with another position": {want{Disagree: 1}, func(s *scene) {
			s.publish("p", "/t/k0").Attempts[0].Pos = Pos{2, 77}
			s.client("/t/*").begin(Pos{}).all()
		}},
		"a predecessor that is not": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			events := s.Subscribers[0].Events
			events[len(events)-1].Prev = posAt(8) // of the other key
		}},
		"a predecessor before one that came, behind others of which only a vector tells": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/k0").begin(Pos{}).msg(0, 2, 4).cut()
			s.Subscribers[0].Left = true
			s.Kafka = append(s.Kafka, Record{Partition: Partition{topic, 0}, Offset: 12, ID: "n", Subject: "/t/k0", TS: s.Began.Add(s.tick()).UnixMilli()})
			s.client("/t/k0").begin(Pos{2, 7}).msgAs("n", Pos{3, 1})
			events := s.Subscribers[1].Events
			events[len(events)-1].Prev = posAt(2)
		}},
		"a predecessor left out": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			events := s.Subscribers[0].Events
			events[len(events)-1].Prev = posAt(5)
		}},
		"an acknowledged publish that Kafka has not": {want{AckedLost: 1}, func(s *scene) {
			s.publish("p", "/t/k0")
			s.Kafka = s.Kafka[:10]
			s.client("/t/*").begin(Pos{}).all()
		}},
		"an acknowledged publish that is elsewhere": {want{AckedLost: 1}, func(s *scene) {
			s.publish("p", "/t/k0").Attempts[0].Offset = 3
			s.client("/t/*").begin(Pos{}).all()
		}},
		"a message written again after its acknowledgement": {want{AckedTwice: 1}, func(s *scene) {
			p := s.publish("p", "/t/k0")
			k := s.Kafka[len(s.Kafka)-1]
			again := p.Attempts[0]
			k.Offset++
			again.Offset, again.Sent, again.Answered = k.Offset, s.tick(), s.tick()
			again.Pos = posAt(k.Offset)
			s.Kafka = append(s.Kafka, k)
			p.Attempts = append(p.Attempts, again)
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
		}},
		"a message that came twice": {want{Doubled: 1}, func(s *scene) {
			s.publish("p", "/t/k0")
			k := s.Kafka[len(s.Kafka)-1]
			k.Offset++
			s.Kafka = append(s.Kafka, k)
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7, 8, 9).msgAs("p", posAt(10)).msgAs("p", posAt(11))
		}},
		"declared lost by a resume, and in Kafka": {want{FalseLoss: 3}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut().notRecovered(posAt(4), "evicted").msg(5, 6, 7, 8, 9)
		}},
		"declared lost by a resume that then delivers it": {want{FalseLoss: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut().notRecovered(posAt(2), "unknown_epoch").msg(3, 4, 5, 6, 7, 8, 9)
		}},
		"declared lost by a gap, and in Kafka": {want{FalseLoss: 3}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2).gap(posAt(4), "truncated").msg(5, 6, 7, 8, 9)
		}},
		"a gap of nothing": {want{FalseLoss: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4).gap(Pos{2, 0}, "truncated").msg(5, 6, 7, 8, 9)
		}},
		"declared lost, when only what it had was deleted": {want{FalseLoss: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut()
			s.remove(Deleted, 0, 2)
			c.notRecovered(posAt(2), "evicted").msg(3, 4, 5, 6, 7, 8, 9)
		}},
		"more declared lost than was deleted": {want{FalseLoss: 3}, func(s *scene) { // named in the range, and passed by
			c := s.client("/t/*").begin(Pos{}).msg(0, 1).cut()
			s.remove(Deleted, 0, 6)
			c.notRecovered(posAt(6), "evicted", LostRange{0, posAt(2), posAt(7)}).msg(7, 8, 9)
		}},
		"deleted and not declared by a resume": {want{Undeclared: 4}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1).cut()
			s.remove(Deleted, 0, 6)
			c.resume("n2", posAt(5)).msg(6, 7, 8, 9)
		}},
		"deleted and not declared in a stream": {want{Undeclared: 4}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1)
			s.remove(Deleted, 0, 6)
			c.msg(6, 7, 8, 9)
		}},
		"truncated and not declared": {want{Undeclared: 2}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5, 6, 7)
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			c.msgAs("new8", Pos{3, 1})
			client{s, 0}.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1})
		}},
		"twice after a truncation that did not reach so far": {want{Disagree: 1, OutOfOrder: 1, Repeated: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all().msgOf("w", "/t/k0", posAt(10))
			s.remove(Truncated, 8, 10)
			s.write("new8", "/t/k0")
			s.write("w", "/t/k0")
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("w", Pos{3, 2})
		}},
		"truncated, and declared in part": {want{Undeclared: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5).cut()
			all := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			all.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1})
			c.notRecovered(posAt(5), "truncated", LostRange{0, posAt(8), posAt(8)}).msg(6, 7).msgAs("new8", Pos{3, 1})
		}},
		"lost after a truncation": {want{Lost: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			s.write("new9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated").msgAs("new9", Pos{3, 2})
		}},
		"all lost after a truncation": {want{Lost: 2}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 0)
			s.write("new8", "/t/k0")
			s.write("new9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated")
		}},
		"an aborted record": {want{Phantom: 1}, func(s *scene) {
			s.Written = append(s.Written, Write{Partition: Partition{topic, 0}, Offset: 10, ID: "x", Outcome: Aborted})
			s.client("/t/*").begin(Pos{}).all().msgAs("x", posAt(10))
		}},
		"a record of nobody": {want{Phantom: 1}, func(s *scene) { s.client("/t/*").begin(Pos{}).all().msgAs("x", posAt(10)) }},
		"another's record":   {want{WrongAnswer: 1}, func(s *scene) { s.client("/t/k1").begin(posAt(5)).msg(6, 7, 9) }},
		"a changed subject": {want{Damaged: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.Subscribers[0].Events[5].Subject = "/t/other"
		}},
		"a changed value": {want{Damaged: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all()
			s.Subscribers[0].Events[5].Damaged = true
		}},
		"an unknown op": {want{WrongAnswer: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all().add(Event{Kind: Violation, Detail: &Detail{Message: "op x"}})
		}},
		"replicated without a position": {want{WrongAnswer: 1}, func(s *scene) {
			s.publish("p", "/t/k0").Attempts[0].Pos = Pos{}
			s.client("/t/*").begin(Pos{}).all()
		}},
		"never subscribed": {want{NeverThere: 1}, func(s *scene) { s.client("/t/*").connect("n1") }},
		"silence over the limit": {want{TooSilent: 1}, func(s *scene) {
			s.Limits.Silence = time.Second
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2)
			s.now += 2 * time.Second
			c.msg(3, 4, 5, 6, 7, 8, 9)
		}},
		"resume over the limit": {want{TooLate: 1}, func(s *scene) {
			s.Limits.Resume = time.Second
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2).cut()
			s.now += 2 * time.Second
			c.resume("n2", posAt(2)).msg(3, 4, 5, 6, 7, 8, 9)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene()
			c.make(s)
			r := Judge(throughJSON(t, s.History))
			if r.Clean() {
				t.Fatal("found nothing")
			}
			if !reflect.DeepEqual(want(r.Counts), c.want) {
				t.Errorf("found %v, want %v:\n%s", r.Counts, c.want, r.text())
			}
			for k := range c.want {
				if !slices.ContainsFunc(r.Breaches, func(b Breach) bool { return b.Kind == k && b.Detail != "" }) || !strings.Contains(r.text(), string(k)) {
					t.Errorf("%s is not told:\n%s", k, r.text())
				}
			}
		})
	}
}

// throughJSON shows that nothing of a history gets lost when it is kept in a file.
func throughJSON(t *testing.T, h History) History {
	t.Helper()
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var back History
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(back); string(again) != string(b) {
		t.Fatalf("a history is not the same after JSON:\n%s\n%s", b, again)
	}
	return back
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		subscription, subject string
		want                  bool
	}{
		{"/t/*", "/t", true}, {"/t/*", "/t/", true}, {"/t/*", "/t/a/b", true}, {"/t/*", "/u/a", false}, {"/t/*", "/tt", false},
		{"/t/a/*", "/t/a/b", true}, {"/t/a/*", "/t/a/", true}, {"/t/a/*", "/t/a", false}, {"/t/a/*", "/t/ab", false}, {"/t/a/*", "/t", false},
		{"/t", "/t", true}, {"/t", "/t/a", false}, {"/t/a", "/t/a", true}, {"/t/a*", "/t/ab", false},
	} {
		if got := matches(c.subscription, c.subject); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.subscription, c.subject, got)
		}
	}
}
