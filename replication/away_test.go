package replication

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// The library counted a try to a dead node every few milliseconds, then ever more rarely, up to ten seconds
// apart; a node that came back after a minute was not ready for ten seconds more. Now there is one try, and the
// next when the node is back.
func TestEntriesWaitForANodeThatIsAway(t *testing.T) {
	var alive atomic.Bool
	stopped := make(chan struct{})
	var deposed atomic.Bool
	a := newAway(func(bridge.NodeID) bool { return alive.Load() }, func() bool { return !deposed.Load() }, stopped)
	a.wait("b") // nothing is known against it
	a.sent("b", errors.New("refused"))
	waiting := func() chan struct{} {
		done := make(chan struct{})
		go func() { defer close(done); a.wait("b") }()
		return done
	}
	done := waiting()
	a.changed() // somebody else came back
	select {
	case <-done:
		t.Fatal("it is tried again while it is away")
	case <-time.After(20 * time.Millisecond): // there is no event for what must not happen
	}
	alive.Store(true)
	a.changed()
	<-done
	<-waiting() // it is there
	alive.Store(false)
	done = waiting()
	deposed.Store(true) // it looks now and then
	<-done
	deposed.Store(false)
	done = waiting()
	close(stopped)
	<-done
	a.sent("b", nil)
	<-waiting()
}
