package faults

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText tells what came of a run: a line if it passed; if not, also how to run it again, where its logs
// are and what was breached.
func (r *Result) WriteText(w io.Writer) {
	if why := r.NotRun(); why != "" {
		fmt.Fprintf(w, "   %s: %s\n", r.Scenario.Name, why)
		return
	}
	p := r.Report.ToResume["all"]
	fmt.Fprintf(w, "   %s %s in %v: %d delivered, longest silence %v, resumed %d times, median %v, longest %v\n", r.verdict(), r.Scenario.Name,
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

func (r *Result) verdict() string {
	switch {
	case r.Passed():
		return "passed"
	case r.NotRun() != "":
		return "NOT RUN"
	}
	return "FAILED"
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// Summary prints a line a run, and in the end what the runs show and what they do not: left are the names of the
// scenarios that were not begun because the time was over.
func Summary(w io.Writer, results []Result, left []string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tSEED\tRESULT\tLONGEST SILENCE\tRESUME P50\tP99\tMAX\tTOOK")
	for _, r := range results {
		p := r.Report.ToResume["all"]
		fmt.Fprintf(t, "%s\t%d\t%s\t%v\t%v\t%v\t%v\t%v\n", r.Scenario.Name, r.Seed, r.verdict(), ms(r.Report.Silence.For), ms(p.P50), ms(p.P99), ms(p.Max), r.Took.Round(time.Second))
	}
	_ = t.Flush()
	if len(left) > 0 {
		fmt.Fprintf(w, "NOT BEGUN, the time was over: %s\n", strings.Join(left, ", "))
	}
	n := count(results)
	for _, why := range n.reasons {
		fmt.Fprintln(w, why)
	}
	fmt.Fprintf(w, "%d passed, %d failed", n.passed, n.failed)
	if n.notRun > 0 {
		fmt.Fprintf(w, ", %d NOT RUN: of %s nothing is shown", n.notRun, strings.Join(n.unseen, ", "))
	}
	fmt.Fprintln(w)
}

// tally is what became of some runs.
type tally struct {
	passed, failed, notRun int
	reasons                []string // why some were not run, with their names
	unseen                 []string // the names of the scenarios of which no run was made
}

func count(results []Result) (n tally) {
	ran := map[string]bool{}
	for _, r := range results {
		why := r.NotRun()
		switch {
		case r.Passed():
			n.passed++
		case why != "":
			n.notRun++
			if told := r.Scenario.Name + ": " + why; !slices.Contains(n.reasons, told) {
				n.reasons = append(n.reasons, told)
			}
		default:
			n.failed++
		}
		ran[r.Scenario.Name] = ran[r.Scenario.Name] || why == ""
	}
	for _, r := range results {
		if name := r.Scenario.Name; !ran[name] && !slices.Contains(n.unseen, name) {
			n.unseen = append(n.unseen, name)
		}
	}
	return n
}
