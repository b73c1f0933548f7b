package replication

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// batches plays ten minutes of batches that come at random to eight groups on three nodes, each a mean time apart,
// and returns in how many of the 600 looks a leadership moved. at is the last assignment.
func batches(seed uint64, apart func(bridge.GroupID) time.Duration, size int) (moves int, at map[bridge.GroupID]bridge.NodeID) {
	const groups = 8
	rng, s := rand.New(rand.NewPCG(seed, 2)), seatsOf(3, groups)
	s.now = s.assign()
	s.noise = map[bridge.GroupID]float64{}
	loads := make([]load, groups)
	now := time.Unix(1000, 0)
	next := make([]time.Time, groups)
	wait := func(g bridge.GroupID) time.Duration { return time.Duration(rng.ExpFloat64() * float64(apart(g))) }
	for g := range next {
		next[g] = now.Add(wait(bridge.GroupID(g)))
	}
	for range 600 {
		now = now.Add(placementEvery)
		for g := range bridge.GroupID(groups) {
			for ; next[g].Before(now); next[g] = next[g].Add(wait(g)) {
				loads[g].add(size, next[g])
			}
			s.load[g], s.noise[g] = loads[g].bytes(now)
		}
		at := s.assign()
		if !maps.Equal(at, s.now) {
			moves++
		}
		s.now = at
	}
	return moves, s.now
}

// Groups that carry the same in the long run stay where they are, from the first second on, however few and large
// the batches are that it comes in: each time that chance alone moves a leadership costs a silence.
func TestChanceMovesNothing(t *testing.T) {
	for _, c := range []struct {
		apart time.Duration
		size  int
	}{{20 * time.Millisecond, 5_000}, {100 * time.Millisecond, 100_000}, {time.Second, 100_000}, {10 * time.Second, 1 << 20}} {
		moves := 0
		for seed := range uint64(20) {
			m, _ := batches(seed, func(bridge.GroupID) time.Duration { return c.apart }, c.size)
			moves += m
		}
		if moves > 1 { // in 200 minutes: what is certain is so with a limit
			t.Errorf("%d bytes every %v in each group: %d moves", c.size, c.apart, moves)
		}
	}
}

// What is not chance does move them: two busy groups that begin on one node part.
func TestDifferenceMovesThem(t *testing.T) {
	for seed := range uint64(20) {
		first := seatsOf(3, 8).assign()
		_, at := batches(seed, func(g bridge.GroupID) time.Duration {
			if first[g] == "n0" {
				return time.Second
			}
			return 20 * time.Second
		}, 100_000)
		busy := map[bridge.NodeID]int{}
		for g, id := range first {
			if id == "n0" {
				busy[at[g]]++
			}
		}
		if len(busy) != 3 {
			t.Errorf("the three busy groups are led so: %v", busy)
		}
	}
}
