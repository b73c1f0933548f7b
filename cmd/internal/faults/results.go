package faults

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText tells what came of a run: a line if it passed; if not, also how to run it again, where its logs
// are and what was breached.
func (r *Result) WriteText(w io.Writer) {
	p := r.Report.ToResume["all"]
	verdict := "passed"
	if !r.Passed() {
		verdict = "FAILED"
	}
	fmt.Fprintf(w, "   %s %s in %v: %d delivered, longest silence %v, resumed %d times, median %v, longest %v\n", verdict, r.Scenario.Name,
		r.Took.Round(time.Second), r.Report.Delivered, ms(r.Report.Silence.For), p.Count, ms(p.P50), ms(p.Max))
	for _, f := range r.Figures {
		fmt.Fprintf(w, "   %s: %s\n", f.Name, f.Value)
	}
	if r.Passed() {
		return
	}
	fmt.Fprintf(w, "   again with: make faults SCENARIO=%s SEED=%d\n   logs: %s\n", r.Scenario.Name, r.Seed, r.Dir)
	if r.Err != nil {
		fmt.Fprintf(w, "   %v\n", r.Err)
	}
	if b := r.Breach(); b != "" {
		fmt.Fprintf(w, "   %s\n", b)
	}
	if !r.Report.Clean() {
		var text bytes.Buffer
		_ = r.Report.WriteText(&text) // a buffer takes everything
		lines := strings.Split(strings.TrimSpace(text.String()), "\n")
		for _, l := range lines[:min(len(lines), 60)] {
			fmt.Fprintln(w, "   |", l)
		}
	}
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// Summary prints a line a run.
func Summary(w io.Writer, results []Result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tSEED\tRESULT\tLONGEST SILENCE\tRESUME P50\tP99\tMAX\tTOOK")
	for _, r := range results {
		verdict := "passed"
		if !r.Passed() {
			verdict = "FAILED"
		}
		p := r.Report.ToResume["all"]
		fmt.Fprintf(t, "%s\t%d\t%s\t%v\t%v\t%v\t%v\t%v\n", r.Scenario.Name, r.Seed, verdict, ms(r.Report.Silence.For), ms(p.P50), ms(p.P99), ms(p.Max), r.Took.Round(time.Second))
	}
	_ = t.Flush()
}

// WriteMarkdown writes the results as a page for readers. Runs of one scenario are put together.
func WriteMarkdown(path string, run *Runner, seed uint64, begun time.Time, results []Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# Faults: what was broken, and what clients saw

This page is written by `+"`make faults DOC=docs/faults.md`"+`, which anyone can run. Real processes of Tidewire and a
real Kafka with three brokers were broken as each line says, while producers, transactions, publishers and
subscribers of every kind were at work; then everything that every client saw was held against what Kafka
holds. "Passed" means: nothing lost, repeated, out of order, undeclared, declared without need, or told
differently by two nodes; every acknowledged publish there, once.

| | |
| --- | --- |
| date | %s |
| Tidewire | %s |
| Kafka | %s, 3 brokers, 3 copies, 2 in sync |
| first seed | %d |
| network | %v |
| machine | %d cores shared by nodes, brokers, clients and checker; %s, %s |

`, begun.UTC().Format("2006-01-02 15:04 UTC"), tidewireVersion(run.Tidewire), run.Kafka(), seed, run.Network(), runtime.NumCPU(), runtime.GOOS, runtime.Version())
	fmt.Fprintln(&b, "A *silence* is the time for which a record that Kafka had acknowledged waited for a subscriber whose node lived.\n*Resume* is from a disconnect to the next subscription, on whatever node, over all causes.\n\n| scenario | what happens | runs | kills | delivered | longest silence | resume median | 99% | longest | result |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	var order []string
	by := map[string][]Result{}
	for _, r := range results {
		if by[r.Scenario.Name] == nil {
			order = append(order, r.Scenario.Name)
		}
		by[r.Scenario.Name] = append(by[r.Scenario.Name], r)
	}
	kills, records := 0, 0
	for _, name := range order {
		var silence, p50, p99, longest time.Duration
		var delivered, killed int
		var bad []string
		var medians []time.Duration
		for _, r := range by[name] {
			p := r.Report.ToResume["all"]
			silence, p99, longest = max(silence, r.Report.Silence.For), max(p99, p.P99), max(longest, p.Max)
			medians = append(medians, p.P50)
			delivered += r.Report.Delivered
			killed += r.Kills
			if !r.Passed() {
				bad = append(bad, fmt.Sprint(r.Seed))
			}
		}
		kills += killed
		records += delivered
		slices.Sort(medians)
		p50 = medians[len(medians)/2]
		verdict := "passed"
		if bad != nil {
			verdict = "**failed**, seed " + strings.Join(bad, ", ")
		}
		s := by[name][0].Scenario
		fmt.Fprintf(&b, "| %s | %s, %d nodes | %d | %d | %d | %v | %v | %v | %v | %s |\n", name, s.About, s.Nodes, len(by[name]), killed, delivered,
			ms(silence), ms(p50), ms(p99), ms(longest), verdict)
	}
	fmt.Fprintf(&b, "\n%d processes were killed, %d records delivered.\n", kills, records)
	for _, name := range order {
		for _, r := range by[name] {
			if len(r.Figures) == 0 {
				continue
			}
			fmt.Fprintf(&b, "\n## Figures of %s, seed %d\n\n| | |\n| --- | --- |\n", name, r.Seed)
			for _, f := range r.Figures {
				fmt.Fprintf(&b, "| %s | %s |\n", f.Name, f.Value)
			}
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
