package replication

import (
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

func TestTurn(t *testing.T) {
	const ms = time.Millisecond
	begin := time.Unix(1000, 0)
	before, after := begin.Add(-time.Second), begin.Add(10*ms)
	// step is a look, so long after the first one.
	type step struct {
		at    time.Duration
		sight sight
		want  bool
	}
	b := func(term bridge.Term, electing, idle bool) sight {
		return sight{id: "b", term: term, electing: electing, idle: idle, contact: before}
	}
	gave := func(s sight) sight { s.contact = after; return s }
	asked := func(s sight) sight { s.at = begin; return s } // the answers took until after gave
	early := sight{id: "b", term: 1, early: true}
	for _, c := range []struct {
		name   string
		steps  []step
		passed string
	}{
		{"it stands at once", []step{{0, b(7, false, true), true}, {5 * ms, b(7, false, false), false}}, ""},
		{"it is passed over when nothing comes of it", []step{{0, b(7, false, false), true}, {399 * ms, b(7, false, false), false}, {401 * ms, b(7, false, false), false}}, "b"},
		{"a later term is a sign", []step{{0, b(7, false, false), true}, {300 * ms, b(8, false, false), false}, {600 * ms, b(8, false, false), false}}, ""},
		{"but not for ever", []step{{0, b(7, false, false), true}, {1400 * ms, b(8, false, false), false}, {1501 * ms, b(9, false, false), false}}, "b"},
		{"idle again, it stands again", []step{{0, b(7, false, true), true}, {30 * ms, b(7, false, true), false}, {41 * ms, b(7, false, true), true}}, ""},
		{"not when it has given its vote meanwhile", []step{{0, b(7, false, true), true}, {20 * ms, gave(b(8, false, true)), false}, {100 * ms, gave(b(8, false, true)), false}, {419 * ms, gave(b(8, false, true)), false}}, ""},
		{"nor while the others were asked", []step{{12 * ms, asked(b(7, false, true)), true}, {20 * ms, gave(b(8, false, true)), false}, {100 * ms, gave(b(8, false, true)), false}}, ""},
		{"and if nobody has won it goes on", []step{{0, b(7, false, true), true}, {20 * ms, gave(b(8, false, true)), false}, {421 * ms, gave(b(8, false, true)), false}}, "b"},
		{"an election that goes on may end", []step{{0, b(8, true, true), false}, {50 * ms, b(8, true, true), false}, {399 * ms, b(8, false, true), false}}, ""},
		{"it takes its turn if that is not won", []step{{0, b(8, true, true), false}, {401 * ms, b(8, true, true), true}, {402 * ms, b(8, true, false), false}, {800 * ms, b(8, true, false), false}}, ""},
		{"and has as much time as any", []step{{0, b(8, true, true), false}, {401 * ms, b(8, true, false), true}, {802 * ms, b(8, true, false), false}}, "b"},
		{"one that waits for others to begin is waited for", []step{{0, early, true}, {799 * ms, early, false}}, ""},
		{"in vain", []step{{0, early, true}, {801 * ms, early, false}}, "b"},
		{"each later term is waited for", []step{{0, b(8, true, true), false}, {300 * ms, b(9, true, true), false}, {699 * ms, b(9, true, true), false}, {701 * ms, b(9, true, true), true}}, ""},
		{"another's turn begins at once", []step{{0, b(8, true, true), false}, {20 * ms, sight{id: "c", term: 8}, true}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &waiting{passed: map[bridge.NodeID]bool{}}
			for _, s := range c.steps {
				if s.sight.at.IsZero() {
					s.sight.at = begin.Add(s.at)
				}
				if got := w.turn(begin.Add(s.at), s.sight); got != s.want {
					t.Errorf("after %v: %v, want %v", s.at, got, s.want)
				}
			}
			if got := w.passed["b"]; got != (c.passed == "b") {
				t.Errorf("passed over: %v", w.passed)
			}
		})
	}
}

func TestEarly(t *testing.T) {
	w, now := &waiting{}, time.Unix(1000, 0)
	for _, c := range []struct {
		at   time.Duration
		want bool
	}{{0, true}, {takeoverPatience, true}, {takeoverPatience + 1, false}} {
		if got := w.early(now.Add(c.at)); got != c.want {
			t.Errorf("after %v: %v", c.at, got)
		}
	}
}

func TestSuccessionBeginningAndElecting(t *testing.T) {
	in := func(leader bridge.NodeID, term bridge.Term, last uint64) view {
		v := said("abc", at(leader, 1, last))
		v.groups[0].Term = term
		return v
	}
	more := in("", 1, 1)
	more.groups = append(more.groups, in("", 2, 1).groups...)
	three := []Peer{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	type views = map[bridge.NodeID]view
	for _, c := range []struct {
		name      string
		views     views
		beginning bool
		electing  bool          // of which b does not know
		want      bridge.NodeID // to stand; empty: nobody
	}{
		{"nobody has begun", views{"a": in("", 0, 0), "b": in("", 0, 0), "c": in("", 0, 0)}, false, false, ""},
		{"one has", views{"a": in("", 0, 0), "b": in("", 1, 1), "c": in("", 0, 0)}, true, false, ""},
		{"two have", views{"a": in("", 0, 0), "b": in("", 1, 1), "c": in("", 1, 1)}, true, false, "b"},
		{"two have, and more in another group", views{"a": in("", 0, 0), "b": in("", 1, 1), "c": more}, false, false, "b"},
		{"all have", views{"a": in("", 1, 1), "b": in("", 1, 1), "c": in("", 1, 1)}, false, false, "a"},
		{"two have, the other is away", views{"b": in("", 1, 1), "c": in("", 1, 1)}, false, false, "b"},
		{"one stands already", views{"a": in("", 0, 0), "b": in("", 1, 1), "c": in("", 2, 1)}, false, true, "b"},
		{"one leads already", views{"a": in("", 0, 0), "b": in("c", 2, 2), "c": in("c", 2, 2)}, false, false, ""},
		{"one has lost its disk", views{"a": in("", 0, 0), "b": in("", 7, 9), "c": in("", 7, 9)}, false, false, "b"},
		{"and another its life", views{"a": in("", 0, 0), "b": in("", 7, 9)}, false, false, ""},
		{"one knows of an election won by a node that is lost", views{"b": in("a", 7, 9), "c": in("a", 8, 9)}, false, false, "b"},
		{"one is in a later term, with nobody", views{"b": in("a", 7, 9), "c": in("", 8, 9)}, false, true, "b"},
		{"b is in the latest term itself", views{"b": in("", 8, 9), "c": in("", 7, 9)}, false, false, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := succession{members: three, views: c.views}
			if _, there := c.views["a"]; !there {
				s.lost = map[bridge.NodeID]time.Duration{"a": 0}
				for id, v := range c.views {
					v.alive = v.alive[1:]
					c.views[id] = v
				}
			}
			if got := s.beginning(); got != c.beginning {
				t.Errorf("beginning: %v", got)
			}
			if got := s.electing("b"); got != c.electing {
				t.Errorf("electing: %v", got)
			}
			if got, ok := s.candidate(); ok != (c.want != "") || ok && got != c.want {
				t.Errorf("%q, %v stands, want %q", got, ok, c.want)
			}
		})
	}
}
