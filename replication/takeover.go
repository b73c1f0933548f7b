package replication

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// When a node dies, the groups it led need another leader now, not after the heartbeat timeout. Each
// survivor asks the others what they know and how far their logs are, and all come to the same answer who
// should stand (succession.go); that one campaigns at once, without waiting for a timeout (group.campaign),
// and the others wait for it. They look again every few milliseconds, so that a death which one of them
// notices later, or an answer that has changed, needs no second mechanism.
//
// The one that is waited for may not come: it died too, its disk hangs, it is refused. After takeoverPatience
// without a sign of an election it is passed over, and the next one stands. Two that campaign at once are
// harmless to what is agreed, but cost time: terms rise and votes split. So nobody stands while it sees an election
// that goes on already, of a node that asked others than those who are there now (turn.go); and at the first start of
// a cluster nobody stands before the others can vote (succession.beginning).
//
// A node that is cut off from the leader alone takes nothing over: no majority has lost the leader.
//
// The same is done when a node has come (back): with it there may be a majority again, and groups that
// have no leader get one at once. Whoever knows a leader wants no other.
const (
	// takeoverLimit is how long it goes on after a death. Then Raft's own timers are left to end what this
	// could not.
	takeoverLimit = 4 * time.Second
	// takeoverPatience is how long a candidate may take, from its last sign: some fsyncs on two nodes, on
	// machines that are busy just then. Also how long a node that is there is waited for with its answer.
	takeoverPatience = 400 * time.Millisecond
	// takeoverTurn is how long it may take with signs.
	takeoverTurn = 1500 * time.Millisecond
	// takeoverAsk bounds one question to the others.
	takeoverAsk = 150 * time.Millisecond
	// Between two looks: from takeoverPause, doubled each time, to maxTakeoverPause.
	takeoverPause    = 2 * time.Millisecond
	maxTakeoverPause = 40 * time.Millisecond
	// birthPause is how long a newcomer is given to meet the others before it is counted upon.
	birthPause = 100 * time.Millisecond
)

// takeover is the one goroutine that has this node stand for election, and what the watchers tell it.
type takeover struct {
	n    *Node
	wake chan struct{} // one slot

	mu   sync.Mutex
	lost map[bridge.NodeID]loss
	from time.Time // no look before
	till time.Time // and none after
}

// loss is a death that was seen.
type loss struct {
	quiet time.Duration // see succession
	at    time.Time
}

// quietBeforeDeposed is how long Raft must not have heard a leader that liveness takes for silent: a busy machine
// may answer one late. Heartbeats come ten times in a timeout.
func (c Config) quietBeforeDeposed() time.Duration { return c.HeartbeatTimeout * 7 / 10 }

func newTakeover(n *Node) *takeover {
	return &takeover{n: n, wake: make(chan struct{}, 1), lost: map[bridge.NodeID]loss{}}
}

// died is told of a node's death, born of its return. Both return at once.
func (t *takeover) died(id bridge.NodeID, how death) {
	l := loss{at: time.Now()}
	if how == deathSilent {
		l.quiet = t.n.cfg.quietBeforeDeposed()
	}
	t.mu.Lock()
	t.lost[id] = l
	t.from, t.till = l.at, l.at.Add(takeoverLimit)
	t.mu.Unlock()
	t.poke()
}

func (t *takeover) born() {
	t.mu.Lock()
	t.from = time.Now().Add(birthPause)
	t.till = t.from.Add(takeoverLimit)
	t.mu.Unlock()
	t.poke()
}

func (t *takeover) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// now returns the deaths that are not long past, and how long to wait before a look; ok is false when the
// time for looking is over. A node that was restarted at once stays lost: whoever it led is not led.
func (t *takeover) now() (lost map[bridge.NodeID]time.Duration, wait time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lost = map[bridge.NodeID]time.Duration{}
	for id, l := range t.lost {
		if time.Since(l.at) > takeoverLimit {
			delete(t.lost, id)
			continue
		}
		lost[id] = l.quiet
	}
	return lost, time.Until(t.from), time.Now().Before(t.till)
}

