package verify

import (
	"reflect"
	"testing"
)

// A removal explains no more than it did: what nodes disagree on, lose or repeat in what was truncated or created
// again is found as it is elsewhere.
func TestBreachesBesideRemovals(t *testing.T) {
	type want map[Kind]int
	// truncated loses the last two of ten records and has two others there, given to c.
	truncated := func(s *scene) (c client) {
		c = s.client("/t/*").begin(Pos{}).all()
		s.remove(Truncated, 8, 1000)
		s.write("new8", "/t/k0")
		s.write("new9", "/t/k1")
		return c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1}).msgAs("new9", Pos{3, 2})
	}
	recreated := func(s *scene) (c client) {
		c = s.client("/t/*").begin(Pos{}).all()
		s.remove(Recreated, 0, 1000)
		s.write("new0", "/t/k0")
		s.write("new1", "/t/k1")
		return c.gap(Pos{3, 0}, "truncated").msgAs("new0", Pos{3, 1}).msgAs("new1", Pos{3, 2})
	}
	for name, c := range map[string]struct {
		want want
		make func(s *scene)
	}{
		"truncated, two positions in one epoch": {want{Disagree: 1}, func(s *scene) {
			truncated(s)
			s.client("/t/*").begin(Pos{3, 1}).msgAs("new9", Pos{3, 7})
		}},
		"truncated, what was acknowledged and lost is stamped again": {want{Disagree: 1, Repeated: 1}, func(s *scene) {
			truncated(s).msgAs("r9", Pos{3, 3})
		}},
		"truncated, two positions of what was lost": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(posAt(8)).msgAs("r9", Pos{1, 80}).leave()
			truncated(s)
		}},
		"truncated, the next epoch stamps the new records again": {want{Disagree: 2}, func(s *scene) {
			truncated(s)
			s.client("/t/*").begin(Pos{3, 0}).msgAs("new8", Pos{4, 1}).msgAs("new9", Pos{4, 2})
		}},
		"truncated, a record that was kept is stamped again": {want{Disagree: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 9, 1000)
			s.Removed[0].From = 8 // nobody knows to the record how far the other copy had come
			s.write("new9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated").msgAs("new9", Pos{3, 2})
			s.client("/t/*").begin(posAt(7)).gap(posAt(7), "truncated").msgAs("r8", Pos{3, 1}).msgAs("new9", Pos{3, 2})
		}},
		"truncated, a later place that is told before": {want{Disagree: 2}, func(s *scene) {
			s.unanswered("r9")
			c := s.client("/t/*").begin(Pos{}).all()
			s.client("/t/*").begin(posAt(8)).msgAs("r9", Pos{3, 2}).leave()
			s.remove(Truncated, 8, 1000)
			s.write("new8", "/t/k0")
			s.write("r9", "/t/k1")
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1})
		}},
		"truncated, two earlier places": {want{Disagree: 1, Repeated: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all().msgOf("w", "/t/k0", posAt(11)).msgOf("w", "/t/k0", posAt(12))
			s.remove(Truncated, 8, 1000)
			s.write("w", "/t/k0")
			c.gap(Pos{3, 0}, "truncated").msgAs("w", Pos{3, 1})
		}},
		"truncated, two positions in one epoch while it is not over": {want{Disagree: 1}, func(s *scene) {
			truncated(s)
			s.client("/t/*").begin(Pos{3, 1}).msgAs("new9", Pos{3, 7})
			s.Removed[0].Ended = s.tick()
		}},
		"truncated, two positions of what was acknowledged while it began and lost": {want{Disagree: 1}, func(s *scene) {
			began := s.tick()
			s.write("w", "/t/k0")
			s.client("/t/*").begin(posAt(9)).msgAs("w", Pos{1, 80}).leave()
			c := s.client("/t/*").begin(Pos{}).all()
			s.remove(Truncated, 8, 1000)
			s.Removed[0].Began = began
			s.write("new8", "/t/k0")
			c.gap(Pos{3, 0}, "truncated").msgAs("new8", Pos{3, 1})
		}},
		"created again, two positions in one epoch": {want{Disagree: 1}, func(s *scene) {
			recreated(s)
			s.client("/t/*").begin(Pos{3, 1}).msgAs("new1", Pos{3, 7})
		}},
		"created again, an earlier place that is told after": {want{Disagree: 1, Repeated: 1}, func(s *scene) {
			recreated(s).msgAs("new1", posAt(9))
		}},
		"created again, the next epoch stamps the new records again": {want{Disagree: 2, Repeated: 2}, func(s *scene) {
			recreated(s).msgAs("new0", Pos{4, 1}).msgAs("new1", Pos{4, 2})
		}},
		"created again, two positions in the topic before": {want{Disagree: 1}, func(s *scene) {
			s.client("/t/*").begin(posAt(8)).msgAs("r9", Pos{1, 80}).leave()
			recreated(s)
		}},
		"created again, a place beyond the end of the topic before": {want{Disagree: 1, Lost: 2, Undeclared: 1}, func(s *scene) {
			s.client("/t/*").begin(posAt(8)).msgOf("w", "/t/k0", posAt(5000)).leave() // and so was led past three others
			c := recreated(s)
			s.write("w", "/t/k0")
			c.msgAs("w", Pos{3, 3})
		}},
		"created again, published since and not in Kafka": {want{AckedLost: 1}, func(s *scene) {
			recreated(s)
			s.publish("p", "/t/k0").Attempts[0].Pos = Pos{3, 3}
			s.Kafka = s.Kafka[:2]
		}},
		"created again, a record of nobody beyond its end": {want{Phantom: 1}, func(s *scene) {
			c := s.client("/t/*").begin(Pos{}).all().msgAs("x", posAt(5000))
			s.remove(Recreated, 0, 1000)
			s.write("new0", "/t/k0")
			c.gap(Pos{3, 0}, "truncated").msgAs("new0", Pos{3, 1})
		}},
		"truncated again, and declared but once": {want{Undeclared: 1}, func(s *scene) {
			all := truncated(s)
			// It has a place in what both truncations left, and is told of the first.
			c := s.client("/t/*").begin(Pos{}).msg(0, 1, 2, 3, 4, 5).gap(posAt(5), "truncated")
			s.remove(Truncated, 9, 1000)
			s.write("newer9", "/t/k1")
			all.gap(Pos{4, 0}, "truncated").msgAs("newer9", Pos{4, 1})
			c.msg(6, 7).msgAs("new8", Pos{3, 1}).msgAs("newer9", Pos{4, 1})
		}},
		"declared before it was truncated": {want{FalseLoss: 1}, func(s *scene) {
			s.client("/t/*").begin(Pos{}).all().gap(posAt(9), "truncated")
			s.remove(Truncated, 10, 1000)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene()
			c.make(s)
			if r := Judge(throughJSON(t, s.History)); !reflect.DeepEqual(want(r.Counts), c.want) {
				t.Errorf("found %v, want %v:\n%s", r.Counts, c.want, r.text())
			}
		})
	}
}
