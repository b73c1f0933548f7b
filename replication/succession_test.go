package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// said makes a view of group 0.
func said(alive string, s standing) view {
	v := view{at: time.Now(), groups: []standing{s}}
	for _, c := range alive {
		v.alive = append(v.alive, bridge.NodeID(c))
	}
	return v
}

func at(leader bridge.NodeID, lastTerm, last uint64) standing {
	return standing{GroupStatus: bridge.GroupStatus{Leader: leader, Last: last, Term: 7}, lastTerm: lastTerm, quiet: time.Hour}
}

func TestSuccession(t *testing.T) {
	three := []Peer{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	five := append(slices.Clone(three), Peer{ID: "d"}, Peer{ID: "e"})
	change := func(s standing, f func(*standing)) standing { f(&s); return s }
	unfit := func(s standing) standing { s.fitness = fitnessUnfit; return s }
	draining := said("bc", at("", 3, 10))
	draining.draining = true
	silent := map[bridge.NodeID]time.Duration{"a": time.Second}
	type views = map[bridge.NodeID]view
	for _, c := range []struct {
		name string
		succession
		want bridge.NodeID // empty: nobody
	}{
		{"equal logs: the first in the group's order", succession{members: three, views: views{"b": said("bc", at("a", 3, 10)), "c": said("bc", at("a", 3, 10))}}, "b"},
		{"the longer log", succession{members: three, views: views{"b": said("bc", at("a", 3, 9)), "c": said("bc", at("a", 3, 10))}}, "c"},
		{"a later term counts more than length", succession{members: three, views: views{"b": said("bc", at("", 4, 9)), "c": said("bc", at("", 3, 10))}}, "b"},
		{"one that does not say its term is compared by length", succession{members: three, views: views{"b": said("", at("", 0, 9)), "c": said("bc", at("", 3, 10))}}, "c"},
		{"one who still hears the leader is no majority with us", succession{members: three, views: views{"b": said("bc", at("a", 3, 10)), "c": said("abc", at("a", 3, 10))}}, ""},
		{"alone", succession{members: three, views: views{"b": said("b", at("a", 3, 10))}}, ""},
		{"two of five", succession{members: five, views: views{"b": said("bc", at("a", 3, 10)), "c": said("bc", at("a", 3, 10))}}, ""},
		{"three of five", succession{members: five, views: views{"c": said("cde", at("a", 3, 10)), "d": said("cde", at("a", 3, 10)), "e": said("cde", at("a", 3, 10))}}, "c"},
		{"restarted: it says itself that it does not lead", succession{members: three, views: views{
			"a": said("abc", at("", 3, 10)), "b": said("abc", at("a", 3, 10)), "c": said("abc", at("a", 3, 10))}}, "b"},
		{"it leads on, only we do not hear it", succession{members: three, views: views{
			"a": said("abc", at("a", 3, 10)), "b": said("bc", at("a", 3, 10)), "c": said("bc", at("a", 3, 10))}}, ""},
		{"another leads already", succession{members: three, views: views{"b": said("bc", at("", 3, 10)), "c": said("bc", at("b", 3, 10))}}, ""},
		{"silent for long enough to both", succession{members: three, lost: silent, views: views{"b": said("bc", at("a", 3, 10)), "c": said("bc", at("a", 3, 10))}}, "b"},
		{"Raft heard it a moment ago", succession{members: three, lost: silent, views: views{"b": said("bc", at("a", 3, 10)),
			"c": said("bc", change(at("a", 3, 10), func(s *standing) { s.quiet = time.Second / 2 }))}}, ""},
		{"a newcomer does not stand, but counts", succession{members: three, views: views{"b": said("bc", change(at("a", 3, 10), func(s *standing) { s.barred = true })), "c": said("bc", at("a", 3, 10))}}, "c"},
		{"one that is unfit lets another go first", succession{members: three, views: views{"b": said("bc", unfit(at("a", 3, 10))), "c": said("bc", at("a", 3, 10))}}, "c"},
		{"unless its log is longer", succession{members: three, views: views{"b": said("bc", unfit(at("a", 3, 10))), "c": said("bc", at("a", 3, 9))}}, "b"},
		{"or the other is unfit as well", succession{members: three, views: views{"b": said("bc", unfit(at("a", 3, 10))), "c": said("bc", unfit(at("a", 3, 10)))}}, "b"},
		{"the longer log may not stand, and would not vote for the other", succession{members: three, views: views{"b": said("bc", at("a", 3, 9)), "c": said("bc", change(at("a", 3, 10), func(s *standing) { s.barred = true }))}}, ""},
		{"one that wants no leadership has the only log that can win", succession{members: three, views: views{"b": draining, "c": said("bc", at("", 3, 9))}}, "b"},
		{"of five the other two are enough", succession{members: five, views: views{"c": said("cde", at("a", 3, 9)), "d": said("cde", at("a", 3, 9)), "e": said("cde", at("a", 3, 9)), "b": said("bcde", change(at("", 3, 10), func(s *standing) { s.barred = true }))}}, "c"},
		{"nor does one that is stopping", succession{members: three, views: views{"b": draining, "c": said("bc", at("", 3, 10))}}, "c"},
		{"two were lost", succession{members: five, lost: map[bridge.NodeID]time.Duration{"a": 0, "b": 0}, views: views{
			"c": said("cde", at("a", 3, 10)), "d": said("cde", at("b", 3, 10)), "e": said("cde", at("", 3, 10))}}, "c"},
		{"nobody was lost: all come up", succession{members: three, lost: map[bridge.NodeID]time.Duration{}, views: views{
			"a": said("abc", at("", 3, 10)), "b": said("abc", at("", 3, 11)), "c": said("abc", at("", 3, 10))}}, "b"},
		{"nobody was lost: one comes up that knows no leader yet", succession{members: three, lost: map[bridge.NodeID]time.Duration{}, views: views{
			"a": said("abc", at("", 3, 10)), "b": said("abc", at("c", 3, 11)), "c": said("abc", at("c", 3, 11))}}, ""},
		{"passed over", succession{members: three, passed: map[bridge.NodeID]bool{"b": true}, views: views{"b": said("bc", at("a", 3, 10)), "c": said("bc", at("a", 3, 10))}}, "c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.lost == nil {
				c.lost = map[bridge.NodeID]time.Duration{"a": 0}
			}
			got, ok := c.candidate()
			if got != c.want && (ok || c.want != "") || ok != (c.want != "") {
				t.Errorf("%q, %v; want %q", got, ok, c.want)
			}
		})
	}
}

