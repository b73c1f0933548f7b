package replication

import (
	"maps"
	"math"
	"slices"

	"github.com/tidewire/tidewire/bridge"
)

// seats says which node should lead each group: a pure function of who leads what now, who may lead what and
// of how much work each group is.
//
// It begins with what is, so that it is at rest when nothing is wrong. Then, as long as one node leads two
// groups more than another, one of them moves. Then groups trade places, two at a time, while that takes a
// good part of its load off the busier node of the two, and the two loads do not differ by chance alone: numbers
// stay even, and a group that carries most of the records does not share its node with the next one. What a
// coordinator does for a group is to read it from Kafka and to replicate it, so load is bytes applied a second.
//
// Every leader works it out for itself, from views that may be a second apart, and moves its own groups alone.
// That two of them disagree costs a move too many and no more: what one of them has moved is where the other
// begins, and to undo it would have to be worthwhile as well.
//
// Rejected: an optimal assignment, which may look entirely different after a small change of one load, and so
// would move everything; a fixed one (each group to the first living node of its own order of all nodes),
// which knows nothing of loads.
type seats struct {
	now        map[bridge.GroupID]bridge.NodeID   // who leads it; none: nobody is known to
	candidates map[bridge.GroupID][]bridge.NodeID // who may, in the group's order of preference
	load       map[bridge.GroupID]float64         // bytes a second; none: as good as idle
	noise      map[bridge.GroupID]float64         // the variance of that; none: it is certain
}

const (
	// worthwhile is the part of its load that a trade must take off the busier node. A hand-over costs an
	// epoch and some milliseconds, and loads drift.
	worthwhile = 0.2
	// certain is how many times its standard deviation the difference of two loads must be. A few large batches, or
	// the first seconds of a load, say little of what follows.
	certain = 4
	// idleBytes a second of all groups together, and less, are not worth a trade at all.
	idleBytes = 64 << 10
)

// assign returns who should lead each group that anybody may lead.
func (s seats) assign() map[bridge.GroupID]bridge.NodeID {
	t := seating{seats: s, at: map[bridge.GroupID]bridge.NodeID{}, of: map[bridge.NodeID]float64{}, count: map[bridge.NodeID]int{}}
	// In a fixed order: neither the moves nor the rounding of sums may be up to a map.
	for _, g := range slices.Sorted(maps.Keys(s.candidates)) {
		c := s.candidates[g]
		if len(c) == 0 {
			continue
		}
		for _, id := range c {
			t.count[id] += 0
		}
		id := s.now[g]
		if !slices.Contains(c, id) {
			id = c[0]
		}
		t.at[g] = id
		t.of[id] += s.load[g]
		t.count[id]++
		t.total += s.load[g]
		t.groups = append(t.groups, g)
	}
	t.nodes = slices.Sorted(maps.Keys(t.count))
	for range t.groups { // each move makes the numbers more even
		if !t.moveOne() {
			break
		}
	}
	for range t.groups { // each trade takes load off the busier; the bound is for what rounding may do
		if !t.tradeTwo() {
			break
		}
	}
	return t.at
}

// seating is an assignment in the making.
type seating struct {
	seats
	groups []bridge.GroupID
	nodes  []bridge.NodeID
	at     map[bridge.GroupID]bridge.NodeID
	of     map[bridge.NodeID]float64 // load
	count  map[bridge.NodeID]int
	total  float64
}

// moveOne moves a group from a node to one that leads at least two fewer. Of all such moves it makes the one
// that takes most from the most, and then the one that leaves the busier of the two least busy, as far as that
// matters, and then the one to the node that the group prefers most.
func (t *seating) moveOne() bool {
	type move struct {
		g    bridge.GroupID
		to   bridge.NodeID
		diff int     // between their numbers
		peak float64 // of the two, afterwards
		rank int
	}
	var best *move
	better := func(m move) bool {
		switch {
		case best == nil:
			return true
		case m.diff != best.diff:
			return m.diff > best.diff
		case t.total > idleBytes && math.Abs(m.peak-best.peak) > t.total/100:
			return m.peak < best.peak
		}
		return m.rank < best.rank
	}
	for _, g := range t.groups {
		from := t.at[g]
		for rank, to := range t.candidates[g] {
			diff := t.count[from] - t.count[to]
			m := move{g, to, diff, max(t.of[from]-t.load[g], t.of[to]+t.load[g]), rank}
			if diff >= 2 && better(m) {
				best = &m
			}
		}
	}
	if best != nil {
		t.move(best.g, best.to)
	}
	return best != nil
}

// tradeTwo makes the trade that takes most off the busier of two nodes.
func (t *seating) tradeTwo() bool {
	if t.total <= idleBytes {
		return false
	}
	var a, b bridge.GroupID
	most := 0.0
	for _, g := range t.groups {
		for _, h := range t.groups {
			from, to := t.at[g], t.at[h]
			d := t.load[g] - t.load[h]
			if from == to || d <= 0 || !slices.Contains(t.candidates[g], to) || !slices.Contains(t.candidates[h], from) {
				continue
			}
			gain := t.of[from] - max(t.of[from]-d, t.of[to]+d)
			if gain > worthwhile*t.of[from] && gain > most && d > certain*math.Sqrt(t.noise[g]+t.noise[h]) {
				a, b, most = g, h, gain
			}
		}
	}
	if most == 0 {
		return false
	}
	from, to := t.at[a], t.at[b]
	t.move(a, to)
	t.move(b, from)
	return true
}

func (t *seating) move(g bridge.GroupID, to bridge.NodeID) {
	from := t.at[g]
	t.of[from] -= t.load[g]
	t.of[to] += t.load[g]
	t.count[from]--
	t.count[to]++
	t.at[g] = to
}