func (t *takeover) run(ctx context.Context) {
	var campaigns sync.WaitGroup
	defer campaigns.Wait()
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		t.settle(ctx, &campaigns)
	}
}

// settle looks until every group has a leader or time is up.
func (t *takeover) settle(ctx context.Context, campaigns *sync.WaitGroup) {
	waits := map[bridge.GroupID]*waiting{}
	begun := time.Now()
	for pause := takeoverPause; !t.n.draining.Load(); {
		lost, wait, ok := t.now()
		if !ok {
			return
		}
		if wait <= 0 {
			led := t.leaderless(lost)
			if len(led) == 0 {
				return
			}
			views, complete := t.n.ask(ctx)
			for _, g := range led {
				// All who are there must have spoken, or two nodes could come to different answers.
				if complete || time.Since(begun) > takeoverPatience {
					t.stand(g, lost, views, waits, campaigns)
				}
			}
			wait, pause = pause, min(2*pause, maxTakeoverPause)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.wake:
			pause = takeoverPause
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// stand campaigns for a group if it is this node's turn.
func (t *takeover) stand(g *group, lost map[bridge.NodeID]time.Duration, views map[bridge.NodeID]view, waits map[bridge.GroupID]*waiting, campaigns *sync.WaitGroup) {
	w := waits[g.id]
	if w == nil {
		w = &waiting{passed: map[bridge.NodeID]bool{}}
		waits[g.id] = w
	}
	s := succession{group: g.id, lost: lost, members: t.n.voters(g.id), views: views, passed: w.passed}
	now := time.Now()
	if s.beginning() && w.early(now) {
		return
	}
	id, ok := s.candidate()
	if !ok {
		clear(w.passed) // all had their turn
		return
	}
	own := id == t.n.cfg.NodeID
	at, _ := s.standing(t.n.cfg.NodeID)
	seen := at.Term
	sight := s.sight(id)
	sight.idle = own && g.raft.State() == raft.Follower
	if w.turn(now, sight) && own {
		t.n.log.Info().Uint16("group", uint16(g.id)).Strs("lost", names(lost)).Msg("stands for election")
		campaigns.Add(1)
		go func() {
			defer campaigns.Done()
			// The answers may be old by now, and a leader have been found without us; or be about to be found, with our
			// vote: to stand then would depose it, with a log that lacks what it has written.
			leader, ok := g.leader()
			if _, gone := lost[leader]; ok && !gone || bridge.Term(g.raft.CurrentTerm()) != seen {
				return
			}
			g.campaign(takeoverPatience)
		}()
	}
}

func names(of map[bridge.NodeID]time.Duration) (out []string) {
	for id := range maps.Keys(of) {
		out = append(out, string(id))
	}
	return out
}

// leaderless returns the groups that have no leader but a lost one. A survivor that noticed sooner may
// have campaigned here already, which makes Raft forget the dead leader: a group without one counts.
func (t *takeover) leaderless(lost map[bridge.NodeID]time.Duration) (out []*group) {
	for _, g := range t.n.groups {
		id, ok := g.leader()
		if _, gone := lost[id]; !ok || gone {
			out = append(out, g)
		}
	}
	return out
}

// ask asks all nodes that are there for their views; complete says that all have answered.
func (n *Node) ask(ctx context.Context) (views map[bridge.NodeID]view, complete bool) {
	ctx, cancel := context.WithTimeout(ctx, takeoverAsk)
	defer cancel()
	own := n.ownView()
	views = map[bridge.NodeID]view{n.cfg.NodeID: own}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range own.alive {
		if id == n.cfg.NodeID {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if v, err := n.peers.groups(ctx, id); err == nil {
				mu.Lock()
				views[id] = v
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return views, len(views) == len(own.alive)
}
