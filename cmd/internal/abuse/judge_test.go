package abuse

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// good is a run in which everything held.
func good() (phases []Phase, before []Held, b Bounds) {
	even := func(d time.Duration) []Window {
		return []Window{{200, d}, {200, d}, {200, d}, {200, d}}
	}
	phase := func(attack string, d time.Duration) Phase {
		p := Phase{Attack: attack, Windows: even(d), Memory: []int64{100 << 20, 90 << 20}}
		p.Spread = spread(p.Windows, time.Second)
		return p
	}
	before = []Held{{100, 50}, {110, 60}}
	hit := func(p Phase) Phase {
		p.Did = map[string]int64{"connections": 20000}
		p.Traces = map[string]int64{"limit handshakes": 5}
		p.After = []Held{{101, 50}, {110, 61}}
		return p
	}
	phases = []Phase{phase("", 10*time.Millisecond), hit(phase("half-open", 20*time.Millisecond)), phase("", 10*time.Millisecond)}
	return phases, before, Bounds{Ratio: 2, Memory: 128 << 20, Kernel: 64 << 20, Slack: Held{5, 5}, Windows: 3, Window: time.Second}
}

// The judge has nothing against a good run, and finds each thing that can be wrong with one.
func TestJudge(t *testing.T) {
	phases, before, bounds := good()
	if got := Judge(phases, before, bounds); len(got) > 0 {
		t.Fatalf("a good run: %v", got)
	}
	for name, c := range map[string]struct {
		spoil func(quiet, attack *Phase)
		want  string // of what the one breach says
		in    string
	}{
		"slow":              {func(_, a *Phase) { a.Spread.Median = 20*time.Millisecond + 1 }, "p99 of honest clients was 20.0 ms, over 2 × the 10.0 ms", "half-open"},
		"thrown out":        {func(_, a *Phase) { a.Faults = map[Fault]int{ThrownOut: 3} }, "3 × thrown out", "half-open"},
		"lost":              {func(_, a *Phase) { a.Faults = map[Fault]int{Lost: 1} }, "1 × lost", "half-open"},
		"repeated":          {func(_, a *Phase) { a.Faults = map[Fault]int{Repeated: 1} }, "1 × repeated", "half-open"},
		"out of order":      {func(_, a *Phase) { a.Faults = map[Fault]int{OutOfOrder: 1} }, "1 × out of order", "half-open"},
		"not understood":    {func(_, a *Phase) { a.Faults = map[Fault]int{Foreign: 1} }, "1 × not understood", "half-open"},
		"lost in quiet":     {func(q, _ *Phase) { q.Faults = map[Fault]int{Lost: 1} }, "1 × lost", "quiet"},
		"memory":            {func(_, a *Phase) { a.Memory[1] = 129 << 20 }, "node 2 had 129 MiB resident", "half-open"},
		"memory in quiet":   {func(q, _ *Phase) { q.Memory[0] = 129 << 20 }, "node 1 had 129 MiB resident", "quiet"},
		"kernel":            {func(_, a *Phase) { a.Kernel = 65 << 20 }, "the kernel's memory for sockets grew by 65 MiB, over 64 MiB", "half-open"},
		"memory unknown":    {func(_, a *Phase) { a.Memory = nil }, "the memory of 0 is known", "half-open"},
		"goroutines":        {func(_, a *Phase) { a.After[0].Goroutines = 106 }, "node 1 still has 106 goroutines, 100 before", "half-open"},
		"descriptors":       {func(_, a *Phase) { a.After[1].Descriptors = 66 }, "node 2 still has 66 descriptors, 60 before", "half-open"},
		"not looked at":     {func(_, a *Phase) { a.After = nil }, "of 0 what they hold after it", "half-open"},
		"a node looked at":  {func(_, a *Phase) { a.After = a.After[:1] }, "of 1 what they hold after it", "half-open"},
		"no attack":         {func(_, a *Phase) { a.Traces = nil }, "it was no attack", "half-open"},
		"something else":    {func(_, a *Phase) { a.Traces = map[string]int64{"limit frames": 1} }, "it was no attack", "half-open"},
		"too short":         {func(_, a *Phase) { a.Windows = a.Windows[:2] }, "2 windows were measured", "half-open"},
		"quiet too short":   {func(q, _ *Phase) { q.Windows = q.Windows[:2] }, "2 windows were measured", "quiet"},
		"a node died":       {func(_, a *Phase) { a.Broken = "n1 ended" }, "n1 ended", "half-open"},
		"attack of no name": {func(_, a *Phase) { a.Attack = "other" }, "it was no attack", "other"},
	} {
		phases, before, bounds := good()
		c.spoil(&phases[0], &phases[1])
		if got := Judge(phases, before, bounds); len(got) != 1 || !strings.Contains(got[0].What, c.want) || got[0].Phase != c.in {
			t.Errorf("%s: %q, want one breach with %q", name, got, c.want)
		}
	}
	for name, phases := range map[string][]Phase{"nothing": nil, "no attack": phases[:1], "no quiet": phases[1:2]} {
		if got := Judge(phases, before, bounds); len(got) == 0 {
			t.Errorf("%s: held", name)
		}
	}
}

