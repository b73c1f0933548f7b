package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// servers in the order of a table's columns.
var serverOrder = []string{ServerTidewire, ServerJWT, ServerTLS, ServerTLSJWT, ServerFloor, ServerCentrifuge, ServerConsumer}

// columns are the servers that an outcome has figures of.
func (o *Outcome) columns() []string {
	var out []string
	for _, s := range serverOrder {
		for _, f := range o.Figures {
			if _, ok := f.Servers[s]; ok {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

// rows are a table of an outcome, its first row the heading.
func (o *Outcome) rows() [][]string {
	cols := o.columns()
	head := append([]string{""}, cols...)
	for _, s := range cols {
		switch {
		case s == ServerTidewire || !o.compared(s):
		case isTidewire(s):
			head = append(head, strings.TrimPrefix(s, ServerTidewire)+" ÷ without")
		default:
			head = append(head, "÷ "+s)
		}
	}
	rows := [][]string{head}
	for _, f := range o.Figures {
		title := f.Metric.Title
		if f.Metric.Unit != "" {
			title += ", " + f.Metric.Unit
		}
		row := []string{title}
		for _, s := range cols {
			if sp, ok := f.Servers[s]; ok {
				row = append(row, sp.String())
			} else {
				row = append(row, "")
			}
		}
		for _, s := range cols {
			if s == ServerTidewire || !o.compared(s) {
				continue
			}
			if sp, ok := f.Ratios[s]; ok {
				row = append(row, sp.String())
			} else {
				row = append(row, "")
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// compared says whether there is a ratio to a server.
func (o *Outcome) compared(server string) bool {
	for _, f := range o.Figures {
		if _, ok := f.Ratios[server]; ok {
			return true
		}
	}
	return false
}

// String is the median, and the least and greatest where there is more than one run.
func (s Spread) String() string {
	if s.Runs < 2 || number(s.Min) == number(s.Max) {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Min), number(s.Max))
}

// number has three digits that mean something, and thousands apart.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case v == math.Trunc(v) && a < 1000:
		return strconv.Itoa(int(v))
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}

func thousands(v int64) string {
	s := strconv.FormatInt(v, 10)
	from := 0
	if s[0] == '-' {
		from = 1
	}
	for i := len(s) - 3; i > from; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// parts are what was measured, its value, the bound and the verdict.
func (v Verdict) parts() (name, value, bound, verdict string) {
	m := metric(v.Target.Metric)
	bound = "≥ " + number(v.Target.Bound)
	if v.Target.AtMost {
		bound = "≤ " + number(v.Target.Bound)
	}
	name, value = m.Title, number(v.Value)
	unit := m.Unit
	if v.Target.Over != "" {
		name += " over the " + v.Target.Over + "'s"
		unit = "×"
	}
	if unit != "" {
		value, bound = value+" "+unit, bound+" "+unit
	}
	switch {
	case v.Met:
		verdict = "met"
	case v.MissedBy == 0:
		verdict = "missed"
	default:
		verdict = "missed by " + number(math.Ceil(100*v.MissedBy)) + "%"
	}
	return name, value, bound, verdict
}

// String says what the target was, and whether it was met.
func (v Verdict) String() string {
	name, value, bound, verdict := v.parts()
	return fmt.Sprintf("%s: %s, target %s: %s", name, value, bound, verdict)
}

// WriteText writes the tables for a terminal. A figure is the median of the runs, with the least and greatest.
func (r *Report) WriteText(w io.Writer) error {
	for _, o := range r.Outcomes {
		fmt.Fprintf(w, "%s: %s\n", o.Scenario, o.About)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, row := range o.rows() {
			fmt.Fprintln(tw, strings.Join(row, "\t")+"\t")
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, v := range o.Verdicts {
			fmt.Fprintf(w, "  %s\n", v)
		}
		fmt.Fprintln(w)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(w, "NOTE:", p)
	}
	for _, p := range r.Failed {
		fmt.Fprintln(w, "FAILED:", p)
	}
	if r.Cut {
		fmt.Fprintln(w, "NOTE: ended before its end")
	}
	_, err := fmt.Fprintln(w, "Figures are medians, with the least and the greatest run; ÷ is Tidewire's figure over the other's in the same run (÷ without: with TLS or tokens over without).")
	return err
}

// oneLine is a sample for the progress.
func oneLine(values map[string]float64) string {
	var parts []string
	for _, m := range metrics {
		if v, ok := values[m.Name]; ok {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", m.Name, number(v), m.Unit)))
		}
	}
	return strings.Join(parts, ", ")
}

// sortedKeys are those of a map of strings.
func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
