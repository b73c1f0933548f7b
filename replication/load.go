package replication

import (
	"math"
	"sync"
	"time"
)

// loadMemory is how far back a group's load reaches: what was applied so long ago counts for a third.
const loadMemory = 30 * time.Second

// load is how much is applied to a group: an average that forgets. Every node applies the same, so all nodes
// know nearly the same load of each group, whoever leads it.
type load struct {
	mu   sync.Mutex
	rate float64 // bytes a second, as of at
	at   time.Time
}

// add counts bytes applied now.
func (l *load) add(n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fade(now)
	l.rate += float64(n) / loadMemory.Seconds()
}

// bytes is the load in bytes a second.
func (l *load) bytes() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fade(time.Now())
	return l.rate
}

func (l *load) fade(now time.Time) {
	if d := now.Sub(l.at); d > 0 {
		l.rate *= math.Exp(-d.Seconds() / loadMemory.Seconds())
		l.at = now
	}
}