// Whoever is named can win: no majority holds a longer log than it. And all who have the same answers name
// the same.
func TestSuccessionNamesWhoCanWin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	named := 0
	for range 20000 {
		n := 3 + 2*rng.IntN(2)
		s := succession{group: bridge.GroupID(rng.IntN(8)), lost: map[bridge.NodeID]time.Duration{"n0": 0}, views: map[bridge.NodeID]view{}}
		var alive []bridge.NodeID
		for i := range n {
			id := bridge.NodeID(fmt.Sprintf("n%d", i))
			s.members = append(s.members, Peer{ID: id})
			if i > 0 && rng.IntN(4) > 0 {
				alive = append(alive, id)
			}
		}
		for _, id := range alive {
			groups := make([]standing, 8)
			groups[s.group] = at("", 1+rng.Uint64N(3), 1+rng.Uint64N(3))
			groups[s.group].barred = rng.IntN(6) == 0
			s.views[id] = view{alive: alive, groups: groups}
		}
		id, ok := s.candidate()
		if !ok {
			continue
		}
		named++
		votes := 0
		for _, v := range s.views {
			if !v.groups[s.group].newer(s.views[id].groups[s.group]) {
				votes++
			}
		}
		if 2*votes <= n {
			t.Fatalf("%s gets %d votes of %d: %+v", id, votes, n, s)
		}
	}
	if named < 1000 {
		t.Fatalf("only %d questions had an answer", named)
	}
}
