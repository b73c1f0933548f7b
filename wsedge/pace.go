package wsedge

import (
	"sync"
	"time"
)

// A pace lets things through at a rate, with some at once after a pause. It is the generic cell rate algorithm (ITU-T
// I.371): all that has to be remembered is when the bucket will be empty, which is eight bytes for each client.
type pace struct{ empty int64 } // by the same clock as now, in nanoseconds

// paceBurst is for how long what was not used may be saved up.
const paceBurst = 2 * time.Second

// take lets cost through if there is room for it and returns 0, or else how long it is until there is. now is in
// nanoseconds. A rate of less than 1 is none. What costs more than can be saved up passes when all has been saved.
func (p *pace) take(now int64, cost, perSecond int) (wait time.Duration) {
	if perSecond < 1 {
		return 0
	}
	full := max(p.empty, now) + int64(cost)*int64(time.Second)/int64(perSecond)
	if late := full - now - int64(paceBurst); late > 0 && p.empty > now {
		return time.Duration(min(late, p.empty-now))
	}
	p.empty = full
	return 0
}

// owe is take for what has happened already: it returns how long to wait before more.
func (p *pace) owe(now int64, cost, perSecond int) (wait time.Duration) {
	if perSecond < 1 {
		return 0
	}
	p.empty = max(p.empty, now) + int64(cost)*int64(time.Second)/int64(perSecond)
	return time.Duration(max(0, p.empty-now-int64(paceBurst)))
}

// paces are the paces of many, by name. One whose bucket is empty is as good as one that is not there, so no more are
// kept than have done something within a moment.
type paces[K comparable] struct {
	mu    sync.Mutex
	of    map[K]pace
	sweep int // when there are so many, those that are not needed are thrown away
}

const minSweep = 1024

func (ps *paces[K]) take(who K, now int64, cost, perSecond int) time.Duration {
	if perSecond < 1 {
		return 0
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.of == nil {
		ps.of, ps.sweep = make(map[K]pace), minSweep
	}
	p := ps.of[who]
	wait := p.take(now, cost, perSecond)
	ps.of[who] = p
	if len(ps.of) >= ps.sweep {
		for k, p := range ps.of {
			if p.empty <= now {
				delete(ps.of, k)
			}
		}
		ps.sweep = max(minSweep, 2*len(ps.of))
	}
	return wait
}
