package replication

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// fits is what the nodes of a test say of themselves.
type fits []atomic.Bool

func (f fits) option(i int, c *Config) { c.Fit = func(bridge.GroupID) bool { return f[i].Load() } }

func (f fits) all(fit bool) {
	for i := range f {
		f[i].Store(fit)
	}
}

func newFits(nodes int) fits {
	f := make(fits, nodes)
	f.all(true)
	return f
}

func (c *cluster) changes() (sum int64) {
	for _, n := range c.nodes {
		if n != nil {
			sum += n.LeaderChanges()
		}
	}
	return sum
}

// waitFitness waits until all running nodes of a list think of themselves in one way.
func (c *cluster) waitFitness(g bridge.GroupID, want fitness, nodes ...int) {
	c.t.Helper()
	eventually(c.t, "the nodes know how fit they are", func() bool {
		return !slices.ContainsFunc(nodes, func(i int) bool { return c.nodes[i].fitness.of(g, time.Now()) != want })
	})
}

// rounds waits for a number of placement's rounds. It is what a hand-over would take; where none is wanted there
// is no event to wait for.
func rounds(n int) {
	t := time.NewTimer(time.Duration(n) * placementEvery)
	<-t.C
}

// noticed returns the first and the last moment at which some nodes noticed how fit they are now.
func (c *cluster) noticed(g bridge.GroupID, nodes ...int) (first, last time.Time) {
	for _, i := range nodes {
		l := c.nodes[i].fitness
		l.mu.Lock()
		since := l.groups[g].since
		l.mu.Unlock()
		if first.IsZero() || since.Before(first) {
			first = since
		}
		if since.After(last) {
			last = since
		}
	}
	return first, last
}

// A coordinator that is cut off from Kafka kept its leaderships for as long as the cut lasted, and its
// partitions were silent: leaders were moved for the sake of the order alone.
func TestUnfitLeaderHandsOver(t *testing.T) {
	f := newFits(3)
	c := newCluster(t, 3, 6, inMemory, unshaken, patient, f.option)
	even := func() bool { return slices.Equal(c.spread(6), []int{2, 2, 2}) }
	c.seat(6)
	eventually(t, "two groups each", even)
	f[0].Store(false)
	eventually(t, "n0 leads nothing, the others as much as each other", func() bool { return slices.Equal(c.spread(6), []int{0, 3, 3}) })
	// It is given none back, although it is the first choice of two.
	changes := c.changes()
	rounds(3)
	if s := c.spread(6); s[0] != 0 || c.changes() != changes {
		t.Errorf("an unfit node leads again: %v, %d changes", s, c.changes()-changes)
	}
	f[0].Store(true)
	eventually(t, "two groups each again", even)
}

// When Kafka is away for everybody there is nobody better, nor is there when the nodes notice it one after the
// other, and its return as well: leaderships stay.
//
// They may notice it so far apart as fitnessPatience and fitnessSteady allow. A machine that is so busy that a node of
// this test notices it later than that shows nothing, whatever happens: then it is done again.
func TestNobodyFitMovesNothing(t *testing.T) {
	f := newFits(3)
	c := newCluster(t, 3, 3, inMemory, unshaken, patient, f.option)
	even := func() bool { return slices.Equal(c.spread(3), []int{1, 1, 1}) }
	// try has the nodes notice the same one after another, and says whether they did so within the time that they have.
	try := func(fit bool, want fitness, within time.Duration, order ...int) bool {
		t.Helper()
		changes := c.changes()
		for _, i := range order {
			f[i].Store(fit)
			pause := time.NewTimer(within * 3 / 10)
			<-pause.C
		}
		c.waitFitness(0, want, 0, 1, 2)
		rounds(2)
		if first, last := c.noticed(0, 0, 1, 2); last.Sub(first) >= within {
			t.Logf("noticed %v apart: done again", last.Sub(first))
			return false
		}
		if !even() || c.changes() != changes {
			t.Errorf("with all fit: %v: %v, %d changes", fit, c.spread(3), c.changes()-changes)
		}
		return true
	}
	for tries := 0; ; tries++ {
		if tries == 5 {
			t.Fatal("this machine is too busy to show anything")
		}
		f.all(true)
		c.seat(3)
		eventually(t, "a group each", even)
		c.waitFitness(0, fitnessSettled, 0, 1, 2)
		if try(false, fitnessUnfit, fitnessPatience, 0, 1, 2) && try(true, fitnessSettled, fitnessSteady, 1, 2, 0) {
			return
		}
	}
}

