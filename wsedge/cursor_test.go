package wsedge

import "testing"

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
