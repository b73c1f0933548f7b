package replication

import (
	"net/netip"
	"sync"
	"time"
)

// refusals keeps the log short, whoever knocks and however often: one line a minute for each network, and for some
// of the networks only.
type refusals struct {
	mu    sync.Mutex
	since time.Time // when the minute began
	told  map[netip.Addr]bool
}

const (
	refusalsEvery = time.Minute
	// maxRefusals is of how many networks it is told in a minute.
	maxRefusals = 32
)

// tell says whether to log one from there now.
func (r *refusals) tell(from netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil || now.Sub(r.since) >= refusalsEvery {
		r.since, r.told = now, map[netip.Addr]bool{}
	}
	if r.told[from] || len(r.told) >= maxRefusals {
		return false
	}
	r.told[from] = true
	return true
}
