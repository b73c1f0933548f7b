package replication

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

func TestLoadForgets(t *testing.T) {
	var l load
	now := time.Unix(1000, 0)
	for range 300 { // five minutes at 10 kB/s
		now = now.Add(time.Second)
		l.add(10_000, now)
	}
	if l.rate < 9_800 || l.rate > 10_400 {
		t.Errorf("%.0f B/s, want about 10,000", l.rate)
	}
	at := l.rate
	l.fade(now.Add(loadMemory))
	if got := l.rate / at; math.Abs(got-1/math.E) > 0.001 {
		t.Errorf("%.3f of it is left after %v", got, loadMemory)
	}
	l.fade(now) // a clock that steps back changes nothing
	if got := l.rate / at; math.Abs(got-1/math.E) > 0.001 {
		t.Errorf("%.3f of it is left after a step back", got)
	}
}

// Two groups that carry all the records and have the same leader part: numbers alone would leave them there.
func TestBusyGroupsPart(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 6, inMemory)
	eventually(t, "two groups each", func() bool { return slices.Equal(c.spread(6), []int{2, 2, 2}) })
	var busy []bridge.GroupID
	for g := range bridge.GroupID(6) {
		if c.leader(g) == 0 {
			busy = append(busy, g)
		}
	}
	entry := strings.Repeat("x", 256<<10)
	for range 20 {
		for _, g := range busy {
			c.propose(g, entry)
		}
	}
	eventually(t, "the two busy groups have two leaders, and numbers are even", func() bool {
		return c.leader(busy[0]) != c.leader(busy[1]) && slices.Equal(c.spread(6), []int{2, 2, 2})
	})
}
