package bench

import (
	"math"
	"strings"
	"testing"
)

func TestPauses(t *testing.T) {
	text := func(counts ...string) pauses {
		var b strings.Builder
		b.WriteString("# HELP tidewire_gc_pause_seconds Pauses\n")
		for i, le := range []string{"0.001", "0.005", "+Inf"} {
			b.WriteString(`tidewire_gc_pause_seconds_bucket{le="` + le + `"} ` + counts[i] + "\n")
		}
		b.WriteString("tidewire_gc_pause_seconds_sum 1\n")
		p, err := parsePauses(strings.NewReader(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := text("10", "10", "11")
	for _, tc := range []struct {
		after     pauses
		p50, most float64
	}{
		{text("10", "10", "11"), 0, 0},
		{text("1e+02", "100", "101"), 0.001, 0.001},
		{text("100", "101", "102"), 0.001, 0.005},
		{text("11", "12", "14"), 0.005, math.Inf(1)},
	} {
		p := tc.after.since(before)
		if p.quantile(0.5) != tc.p50 || p.quantile(1) != tc.most {
			t.Errorf("%v since %v: %v and %v, want %v and %v", tc.after, before, p.quantile(0.5), p.quantile(1), tc.p50, tc.most)
		}
	}
	if before.since(nil) != nil || pauses(nil).quantile(1) != 0 {
		t.Error("pauses out of nothing")
	}
	if _, err := parsePauses(strings.NewReader(pauseMark + `x"} 3` + "\n")); err == nil {
		t.Error("a bound that is no number was taken")
	}
}