// The next in the order is unfit when the leader dies: the one after it has the first turn.
func TestUnfitNodeDoesNotTakeOver(t *testing.T) {
	f := newFits(3)
	c := newCluster(t, 3, 1, inMemory, unshaken, f.option)
	c.waitConnected()
	c.elect(0, 0)
	c.propose(0, "before")
	c.waitSame(0, 1)
	f[1].Store(false)
	eventually(t, "all know that n1 is unfit", func() bool {
		return c.nodes[1].unfit("n1", 0) && c.nodes[2].unfit("n1", 0)
	})
	before, killed := c.nodes[1].LeaderChanges(), time.Now()
	c.kill(0)
	l := c.waitLeader(0)
	// Had n2 no processor for all of takeoverPatience it was right to pass it over.
	if time.Since(killed) < takeoverPatience && (l != 2 || c.nodes[1].LeaderChanges() != before) {
		t.Errorf("n%d leads, n1 has led %d times meanwhile", l, c.nodes[1].LeaderChanges()-before)
	}
}

// An older node does not say how fit it is. Leaderships are spread to it as before, but an unfit leader prefers
// one of which it knows.
func TestOlderNodeTellsNoFitness(t *testing.T) {
	f := newFits(3)
	c := newCluster(t, 3, 3, inMemory, unshaken, func(i int, c *Config) {
		if i != 1 {
			f.option(i, c)
		}
	})
	for tries := 0; ; tries++ {
		if tries == 5 {
			t.Fatal("this machine is too busy to show anything")
		}
		f.all(true)
		c.seat(3)
		c.waitFitness(0, fitnessSettled, 0, 2)
		f[2].Store(false)
		f[0].Store(false)
		c.waitFitness(0, fitnessUnfit, 0, 2)
		rounds(2)
		if first, last := c.noticed(0, 0, 2); last.Sub(first) < fitnessPatience {
			break
		}
	}
	if l := c.leader(0); l != 0 {
		t.Errorf("n%d leads it: nobody was known to be fit", l)
	}
	before := c.nodes[2].LeaderChanges()
	f[2].Store(true)
	// From there it goes to n1 by the order: a fit leader trusts it.
	eventually(t, "n2 takes what n0 led, although n1 is the next choice", func() bool {
		return c.nodes[2].LeaderChanges() == before+1 && c.leader(0) > 0
	})
}

func TestFitnessLog(t *testing.T) {
	fit, now := false, time.Unix(1000, 0)
	l := newFitnessLog(1, func(bridge.GroupID) bool { return fit }, now)
	is := func(after time.Duration, want fitness) {
		t.Helper()
		now = now.Add(after)
		l.look(now)
		if got := l.of(0, now); got != want {
			t.Errorf("fitness %d, want %d", got, want)
		}
		if _, unfit := l.unfitSince(0, now); unfit != (want == fitnessUnfit) {
			t.Errorf("unfit: %v", unfit)
		}
	}
	is(0, fitnessUnsettled)
	is(fitnessPatience-1, fitnessUnsettled)
	is(1, fitnessUnfit)
	if since, _ := l.unfitSince(0, now); !since.Equal(now) {
		t.Errorf("since %v, not %v", since, now)
	}
	fit = true
	is(time.Second, fitnessUnsettled)
	is(fitnessSteady, fitnessSettled)
	fit = false
	is(0, fitnessUnsettled)
	fit = true
	is(time.Millisecond, fitnessUnsettled) // a moment's loss begins it anew
	is(fitnessSteady, fitnessSettled)
	fit = false
	is(0, fitnessUnsettled)
	fit = true
	is(0, fitnessUnsettled)
	is(fitnessSteady, fitnessUnsettled) // the second within a minute makes it twice as long
	is(fitnessSteady, fitnessSettled)
	for range 10 {
		fit = false
		is(time.Second, fitnessUnsettled)
		fit = true
		is(time.Second, fitnessUnsettled)
	}
	is(maxFitnessSteady-1, fitnessUnsettled)
	is(1, fitnessSettled)
	fit = false
	is(fitnessMemory, fitnessUnsettled)
	fit = true
	is(0, fitnessUnsettled)
	is(fitnessSteady, fitnessSettled) // long ago is forgotten
	if got := newFitnessLog(1, nil, now).of(0, now); got != fitnessUnknown {
		t.Errorf("nobody asks: %d", got)
	}
}
