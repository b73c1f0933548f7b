package abuse

import (
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what came of a run.
type Report struct {
	Began   time.Time     `json:"began"`
	Took    time.Duration `json:"took_ns"`
	Kafka   string        `json:"kafka"`
	Machine string        `json:"machine"`
	Clients int           `json:"clients"`
	Rate    int           `json:"records_a_second"`
	Bounds  Bounds        `json:"bounds"`
	// Overheard is how many conversations of nodes were heard, to be said again to the cluster port; 0: strangers repeat themselves.
	Overheard int      `json:"overheard"`
	Before    []Held   `json:"before"` // what the nodes held before the first attack
	Phases    []Phase  `json:"phases"`
	Breaches  []Breach `json:"breaches"`
}

func newReport(o Options, kafka string) *Report {
	return &Report{
		Began: time.Now(), Kafka: kafka, Clients: o.Clients, Rate: o.Rate,
		Machine: fmt.Sprintf("%d processors for nodes, Kafka, honest clients and attackers together; %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version()),
		Bounds:  Bounds{Ratio: 2, Memory: o.Memory, Kernel: kernelBytes, Slack: slack, Windows: leastWindows, Window: window},
	}
}

// finish judges what was measured.
func (r *Report) finish() {
	r.Took = time.Since(r.Began)
	r.Breaches = Judge(r.Phases, r.Before, r.Bounds)
}

// line tells a phase in one line, while it runs.
func (p *Phase) line() string {
	s := fmt.Sprintf("p99 %s (%s to %s in windows of a second)", ms(p.Spread.Median), ms(p.Spread.Least), ms(p.Spread.Most))
	s += fmt.Sprintf(", nodes %.2f cores", p.NodesCPU)
	if p.Attack != "" {
		s += fmt.Sprintf(", attackers %.2f", p.AttackersCPU)
	}
	if m := p.most(); m > 0 {
		s += ", memory " + mib(m) + ", kernel +" + mib(p.Kernel)
	}
	if p.Attack != "" {
		s += fmt.Sprintf("; back after %v; %s", p.Returned.Round(100*time.Millisecond), p.effect())
	}
	if p.Broken != "" {
		s += "; BROKEN: " + p.Broken
	}
	for _, f := range slices.Sorted(maps.Keys(p.Faults)) {
		s += fmt.Sprintf("; %d × %s", p.Faults[f], f)
	}
	for _, d := range p.Details {
		s += "\n    " + d
	}
	return s
}

func (p *Phase) most() int64 {
	if len(p.Memory) == 0 {
		return 0
	}
	return slices.Max(p.Memory)
}

// effect tells what attackers and nodes counted.
func (p *Phase) effect() string {
	var parts []string
	for _, what := range slices.Sorted(maps.Keys(p.Did)) {
		parts = append(parts, fmt.Sprintf("%s %s", what, count(p.Did[what])))
	}
	for _, what := range slices.Sorted(maps.Keys(p.Traces)) {
		if strings.HasPrefix(what, "limit ") || p.meets(what) || what == "peak tidewire_handshakes" {
			parts = append(parts, fmt.Sprintf("%s %s", what, count(p.Traces[what])))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *Phase) meets(trace string) bool {
	for _, a := range Attacks() {
		if a.Name == p.Attack {
			return slices.Contains(a.Meets, trace)
		}
	}
	return false
}

// count writes a number with commas.
func count(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// WriteText prints the table and what did not hold.
func (r *Report) WriteText(w io.Writer) {
	quiet := Quiet(r.Phases, r.Bounds.Window)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "attack\tp99\t× quiet\twindows\tnodes\tattackers\tmemory\tkernel\tback after\tresult")
	for _, row := range r.rows(quiet) {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	_ = t.Flush()
	fmt.Fprintf(w, "%d honest clients, %d records a second, Kafka → client; %v in all\n", r.Clients, r.Rate, r.Took.Round(time.Second))
	for _, b := range r.Breaches {
		fmt.Fprintf(w, "BREACH %s: %s\n", b.Phase, b.What)
	}
}

// row is a phase in the table.
type row struct {
	phase                                       *Phase
	name, p99, ratio, windows, nodes, attackers string
	memory, kernel, returned, result            string
}

func (r row) cells() []string {
	return []string{r.name, r.p99, r.ratio, r.windows, r.nodes, r.attackers, r.memory, r.kernel, r.returned, r.result}
}

func (r *Report) rows(quiet Spread) (out []row) {
	for i := range r.Phases {
		p := &r.Phases[i]
		v := row{phase: p, name: p.name(), p99: ms(p.Spread.Median), windows: fmt.Sprintf("%s to %s", ms(p.Spread.Least), ms(p.Spread.Most)), memory: mib(p.most()), result: "held",
			nodes: fmt.Sprintf("%.2f cores", p.NodesCPU), kernel: "+" + mib(p.Kernel)}
		if p.Attack != "" {
			v.attackers = fmt.Sprintf("%.2f", p.AttackersCPU)
			if v.returned = fmt.Sprintf("%.1f s", p.Returned.Seconds()); quiet.Median > 0 {
				v.ratio = fmt.Sprintf("%.2f", float64(p.Spread.Median)/float64(quiet.Median))
			}
		}
		for _, b := range r.Breaches {
			if b.Phase == p.name() {
				v.result = "NOT HELD"
			}
		}
		out = append(out, v)
	}
	return out
}

// WriteMarkdown writes the report as a page.
func (r *Report) WriteMarkdown(path string) error {
	var b strings.Builder
	quiet := Quiet(r.Phases, r.Bounds.Window)
	said := "what strangers said themselves, as what the nodes say could not be heard here"
	if r.Overheard > 0 {
		said = fmt.Sprintf("%d conversations of the nodes, from when they met", r.Overheard)
	}
	verdict := "Everything held."
	if n := len(r.Breaches); n > 0 {
		verdict = fmt.Sprintf("**%d things did not hold**, listed below the table.", n)
	}
	fmt.Fprintf(&b, `# Abuse: what a hostile crowd did, and what honest clients felt of it

Written by `+"`make abuse DOC=docs/abuse.md`"+`; what stands against each attack is in [security.md](security.md).

Three real processes of Tidewire with a cluster secret, tokens and compression, and a real Kafka, serve %s honest clients: each
subscribes to one of %d keys, %d records a second are written to Kafka, and each client checks the position and the count of
every record that it gets. Meanwhile others attack, one attack after the other. %s

What has to hold during each: the honest clients' p99, from the making of a record to the client that has read it, is %g times
that in quiet at most (medians of windows of %v; quiet is before the first attack and after the last); none is thrown out;
nothing is lost, repeated or out of order for them; no node has more than %s of memory resident (GOMEMLIMIT is three quarters
of that, the cache %s), and the kernel's memory for all sockets here, clients' included, grows by %s at most;
and afterwards each node has the goroutines and file descriptors again that it had before the first attack, %d more at most, as connections to Kafka and between nodes come and go. An attack that meets nothing of what it has to meet is a failure, too.

| | |
| --- | --- |
| date | %s |
| Kafka | %s, one broker |
| machine | %s |
| p99 in quiet | %s (windows: %s to %s) |

The limits are the defaults but for: `+"`TIDEWIRE_MAX_PENDING_BYTES`"+` %s and `+"`TIDEWIRE_CACHE_BYTES`"+` %s, which otherwise go by the
machine's memory, and `+"`TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND`"+` %d and `+"`TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND`"+` %s, as the defaults
(5,000, and 64 MiB for each processor) on each of three nodes are more than two processors and one Kafka write and read. Honest clients and attackers come from different addresses of 127.0.0.0/8, so that limits of addresses work.
What is said again to the cluster port is %s.

The attackers share the processors with what they attack. So each attack keeps to a rate, which is in the table, and its
processes run at the lowest priority (nice 19, SCHED_IDLE): what slows the honest down is then what the nodes do about the attack, and not
the attackers' own need of processors. On a machine of its own a crowd can send more; what bounds that are the limits, which are
the same, and what the network and the kernel take before a node sees it. A process may have 20,000 descriptors here, so
the attackers with many connections are several.

`, count(int64(r.Clients)), keys, r.Rate, verdict, r.Bounds.Ratio, r.Bounds.Window, mib(r.Bounds.Memory), mib(cacheBytes), mib(r.Bounds.Kernel), r.Bounds.Slack.Goroutines,
		r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.Kafka, r.Machine, ms(quiet.Median), ms(quiet.Least), ms(quiet.Most), mib(r.Bounds.Memory/8), mib(cacheBytes), userPublishes, mib(replayBytes), said)
	b.WriteString("| attack | what is done, and how much | honest p99 | × quiet | windows | cores: nodes, attackers | most memory: node, kernel | back after | result |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	about := map[string]string{"quiet": "nothing"}
	for _, a := range Attacks() {
		about[a.Name] = a.About + "; " + a.Figure
	}
	for _, v := range r.rows(quiet) {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", v.name, about[v.name], v.p99, v.ratio, v.windows, strings.TrimSuffix(strings.TrimSuffix(v.nodes, " cores")+", "+v.attackers, ", "), v.memory+", "+v.kernel, v.returned, v.result)
	}
	b.WriteString("\nWhat attackers and nodes counted (`limit` is `tidewire_limited_total`, `peak` the most of a gauge, `closed` a close code, `answered` an HTTP status):\n\n")
	for _, v := range r.rows(quiet) {
		if v.phase.Attack != "" {
			fmt.Fprintf(&b, "- **%s**: %s\n", v.name, v.phase.effect())
		}
	}
	if len(r.Breaches) > 0 {
		b.WriteString("\nWhat did not hold:\n\n")
		for _, x := range r.Breaches {
			fmt.Fprintf(&b, "- **%s**: %s\n", x.Phase, x.What)
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
