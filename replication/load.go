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
	mu    sync.Mutex
	rate  float64 // bytes a second, as of at
	noise float64 // its variance, were the batches to come at random: each counts with its square
	at    time.Time
}

// add counts bytes applied now.
func (l *load) add(n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fade(now)
	x := float64(n) / loadMemory.Seconds()
	l.rate += x
	l.noise += x * x
}

// bytes is the load in bytes a second at a moment, and by how much it may be so by chance: the variance.
func (l *load) bytes(now time.Time) (rate, noise float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fade(now)
	return l.rate, l.noise
}

func (l *load) fade(now time.Time) {
	if d := now.Sub(l.at); d > 0 {
		f := math.Exp(-d.Seconds() / loadMemory.Seconds())
		l.rate *= f
		l.noise *= f * f
		l.at = now
	}
}
