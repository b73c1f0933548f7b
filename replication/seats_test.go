package replication

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidewire/tidewire/bridge"
)

func seatsOf(nodes, groups int) seats {
	var members []Peer
	for i := range nodes {
		members = append(members, Peer{ID: bridge.NodeID(fmt.Sprintf("n%d", i))})
	}
	s := seats{candidates: map[bridge.GroupID][]bridge.NodeID{}, now: map[bridge.GroupID]bridge.NodeID{}, load: map[bridge.GroupID]float64{}}
	for g := range bridge.GroupID(groups) {
		for _, p := range preference(g, members) {
			s.candidates[g] = append(s.candidates[g], p.ID)
		}
	}
	return s
}

// tally counts groups and load by node.
func (s seats) tally(at map[bridge.GroupID]bridge.NodeID) (counts map[bridge.NodeID]int, load map[bridge.NodeID]float64) {
	counts, load = map[bridge.NodeID]int{}, map[bridge.NodeID]float64{}
	for g, id := range at {
		counts[id]++
		load[id] += s.load[g]
	}
	return counts, load
}

func TestSeatsAtFirst(t *testing.T) {
	s := seatsOf(3, 8)
	for g, id := range s.assign() {
		if id != s.candidates[g][0] {
			t.Errorf("group %d at %s, its first choice is %s", g, id, s.candidates[g][0])
		}
	}
}

// What is even stays where it is, whoever is whose first choice; loads that hardly differ, or are hardly any,
// move nothing.
func TestSeatsAtRest(t *testing.T) {
	s := seatsOf(3, 6)
	s.now = map[bridge.GroupID]bridge.NodeID{0: "n2", 1: "n2", 2: "n1", 3: "n0", 4: "n1", 5: "n0"}
	if got := s.assign(); !maps.Equal(got, s.now) {
		t.Errorf("idle: %v", got)
	}
	s.load = map[bridge.GroupID]float64{0: 1e6, 1: 1.1e6, 2: 0.9e6, 3: 1e6, 4: 1.05e6, 5: 0.95e6}
	if got := s.assign(); !maps.Equal(got, s.now) {
		t.Errorf("alike: %v", got)
	}
	s.load = map[bridge.GroupID]float64{0: 20e3, 1: 20e3}
	if got := s.assign(); !maps.Equal(got, s.now) {
		t.Errorf("next to nothing: %v", got)
	}
}

func TestSeatsSeparateTheBusy(t *testing.T) {
	s := seatsOf(3, 9)
	for g := range bridge.GroupID(9) {
		s.now[g] = bridge.NodeID(fmt.Sprintf("n%d", g/3))
	}
	s.load = map[bridge.GroupID]float64{0: 1e6, 1: 1e6, 2: 1e6}
	at := s.assign()
	if at[0] == at[1] || at[1] == at[2] || at[0] == at[2] {
		t.Errorf("two busy groups share a node: %v", at)
	}
}

// A node comes back: it gets its share, and of the busy ones as well.
func TestSeatsForOneThatReturns(t *testing.T) {
	s := seatsOf(3, 8)
	for g := range bridge.GroupID(8) {
		s.now[g] = bridge.NodeID(fmt.Sprintf("n%d", g%2))
	}
	s.load = map[bridge.GroupID]float64{0: 3e6, 2: 3e6, 1: 1e6}
	at := s.assign()
	counts, load := s.tally(at)
	if counts["n2"] < 2 || load["n2"] != 3e6 || load["n0"] != 3e6 {
		t.Errorf("%v leads to %v, %v", at, counts, load)
	}
	moved := 0
	for g, id := range at {
		if id != s.now[g] {
			moved++
		}
	}
	if moved > 3 {
		t.Errorf("%d groups move: %v", moved, at)
	}
}

// Whatever there is: nobody leads what it may not; where all may lead all, numbers differ by one at most; the
// outcome is at rest, also between nodes that know slightly other loads.
func TestSeatsAlways(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	moved, traded := 0, 0
	for range 3000 {
		nodes, groups := 1+rng.IntN(5), 1+rng.IntN(16)
		s := seatsOf(nodes, groups)
		picky := rng.IntN(2) == 0
		for g := range bridge.GroupID(groups) {
			if rng.IntN(4) > 0 {
				s.now[g] = bridge.NodeID(fmt.Sprintf("n%d", rng.IntN(nodes+1))) // or one that is not there
			}
			s.load[g] = float64(rng.IntN(3)) * rng.ExpFloat64() * 1e6
			if c := s.candidates[g]; picky && rng.IntN(4) == 0 { // somebody may not
				i := rng.IntN(len(c))
				s.candidates[g] = append(c[:i:i], c[i+1:]...)
			}
		}
		at := s.assign()
		if !maps.Equal(at, s.assign()) {
			t.Fatal("not a function")
		}
		counts, load := s.tally(at)
		for g, id := range at {
			if !slices.Contains(s.candidates[g], id) {
				t.Fatalf("group %d at %s, which may not", g, id)
			}
			if id != s.now[g] {
				moved++
			}
		}
		if !picky {
			for i := range nodes {
				for j := range nodes {
					a, b := bridge.NodeID(fmt.Sprintf("n%d", i)), bridge.NodeID(fmt.Sprintf("n%d", j))
					if counts[a] > counts[b]+1 {
						t.Fatalf("%s leads %d, %s %d", a, counts[a], b, counts[b])
					}
				}
			}
		}
		idle := s
		idle.load = nil
		if _, without := s.tally(idle.assign()); slices.Max(append(slices.Collect(maps.Values(load)), 0)) < slices.Max(append(slices.Collect(maps.Values(without)), 0))-1e6 {
			traded++
		}
		// Two nodes whose loads differ a little take turns: they come to rest, and stay there.
		other := map[bridge.GroupID]float64{}
		for g, l := range s.load {
			other[g] = l * (0.98 + 0.04*rng.Float64())
		}
		var last map[bridge.GroupID]bridge.NodeID
		for turn := range 10 {
			then := s
			then.now = at
			if turn%2 == 0 {
				then.load = other
			}
			if at = then.assign(); turn > 4 && !maps.Equal(at, last) {
				t.Fatalf("not at rest: %v, then %v, with %v", last, at, s.load)
			}
			last = at
		}
	}
	if moved < 1000 || traded < 200 {
		t.Fatalf("only %d moves, %d cases in which loads mattered", moved, traded)
	}
}
