package wsedge

import (
	"testing"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// A dispatcher sets found; the session, in the midst of reading that cursor, takes it before the
// dispatcher has pushed the cursor; the dispatcher pushes it, finds the next record, sees found zero and
// pushes it again. Failed with a stack that led from the cursor to itself, and a worker that went round
// in it for ever.
func TestCursorIsPushedOnce(t *testing.T) {
	s := &session{}
	c := &cursor{sub: &subscription{s: s}, more: true}
	if !c.note(1) {
		t.Fatal("not noted")
	}
	c.arrive()
	c.push()
	if c.wake(2) {
		t.Error("the session is told twice")
	}
	if c.link == c {
		t.Fatal("the stack goes round in circles")
	}
	s.takeWoken()
	if s.first != c || s.last != c || s.woken.Load() != nil {
		t.Fatal("the cursor is not in the line")
	}
	// It may be pushed again from here on, and is found where it is.
	s.popActive()
	if c.arrive(); !c.wake(3) || s.woken.Load() != c {
		t.Fatal("a taken cursor is not pushed")
	}
}

// A session's socket is full; a record is found for an idle cursor; the sweep looks whether that is still
// cached; more records are found; the socket takes bytes again. Failed with the sweep moving the cursor
// to the first record without noting that it was still to be read, and the next one found jumped over it.
func TestSweepLeavesCursorsAlone(t *testing.T) {
	log := cache.NewStore(cache.Config{}).Log("t", 0)
	for i := range 10 {
		pos := bridge.Position{Epoch: 1, Seqno: bridge.Seqno(i + 1)}
		log.Append(cache.Batch{Records: []cache.Record{{Pos: pos}}, Head: pos, Encode: func(dst []byte, _ int, _ bridge.Position, _ bool) []byte { return append(dst, 'x') }})
	}
	s := &session{blocked: true}
	c := &cursor{sub: &subscription{s: s}, log: log, place: 2}
	c.wake(4 + 1)
	s.checkSlow()
	c.wake(7 + 1)
	s.takeWoken()
	if s.first != c {
		t.Fatal("the cursor is not in the line")
	}
	if c.arrive(); c.place != 4 || c.pos.Seqno != 4 {
		t.Fatalf("the cursor is at %d, %v", c.place, c.pos)
	}
	c.wake(9 + 1)
	if c.arrive(); c.place != 4 {
		t.Fatalf("a record found later moved the cursor from 4 to %d before it had read", c.place)
	}
}
