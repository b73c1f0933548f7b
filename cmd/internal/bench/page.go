package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// WriteDoc writes the report as a page of markdown, and its plots into the folder of the same name beside it.
func (r *Report) WriteDoc(file string) error {
	dir := strings.TrimSuffix(file, filepath.Ext(file))
	var page bytes.Buffer
	r.writePage(&page, filepath.Base(dir))
	errs := []error{os.MkdirAll(dir, 0o755)}
	for _, c := range r.charts() {
		var svg bytes.Buffer
		errs = append(errs, c.write(&svg), os.WriteFile(filepath.Join(dir, c.file), svg.Bytes(), 0o644))
	}
	return errors.Join(append(errs, os.WriteFile(file, page.Bytes(), 0o644))...)
}

// pageIntro says how the figures came to be.
const pageIntro = `# Benchmarks

` + "`make bench DOC=docs/benchmarks.md`" + ` wrote this page; ` + "`tidectl bench -h`" + ` and
[performance.md](performance.md) say more. A figure is the median of the runs, with the least and the
greatest; ÷ is Tidewire's figure over another's in the same run; *÷ without* that of Tidewire with TLS or tokens over
that of Tidewire without them.

Everything ran on one machine: the server under test on processors of its own, the load, Kafka and the other nodes on
the rest, so that these were slower than they would be elsewhere, and latencies longer. All servers got the same
messages at the same pace, what was due within a millisecond at once. Processor time and memory are those of the
server's process, as the kernel counts them.

- **tidewire**: the first node of a cluster whose records come from a real Kafka, with its cache, ledger and
  replication. With one subject, that node coordinates the subject's partition. Latency counts from the making of the
  record in its producer, so that writing to Kafka is in it.
- **tidewire+jwt**, **+tls**, **+tls+jwt**: the same, and each client shows a JSON Web Token of its own in the handshake, speaks
  TLS, or both.
- **floor**: a program that answers the handshake and writes ready frames of the same size; no subscriptions, no
  positions, no Kafka. Latency counts from the making of the message in that program.
- **centrifuge**: a small server on the centrifuge library, one channel a subject, fed in its own process; no history,
  no positions, no Kafka. Latency as for the floor.
- **consumer**: a plain consumer of the same topic, in the process of the load.

`

// writePage writes the page; plots are in the folder beside it.
func (r *Report) writePage(w io.Writer, folder string) {
	fmt.Fprint(w, pageIntro)
	fmt.Fprintf(w, "%s, %v.\n\n| | |\n| --- | --- |\n", r.Began.UTC().Format(time.DateOnly), r.Took.Round(time.Second))
	for _, m := range []map[string]string{r.Machine, r.Settings} {
		for _, k := range sortedKeys(m) {
			fmt.Fprintf(w, "| %s | %s |\n", k, m[k])
		}
	}
	if r.Cut {
		fmt.Fprint(w, "\n**Ended before its end: scenarios or runs are missing.**\n")
	}
	for _, list := range []struct {
		title string
		items []string
	}{{"To know before a figure is believed:", r.Problems}, {"What could not be measured:", r.Failed}} {
		if len(list.items) > 0 {
			fmt.Fprintf(w, "\n%s\n\n", list.title)
			for _, p := range list.items {
				fmt.Fprintf(w, "- %s\n", strings.ReplaceAll(p, "\n", " "))
			}
		}
	}
	fmt.Fprint(w, "\n## Targets\n\n| scenario | figure | measured | target | |\n| --- | --- | --- | --- | --- |\n")
	for _, o := range r.Outcomes {
		for _, v := range o.Verdicts {
			name, value, bound, verdict := v.parts()
			if !v.Met {
				verdict = "**" + verdict + "**"
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", o.Scenario, name, value, bound, verdict)
		}
	}
	fmt.Fprint(w, "\nHow long subscribers wait when a coordinator is killed is measured by `make faults SCENARIO=speed-kill`.\n")
	if charts := r.charts(); len(charts) > 0 {
		fmt.Fprint(w, "\n## Plots\n\n")
		for _, c := range charts {
			fmt.Fprintf(w, "![%s](%s/%s)\n\n", c.title, folder, c.file)
		}
	}
	fmt.Fprint(w, "## Figures\n")
	for _, o := range r.Outcomes {
		fmt.Fprintf(w, "\n### %s\n\n%s.\n\n", o.Scenario, strings.ToUpper(o.About[:1])+o.About[1:])
		for i, row := range o.rows() {
			fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(w, "| --- |%s\n", strings.Repeat(" ---: |", len(row)-1))
			}
		}
	}
}
