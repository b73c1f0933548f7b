// Command tidewire-abuse attacks a Tidewire cluster of real processes, with a real Kafka, in the ways a hostile crowd
// would, and judges what honest clients felt of it. `make abuse` runs it; -h lists its flags.
//
// Exit codes: 0 everything held, 1 something did not, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/abuse"
)

const (
	exitOK = iota
	exitFailed
	exitUsage
)

// attackerArg makes a process of this program one of the attackers.
const attackerArg = "attacker"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == attackerArg {
		if err := abuse.RunAttacker(args[1], ctx, stdout); err != nil {
			fmt.Fprintln(stderr, "attacker:", err)
			return exitFailed
		}
		return exitOK
	}
	var o abuse.Options
	f := flag.NewFlagSet("tidewire-abuse", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.Only, "attack", "", "only those whose name this `expression` matches as a whole")
	f.DurationVar(&o.Attack, "for", 8*time.Second, "how `long` each attack is; some need longer, and take it")
	f.DurationVar(&o.Quiet, "quiet", 15*time.Second, "how `long` honest clients are alone before and after")
	f.DurationVar(&o.Warmup, "warmup", 8*time.Second, "how `long` they are served before anything is measured")
	f.IntVar(&o.Clients, "clients", 1000, "honest clients")
	f.IntVar(&o.Rate, "rate", 200, "records a second that are written to Kafka for them")
	f.StringVar(&o.Kafka, "kafka", "4", "release `line` of Kafka")
	f.StringVar(&o.Dir, "dir", "", "`folder` for logs and data; default: a new one under the system's for temporary files")
	memory := f.Int64("memory", 512, "`MiB` that a node may have resident")
	bin := f.String("tidewire", "bin/tidewire", "the `program` to run as nodes")
	doc := f.String("o", "", "write the results as markdown to this `file`")
	out := f.String("json", "", "write the results as JSON to this `file`")
	keep := f.Bool("keep", false, "keep the folder even if everything held")
	list := f.Bool("list", false, "list the attacks")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	usage := func(err error) int {
		fmt.Fprintln(stderr, "tidewire-abuse:", err)
		return exitUsage
	}
	if f.NArg() > 0 {
		return usage(fmt.Errorf("no arguments are taken, see -h: %q", f.Args()))
	}
	attacks, err := abuse.Select(o.Only)
	if err != nil {
		return usage(err)
	}
	if *list {
		t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		for _, a := range attacks {
			fmt.Fprintf(t, "%s\t%s; %s\n", a.Name, a.About, a.Figure)
		}
		_ = t.Flush()
		return exitOK
	}
	o.Memory = *memory << 20
	if o.Tidewire, err = filepath.Abs(*bin); err == nil {
		_, err = os.Stat(o.Tidewire)
	}
	self := ""
	if err == nil {
		self, err = os.Executable()
	}
	ours := o.Dir == ""
	if err == nil && ours {
		o.Dir, err = os.MkdirTemp("", "tidewire-abuse-")
	} else if err == nil {
		err = os.MkdirAll(o.Dir, 0o755)
	}
	if err != nil {
		return usage(err)
	}
	o.Attacker = []string{self, attackerArg}
	o.Progress = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	report, err := abuse.Run(ctx, o)
	held := err == nil && len(report.Breaches) == 0
	if report != nil && err == nil {
		report.WriteText(stdout)
		err = write(report, *doc, *out)
	}
	if ours && (held || errors.Is(err, abuse.ErrOptions) || ctx.Err() != nil) && !*keep {
		_ = os.RemoveAll(o.Dir) // Kafka's data and logs that nobody will want to know
	}
	switch {
	case errors.Is(err, abuse.ErrOptions):
		return usage(err)
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "tidewire-abuse: cut short: nothing is judged")
		return exitFailed
	case err != nil:
		fmt.Fprintf(stderr, "tidewire-abuse: %v: logs are in %s\n", err, o.Dir)
		return exitFailed
	case !held:
		fmt.Fprintln(stderr, "tidewire-abuse: logs are in", o.Dir)
		return exitFailed
	}
	return exitOK
}

// write writes the files that were asked for.
func write(r *abuse.Report, doc, out string) error {
	var errs []error
	if doc != "" {
		errs = append(errs, r.WriteMarkdown(doc))
	}
	if out != "" {
		b, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(out, append(b, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
