package faults

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// WriteMarkdown writes the results as a page for people who wonder whether Tidewire would hold for them: what
// was done, with what, what came of it, and how to do it again. Runs of one scenario are put together.
func WriteMarkdown(path string, run *Runner, seed uint64, begun time.Time, results []Result) error {
	var b strings.Builder
	groups := byScenario(results)
	n, kills, delivered := count(results), 0, 0
	for _, r := range results {
		kills += r.Kills
		delivered += r.Report.Delivered
	}
	fmt.Fprintf(&b, `# Faults: what was broken, and what clients saw

Real processes of Tidewire and a real Kafka with three brokers were broken in each way below, while producers,
transactions, publishers and subscribers of every kind were at work. Then everything that every client had seen was
held against what Kafka holds. "Passed" means, for every record and every client: nothing lost, nothing repeated,
nothing out of order, no loss declared that was none, no position told differently by two nodes, every
acknowledged publish in Kafka once; and no silence or resume over the limit, where the table names one.

**%d runs of %d scenarios: %d passed, %d failed, %d not run. %d processes killed, %d records delivered.**%s

| | |
| --- | --- |
| date | %s |
| Tidewire | %s |
| Kafka | %s: 3 brokers, 3 copies of each partition, 2 in sync to acknowledge |
| first seed | %d |
| network | %v |
| machine | %d cores for nodes, brokers, clients and checker together; %s, %s |

Anyone can do this again, as root on Linux for network namespaces and disks of their own (without, it falls back
to proxies and says what it could not run); it needs Go and a JVM, and fetches Kafka:

`, len(results), len(groups), n.passed, n.failed, n.notRun, kills, delivered, shown(n, groups),
		begun.UTC().Format("2006-01-02 15:04 UTC"), tidewireVersion(run.Tidewire), run.Kafka(), seed, run.Network(), runtime.NumCPU(), runtime.GOOS, runtime.Version())
	fmt.Fprintf(&b, "```\nmake faults SEED=%d DOC=docs/faults.md        # this page\nmake faults SCENARIO=kill-coordinator          # one of them\nmake faults SOAK=2h                            # on and on, with fresh seeds\nmake faults SLICE=5m                           # what CI runs\n```\n\n", seed)
	b.WriteString(`A run that fails prints its seed and keeps every process's log. Scenario and seed are the schedule: what is done,
to whom, and when.

A **silence** is the time for which a record that Kafka had acknowledged waited for a subscriber whose node lived.
**Resume** is from a disconnect to the next subscription, on whatever node, whatever the cause: those that roam cut
their connections themselves all the time. The longest of all runs is shown, with its limit in brackets.
`)
	family := ""
	for _, g := range groups {
		if g.s.Family != family {
			family = g.s.Family
			fmt.Fprintf(&b, "\n## %s\n\n| scenario | what happens | runs | kills | delivered | longest silence | resume: median, 99%%, longest | result |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n", family)
		}
		g.row(&b)
	}
	for _, g := range groups {
		for _, r := range g.runs {
			if len(r.Figures) == 0 {
				continue
			}
			fmt.Fprintf(&b, "\n### Figures of %s, seed %d\n\n| | |\n| --- | --- |\n", g.s.Name, r.Seed)
			for _, f := range r.Figures {
				fmt.Fprintf(&b, "| %s | %s |\n", f.Name, f.Value)
			}
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// shown says of which scenarios a page shows nothing: those that this machine did not let us run, and those that
// were not asked for.
func shown(n tally, groups []runsOf) string {
	var b strings.Builder
	if len(n.unseen) > 0 {
		fmt.Fprintf(&b, "\n\n**NOT RUN, so that nothing is shown of them: %s.**", strings.Join(n.unseen, ", "))
	}
	var others []string
	for _, s := range Scenarios() {
		if !slices.ContainsFunc(groups, func(g runsOf) bool { return g.s.Name == s.Name }) {
			others = append(others, s.Name)
		}
	}
	if len(others) > 0 {
		fmt.Fprintf(&b, "\n\nNot part of these runs: %s.", strings.Join(others, ", "))
	}
	return b.String()
}

// runsOf are the runs of one scenario.
type runsOf struct {
	s    Scenario
	runs []Result
}

// byScenario keeps the order of families, and within one that of the first runs.
func byScenario(results []Result) []runsOf {
	var out []runsOf
	var families []string
	for _, r := range results {
		if !slices.Contains(families, r.Scenario.Family) {
			families = append(families, r.Scenario.Family)
		}
		i := slices.IndexFunc(out, func(g runsOf) bool { return g.s.Name == r.Scenario.Name })
		if i < 0 {
			i = len(out)
			out = append(out, runsOf{s: r.Scenario})
		}
		out[i].runs = append(out[i].runs, r)
	}
	slices.SortStableFunc(out, func(a, b runsOf) int {
		return slices.Index(families, a.s.Family) - slices.Index(families, b.s.Family)
	})
	return out
}

func (g *runsOf) row(b *strings.Builder) {
	var silence, p99, longest time.Duration
	var delivered, kills int
	var bad []string
	var skipped string
	var medians []time.Duration
	for _, r := range g.runs {
		if why := r.NotRun(); why != "" {
			skipped = why
			continue
		}
		p := r.Report.ToResume["all"]
		silence, p99, longest = max(silence, r.Report.Silence.For), max(p99, p.P99), max(longest, p.Max)
		medians = append(medians, p.P50)
		delivered += r.Report.Delivered
		kills += r.Kills
		if !r.Passed() {
			bad = append(bad, fmt.Sprint(r.Seed))
		}
	}
	verdict := "passed"
	switch {
	case bad != nil:
		verdict = "**failed**, seed " + strings.Join(bad, ", ")
	case medians == nil:
		fmt.Fprintf(b, "| %s | %s, %d nodes | 0 | | | | | %s |\n", g.s.Name, g.s.About, g.s.Nodes, strings.ReplaceAll(skipped, "|", "/"))
		return
	}
	if n := len(g.runs) - len(medians); n > 0 {
		verdict += fmt.Sprintf("; %d NOT RUN", n)
	}
	slices.Sort(medians)
	fmt.Fprintf(b, "| %s | %s, %d nodes | %d | %d | %d | %v%s | %v, %v, %v%s | %s |\n", g.s.Name, g.s.About, g.s.Nodes, len(medians), kills, delivered,
		ms(silence), limit(g.s.Silence), ms(medians[len(medians)/2]), ms(p99), ms(longest), limit(g.s.Resume), verdict)
}

// limit tells a limit, if there is one.
func limit(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(" (%v)", d)
}