// A phase in which nothing arrived is not a fast one.
func TestSilenceIsSlow(t *testing.T) {
	phases, before, bounds := good()
	phases[1].Windows = cut(nil, time.Unix(0, 0), time.Unix(4, 0), time.Second)
	phases[1].Spread = spread(phases[1].Windows, time.Second)
	if got := Judge(phases, before, bounds); len(got) != 1 || !strings.Contains(got[0].What, "p99 of honest clients was 1000.0 ms") {
		t.Errorf("%q", got)
	}
}

func TestWindows(t *testing.T) {
	from := time.Unix(1000, 0)
	var samples []sample
	for i := range 1000 { // one a millisecond, each a microsecond slower
		samples = append(samples, sample{from.Add(time.Duration(i) * time.Millisecond), time.Duration(i) * time.Microsecond})
	}
	samples = append(samples, sample{from.Add(2100 * time.Millisecond), time.Second}, sample{from.Add(-time.Millisecond), 0}, sample{from.Add(time.Hour), time.Second})
	got := cut(samples, from, from.Add(2900*time.Millisecond), time.Second)
	// The last is 1.9 s long.
	want := []Window{{1001, 989 * time.Microsecond}, {2, time.Second}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s := spread([]Window{{1, 5}, {1, 3}, {0, 0}, {1, 9}, {1, 4}}, 100)
	if s != (Spread{Median: 5, Least: 3, Most: 100}) {
		t.Errorf("%v", s)
	}
}

// The threat model names attacks that exist, and all of them.
func TestThreatModelNamesAttacks(t *testing.T) {
	b, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, model, _ := strings.Cut(string(b), "\n## Threat model\n")
	model, _, _ = strings.Cut(model, "\n## ")
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`make abuse`: ([a-z, -]+)").FindAllStringSubmatch(model, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			named[strings.TrimSpace(name)] = true
		}
	}
	for _, a := range Attacks() {
		if !named[a.Name] {
			t.Errorf("docs/security.md does not say against what %q is", a.Name)
		}
		delete(named, a.Name)
	}
	if len(named) > 0 {
		t.Errorf("docs/security.md names attacks that there are not: %v", named)
	}
}

// Each attack says what it has to meet, and its name is its own.
func TestAttacksAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Attacks() {
		if a.Name == "" || a.About == "" || a.Figure == "" || len(a.Meets) == 0 || a.processes < 1 || a.run == nil || seen[a.Name] {
			t.Errorf("%+v", a)
		}
		seen[a.Name] = true
	}
	some, err := Select("half-open|p.*s")
	if names := map[string]bool{}; err == nil {
		for _, a := range some {
			names[a.Name] = true
		}
		if want := map[string]bool{"half-open": true, "pings": true, "publishes": true}; !maps.Equal(names, want) {
			t.Errorf("%v, want %v", names, want)
		}
	} else {
		t.Error(err)
	}
	if _, err := Select("("); err == nil {
		t.Error("half an expression is taken")
	}
}
