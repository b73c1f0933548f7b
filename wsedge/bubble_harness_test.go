package wsedge

import (
	"net"
	"testing"
	"testing/synctest"
)

// overPipes makes every edge of the tests serve pipes in the place of a port, and their clients use them. inBubble sets it.
var overPipes bool

// inBubble runs a test in a bubble of its own time, in which a server and its clients see the same clock and nothing takes
// long. It is for what has to come before a time limit is over: outside, a machine that stands still for as long breaks that.
func inBubble(t *testing.T, test func(*testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		overPipes = true
		defer func() { overPipes = false }()
		test(t)
	})
}

// plain opens a connection to the edge and says nothing.
func (e *edge) plain() net.Conn {
	e.t.Helper()
	if e.pipes != nil {
		ours, theirs := net.Pipe()
		e.pipes.hand(theirs)
		return ours
	}
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	return conn
}
