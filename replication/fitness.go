package replication

import (
	"context"
	"sync"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// A node that cannot reach Kafka coordinates nothing, however well it stands with the other nodes. So each
// node asks Config.Fit whether it could do a group's work, tells the others (the call Groups), and a leader
// that cannot hands its group to one that can (placement.go).
//
// What all lose at once, because Kafka is away, must move nothing. All notice it at nearly the same moment, but
// not at the same one. So a leader calls itself unfit only when it has been so for fitnessPatience, when the
// others have long noticed as well; and a node is given nothing before it has been fit for fitnessSteady, when
// a leader to which Kafka came back a little later is fit too.
const (
	// fitnessEvery is the period of asking.
	fitnessEvery = 100 * time.Millisecond
	// fitnessPatience is by how much a node may notice the same later than another.
	fitnessPatience = 700 * time.Millisecond
	// fitnessSteady is how long a node must have been fit before it is given a group. It doubles with each loss
	// within fitnessMemory, up to maxFitnessSteady: each time that a node on a bad way to Kafka gets a group
	// and loses it again costs the group's subscribers a silence.
	fitnessSteady    = 2 * time.Second
	maxFitnessSteady = 30 * time.Second
	fitnessMemory    = time.Minute
)

// fitness of a node for a group.
type fitness int

const (
	fitnessUnknown   fitness = iota // an older node, which does not tell; or nobody asks
	fitnessSettled                  // fit, and has been for a while
	fitnessUnsettled                // neither for long
	fitnessUnfit                    // and has been for a while
)

// fitnessLog follows what Config.Fit says.
type fitnessLog struct {
	fit func(bridge.GroupID) bool // nil: nobody asks

	mu     sync.Mutex
	groups []fitState // by group
}

// fitState is what was said last, and since when it is.
type fitState struct {
	fit    bool
	since  time.Time
	lost   time.Time     // when it was last lost
	steady time.Duration // how long it must last
}

// newFitnessLog begins with nodes that have just turned out fit or not.
func newFitnessLog(groups int, fit func(bridge.GroupID) bool, now time.Time) *fitnessLog {
	l := &fitnessLog{fit: fit, groups: make([]fitState, groups)}
	for g := range l.groups {
		l.groups[g] = fitState{fit: fit != nil && fit(bridge.GroupID(g)), since: now, steady: fitnessSteady}
	}
	return l
}

// look asks about all groups.
func (l *fitnessLog) look(now time.Time) {
	if l.fit == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range l.groups {
		s := &l.groups[g]
		fit := l.fit(bridge.GroupID(g))
		if fit == s.fit {
			continue
		}
		s.fit, s.since = fit, now
		if fit {
			continue
		}
		if !s.lost.IsZero() && now.Sub(s.lost) < fitnessMemory {
			s.steady = min(2*s.steady, maxFitnessSteady)
		} else {
			s.steady = fitnessSteady
		}
		s.lost = now
	}
}

// of says how fit this node is for a group.
func (l *fitnessLog) of(g bridge.GroupID, now time.Time) fitness {
	if l.fit == nil {
		return fitnessUnknown
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.groups[g]
	switch d := now.Sub(s.since); {
	case s.fit && d >= s.steady:
		return fitnessSettled
	case !s.fit && d >= fitnessPatience:
		return fitnessUnfit
	}
	return fitnessUnsettled
}

// unfitSince says since when this node counts as unfit for a group, if it does.
func (l *fitnessLog) unfitSince(g bridge.GroupID, now time.Time) (time.Time, bool) {
	if l.of(g, now) != fitnessUnfit {
		return time.Time{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.groups[g].since.Add(fitnessPatience), !l.groups[g].fit
}

// watchFitness asks until ctx ends, and wakes placement when this node has become unfit for a group that it
// leads.
func (n *Node) watchFitness(ctx context.Context) {
	if n.fitness.fit == nil {
		return
	}
	t := time.NewTicker(fitnessEvery)
	defer t.Stop()
	unfit := make([]bool, len(n.groups))
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		n.fitness.look(time.Now())
		for _, g := range n.groups {
			was := unfit[g.id]
			unfit[g.id] = n.fitness.of(g.id, time.Now()) == fitnessUnfit
			if id, _ := g.leader(); unfit[g.id] && !was && id == n.cfg.NodeID {
				select {
				case n.placeNow <- struct{}{}:
				default:
				}
			}
		}
	}
}

// unfit says whether a node, this one or another, is known to be unfit to lead a group. May be asked by any
// goroutine.
func (n *Node) unfit(id bridge.NodeID, g bridge.GroupID) bool {
	if id == n.cfg.NodeID {
		return n.fitness.of(g, time.Now()) == fitnessUnfit
	}
	v, ok := n.views.get(id)
	return ok && int(g) < len(v.groups) && v.groups[g].fitness == fitnessUnfit
}

var toFitness = map[fitness]peerpb.Fitness{
	fitnessSettled: peerpb.Fitness_FITNESS_SETTLED, fitnessUnsettled: peerpb.Fitness_FITNESS_UNSETTLED, fitnessUnfit: peerpb.Fitness_FITNESS_UNFIT,
}

// fromFitness is unknown for whatever a newer node may say.
var fromFitness = map[peerpb.Fitness]fitness{
	peerpb.Fitness_FITNESS_SETTLED: fitnessSettled, peerpb.Fitness_FITNESS_UNSETTLED: fitnessUnsettled, peerpb.Fitness_FITNESS_UNFIT: fitnessUnfit,
}
