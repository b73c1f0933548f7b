package wsedge

import (
	"runtime"
	"testing"

	"github.com/tidewire/tidewire/cache"
)

// A session that waits for its client has the smallest stack there is: 2 KiB for a goroutine that would have 4.
func TestIdleSessionHasASmallStack(t *testing.T) {
	if !canTryWrite || underRace {
		t.Skip("on this system the library waits for frames, or the race detector makes stacks larger")
	}
	const sessions = 500
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.ConnectionsPerAddress = -1 })
	stacks := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.StackInuse
	}
	before := stacks()
	for range sessions {
		e.dial()
	}
	// The collector halves a stack of which little is used, once in each cycle.
	until(t, "the stacks to have shrunk", func() bool { return stacks() < before+sessions*3<<10 })
}
