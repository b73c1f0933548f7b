package wsedge

import (
	"fmt"
	"testing"
	"time"
)

// Over any stretch of time no more passes than the rate and what may be saved up, and no less.
func TestPace(t *testing.T) {
	for _, rate := range []int{1, 7, 1000} {
		var p pace
		now, passed := int64(1e18), 0
		begun := now
		for now-begun < int64(10*time.Second) {
			wait := p.take(now, 1, rate)
			if wait == 0 {
				passed++
				continue
			}
			if wait < 0 || wait > time.Second/time.Duration(rate) {
				t.Fatalf("rate %d: wait %v", rate, wait)
			}
			now += int64(wait)
		}
		if want := 12 * rate; passed < want-1 || passed > want+1 {
			t.Errorf("rate %d: %d passed in 10 s, want %d", rate, passed, want)
		}
		if wait := p.take(now, 1, -1); wait != 0 {
			t.Errorf("no rate: wait %v", wait)
		}
	}
	var p pace
	if wait := p.owe(1e18, 10000, 1000); wait != 8*time.Second {
		t.Errorf("ten seconds' worth at once: wait %v", wait)
	}
}

// The paces of those who come once are forgotten, those of who goes on are not.
func TestPacesAreForgotten(t *testing.T) {
	var ps paces[string]
	now := int64(1e18)
	for i := range 200_000 {
		now += int64(time.Second) / 1000
		ps.take(fmt.Sprint(i), now, 1, 100)
		if len(ps.of) > 2*minSweep {
			t.Fatalf("%d are kept", len(ps.of))
		}
	}
	refused := 0
	for i := range 2000 {
		ps.take(fmt.Sprint("x", i), now, 1, 100)
		if ps.take("busy", now, 1, 100) > 0 {
			refused++
		}
	}
	if refused != 2000-201 && refused != 2000-200 {
		t.Errorf("%d of 2000 were refused", refused)
	}
}
