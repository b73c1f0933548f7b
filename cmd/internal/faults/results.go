package faults

import (
	"bytes"
	"fmt"
	"io"
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

// Summary prints a line a run.
func Summary(w io.Writer, results []Result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SCENARIO\tSEED\tRESULT\tLONGEST SILENCE\tRESUME P50\tP99\tMAX\tTOOK")
	for _, r := range results {
		p := r.Report.ToResume["all"]
		fmt.Fprintf(t, "%s\t%d\t%s\t%v\t%v\t%v\t%v\t%v\n", r.Scenario.Name, r.Seed, r.verdict(), ms(r.Report.Silence.For), ms(p.P50), ms(p.P99), ms(p.Max), r.Took.Round(time.Second))
	}
	_ = t.Flush()
}
