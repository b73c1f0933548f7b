package wsedge

import (
	"sync"
	"testing"
	"time"
)

// A dispatcher sets found; the session, in the midst of reading that cursor, takes it before the
// dispatcher has pushed the cursor; the dispatcher pushes it, finds the next record, sees found zero and
// pushes it again. Failed with a stack that led from the cursor to itself, and a worker that went round
// in it for ever.
func TestCursorIsPushedOnce(t *testing.T) {
	s := &session{}
	sub := &subscription{s: s}
	var cursors []*cursor
	for range 3 {
		cursors = append(cursors, &cursor{sub: sub, more: true})
	}
	const n = 300000
	var dispatchers, worker sync.WaitGroup
	for _, c := range cursors {
		dispatchers.Go(func() {
			for i := range uint64(n) {
				c.wake(i + 1)
			}
		})
	}
	stop := make(chan struct{})
	worker.Go(func() {
		for {
			s.mu.Lock()
			s.takeWoken()
			for s.first != nil {
				c := s.first
				s.popActive()
				c.arrive()
			}
			for range 20 {
				for _, c := range cursors { // as a turn does for those with more to read
					c.arrive()
				}
			}
			s.mu.Unlock()
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	done := make(chan struct{})
	go func() {
		dispatchers.Wait()
		close(stop)
		worker.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the worker goes round in circles")
	}
	// Whatever was found is known: either taken, or the cursor is still to be looked at.
	s.mu.Lock()
	s.takeWoken()
	s.mu.Unlock()
	for i, c := range cursors {
		if c.found.Load() != 0 && !c.active {
			t.Errorf("cursor %d was found a record that nobody will look for", i)
		}
	}
}
