package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	if s := spread([]float64{3, 1, 2}); s != (Spread{1, 2, 3, 3}) {
		t.Error(s)
	}
	if s := spread([]float64{4, 1, 2, 3}); s != (Spread{1, 2.5, 4, 4}) {
		t.Error(s)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7: "7", 0.012345: "0.012", 0.5: "0.50", 9.876: "9.88", 45.67: "45.7", 456.7: "457", 1234.5: "1,235", 1500000: "1,500,000", -1234: "-1,234", -0.5: "-0.50"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// reportOf is a report of a few scenarios with two runs.
func reportOf() *Report {
	r := &Report{Began: time.Unix(1700000000, 0), Took: time.Minute, Machine: map[string]string{"Go": "go1"}, Settings: map[string]string{"runs": "2"}, Problems: []string{"a <problem>"}}
	add := func(scenario, server string, run int, values map[string]float64) {
		r.Samples = append(r.Samples, Sample{scenario, server, run, values})
	}
	add("fanout-50", ServerTidewire, 1, map[string]float64{"cpu_us": 12, "missing": 0, "repeated": 0})
	add("fanout-50", ServerTidewire, 2, map[string]float64{"cpu_us": 16, "missing": 3, "repeated": 0})
	add("fanout-50", ServerFloor, 1, map[string]float64{"cpu_us": 10})
	add("fanout-50", ServerFloor, 2, map[string]float64{"cpu_us": 8})
	add("fanout-max", ServerTidewire, 1, map[string]float64{"rate": 1_200_000})
	add("latency", ServerTidewire, 1, map[string]float64{"n1_p50_ms": 3, "n1_p99_ms": 7, "more_p50_ms": 1})
	add("latency", ServerConsumer, 1, map[string]float64{"p50_ms": 2, "p99_ms": 5})
	r.summarize(Scenarios())
	return r
}

func TestOutcomes(t *testing.T) {
	r := reportOf()
	if len(r.Outcomes) != 3 {
		t.Fatalf("%d outcomes", len(r.Outcomes))
	}
	fan := r.Outcomes[0]
	if ratio := fan.Figures[0].Ratios[ServerFloor]; ratio != (Spread{1.2, 1.6, 2, 2}) {
		t.Error("ratios are those of each run, not of the medians:", ratio)
	}
	var got []string
	for _, o := range r.Outcomes {
		for _, v := range o.Verdicts {
			got = append(got, v.String())
		}
	}
	want := []string{
		"CPU a delivered message over the floor's: 1.60 ×, target ≤ 1.30 ×: missed by 24%",
		"records missed: 1.50, target ≤ 0: missed",
		"records that came twice: 0, target ≤ 0: met",
		"delivered: 1,200,000 msg/s, target ≥ 1,500,000 msg/s: missed by 20%",
		"slowest node's median over the consumer's: 1 ms, target ≤ 2 ms: met",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What TLS and tokens cost stands as a ratio to Tidewire without, the other way round than the ratios to other servers.
func TestReportOfWalls(t *testing.T) {
	r := &Report{}
	for server, cpu := range map[string]float64{ServerTidewire: 10, ServerJWT: 10, ServerTLS: 15, ServerTLSJWT: 16} {
		r.Samples = append(r.Samples, Sample{"secure-200", server, 1, map[string]float64{"cpu_us": cpu}}, Sample{"secure-idle", server, 1, map[string]float64{"kb_conn": cpu}})
	}
	r.summarize(Scenarios())
	rows := r.Outcomes[0].rows()
	want := [][]string{
		{"", "tidewire", "tidewire+jwt", "tidewire+tls", "tidewire+tls+jwt", "+jwt ÷ without", "+tls ÷ without", "+tls+jwt ÷ without"},
		{"CPU a delivered message, µs", "10", "10", "15", "16", "1", "1.50", "1.60"},
	}
	if !slices.EqualFunc(rows, want, slices.Equal) {
		t.Errorf("%q", rows)
	}
	charts := r.charts()
	if len(charts) != 2 || charts[0].file != "secure-cpu.svg" || charts[1].file != "secure-idle.svg" || len(charts[1].bars) != 4 {
		t.Fatalf("%+v", charts)
	}
	if last := charts[1].bars[3]; last.label != ServerTLSJWT || last.class != ServerTidewire {
		t.Errorf("%+v", last)
	}
}

func TestPageAndPlots(t *testing.T) {
	file := filepath.Join(t.TempDir(), "figures.md")
	r := reportOf()
	if err := r.WriteDoc(file); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| fanout-50 | CPU a delivered message over the floor's | 1.60 × | ≤ 1.30 × | **missed by 24%** |",
		"| CPU a delivered message, µs | 14 (12–16) | 9 (8–10) | 1.60 (1.20–2) |", "- a <problem>", "](figures/fanout-cpu.svg)",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if len(r.charts()) != 3 {
		t.Errorf("%d plots", len(r.charts()))
	}
	for _, c := range r.charts() {
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(file), "figures", c.file))
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", c.file, err, svg)
			}
		}
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "missed by 24%") {
		t.Error(err, text.String())
	}
}

func TestExpectedAgainstCounting(t *testing.T) {
	for _, c := range []struct{ sent, n, keys int }{{0, 3, 1}, {10, 3, 1}, {25, 4, 10}, {25, 10, 4}, {7, 5, 5}, {1000, 50, 100}, {999, 7, 100}} {
		var want int64
		for i := range c.sent {
			for cl := range c.n {
				if keyOf(cl, c.n, c.keys) == i%c.keys {
					want++
				}
			}
		}
		if got := expected(uint64(c.sent), c.n, c.keys); got != want {
			t.Errorf("%+v: %d, want %d", c, got, want)
		}
	}
}

func TestClientsAreSpreadOverKeys(t *testing.T) {
	var got []int
	for i := range 5 {
		got = append(got, keyOf(i, 5, 10), keyOf(i, 5, 2))
	}
	if want := []int{0, 0, 2, 1, 4, 0, 6, 1, 8, 0}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestWrongOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"nothing":     {},
		"too small":   {Size: 3, Local: true, Brokers: []string{"b"}},
		"expression":  {Scenarios: "(", Local: true, Brokers: []string{"b"}},
		"server":      {Servers: []string{"x"}, Local: true, Brokers: []string{"b"}},
		"no kafka":    {Local: true},
		"no scenario": {Scenarios: "x", Local: true, Brokers: []string{"b"}},
	} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
