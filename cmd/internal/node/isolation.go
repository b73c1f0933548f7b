package node

import (
	"context"
	"time"
)

// A node that is cut off from the others gets no more records and takes no publishes, and its clients
// cannot know. So when it has been cut off for TIDEWIRE_ISOLATION_GRACE it sends them elsewhere and takes
// none, until it is back and has caught up. What being cut off is, replication/touch.go says.

const (
	// isolationLook is the period of looking.
	isolationLook = 100 * time.Millisecond
	// isolated is the reason that clients are given.
	isolated = "isolated"
)

// watchIsolation moves clients away and lets them back, until ctx ends.
func (n *Node) watchIsolation(ctx context.Context) {
	w := isolation{grace: n.cfg.IsolationGrace}
	t := time.NewTicker(isolationLook)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		why := n.replication.Isolated()
		switch w.look(time.Now(), why != "", w.away && len(n.notReady()) == 0) {
		case leave:
			n.log.Warn().Str("why", why).Msg("cut off from the other nodes")
			n.edge.SetAway(isolated)
		case comeBack:
			n.log.Info().Msg("back with the other nodes")
			n.edge.SetAway("")
		}
	}
}

// isolation decides when a node's clients have to go and when they may return.
type isolation struct {
	grace time.Duration
	since time.Time // since when the node has been cut off, or back; zero: no change is due
	away  bool
}

type move int

const (
	stay move = iota
	leave
	comeBack
)

// look takes one observation. Clients return when the node is ready; one that is back but does not get
// ready for a grace has something else that is wrong, such as a group without a leader anywhere, and
// serves again as other nodes in that state do.
func (w *isolation) look(now time.Time, cutOff, ready bool) move {
	if cutOff == w.away {
		w.since = time.Time{}
		return stay
	}
	if w.since.IsZero() {
		w.since = now
	}
	if now.Sub(w.since) < w.grace && !(w.away && ready) {
		return stay
	}
	w.since = time.Time{}
	w.away = !w.away
	if w.away {
		return leave
	}
	return comeBack
}
