package wsedge

import (
	"sync"
	"time"
)

// A wheel calls sessions back at times to come: one timer for all of them, which stands still when none waits.
// A session's alarm lies in the slot of its time; setting and stopping one costs the same however many there
// are. An alarm further off than the wheel is round is looked at once a turn.
type wheel struct {
	srv    *Server
	wakeup chan struct{} // one slot: the wheel has something to wait for

	mu    sync.Mutex
	slots [wheelSlots]*alarm
	count int
	last  int64 // the tick up to which alarms have been rung
}

const (
	wheelSlots = 1024
	wheelTick  = 5 // milliseconds
)

// alarm is a session's place in the wheel. All fields but s are guarded by wheel.mu.
type alarm struct {
	s          *session
	at         int64 // by Server.now
	set        bool
	prev, next *alarm
}

// now is how many milliseconds the server has been there, by a clock that nobody sets.
func (srv *Server) now() int64 { return time.Since(srv.begun).Milliseconds() }

func (w *wheel) init(srv *Server) {
	w.srv, w.wakeup = srv, make(chan struct{}, 1)
}

// slotOf is where an alarm lies: at the first tick that is not before its time.
func slotOf(at int64) int64 { return (at + wheelTick - 1) / wheelTick % wheelSlots }

// set has the session rung at a time, by Server.now, or earlier if it was set to that.
func (w *wheel) set(a *alarm, at int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.set {
		if a.at <= at {
			return
		}
		w.remove(a)
	}
	if w.count == 0 {
		w.last = w.srv.now()/wheelTick - 1
		select {
		case w.wakeup <- struct{}{}:
		default:
		}
	}
	a.at, a.set = max(at, (w.last+1)*wheelTick), true
	head := &w.slots[slotOf(a.at)]
	if a.next = *head; a.next != nil {
		a.next.prev = a
	}
	*head = a
	w.count++
}

// stop takes an alarm out; nil is none.
func (w *wheel) stop(a *alarm) {
	if a == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.set {
		w.remove(a)
	}
}

func (w *wheel) remove(a *alarm) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		w.slots[slotOf(a.at)] = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.prev, a.next, a.set = nil, nil, false
	w.count--
}

func (w *wheel) run() {
	tick := time.NewTicker(wheelTick * time.Millisecond)
	defer tick.Stop()
	var due []*session
	for {
		w.mu.Lock()
		idle := w.count == 0
		w.mu.Unlock()
		if idle {
			tick.Stop()
			select {
			case <-w.wakeup:
				tick.Reset(wheelTick * time.Millisecond)
			case <-w.srv.ctx.Done():
				return
			}
			continue
		}
		select {
		case <-tick.C:
		case <-w.srv.ctx.Done():
			return
		}
		now := w.srv.now()
		due = w.due(now, due[:0])
		for _, s := range due {
			s.ring(now)
		}
		clear(due)
	}
}

// due takes out the alarms whose time has come.
func (w *wheel) due(now int64, due []*session) []*session {
	w.mu.Lock()
	defer w.mu.Unlock()
	tick := now / wheelTick
	for t := max(w.last+1, tick-wheelSlots+1); t <= tick; t++ {
		for a := w.slots[t%wheelSlots]; a != nil; {
			next := a.next
			if a.at <= now {
				w.remove(a)
				due = append(due, a.s)
			}
			a = next
		}
	}
	w.last = max(w.last, tick)
	return due
}
