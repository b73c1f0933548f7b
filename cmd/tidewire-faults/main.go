// Command tidewire-faults breaks a Tidewire cluster of real processes, with a real Kafka, by a seeded
// schedule, and has what its clients saw judged. `make faults` runs it; -h lists its flags.
//
// Exit codes: 0 everything held, 1 something did not, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/faults"
)

const (
	exitOK = iota
	exitFailed
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// sliceSeed is the one that CI uses: the same schedule each time.
const sliceSeed = 1

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet("tidewire-faults", flag.ContinueOnError)
	f.SetOutput(stderr)
	seed := f.Uint64("seed", 0, "`seed` of the schedule; 0: a new one")
	only := f.String("scenario", "", "only those whose name this `expression` matches as a whole")
	soak := f.Duration("soak", 0, "go on with fresh seeds for this `long`")
	slice := f.Duration("slice", 0, "only the short scenarios, with a fixed seed, begun within this `time`")
	out := f.String("o", "", "write the results as markdown to this `file`")
	dir := f.String("dir", "", "`folder` for logs; default: a new one under the system's for temporary files")
	bin := f.String("tidewire", "bin/tidewire", "the `program` to run as nodes")
	old := f.String("old", "", "an earlier build of the `program`, for the scenario that upgrades from it")
	root := f.String("root", ".", "the source `tree`")
	kafka := f.String("kafka", "4", "release `line` of Kafka")
	keep := f.Bool("keep", false, "keep the folders of runs that passed")
	loopback := f.Bool("loopback", false, "use loopback and proxies even where network namespaces are allowed")
	list := f.Bool("list", false, "list the scenarios")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	match, err := regexp.Compile("^(?:" + *only + ")$")
	if err != nil || f.NArg() > 0 {
		fmt.Fprintln(stderr, "tidewire-faults:", errors.Join(err, errors.New("see -h")))
		return exitUsage
	}
	var scenarios []faults.Scenario
	for _, s := range faults.Scenarios() {
		if *only == "" || match.MatchString(s.Name) {
			scenarios = append(scenarios, s)
		}
	}
	if *slice > 0 {
		scenarios = faults.Slice(scenarios)
	}
	if *list {
		t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		for _, s := range scenarios {
			fmt.Fprintf(t, "%s\t%s\t%d nodes\t%s\n", s.Family, s.Name, s.Nodes, s.About)
		}
		_ = t.Flush()
		return exitOK
	}
	if len(scenarios) == 0 {
		fmt.Fprintf(stderr, "tidewire-faults: no scenario %q: -list lists them\n", *only)
		return exitUsage
	}
	program, err := filepath.Abs(*bin)
	if err == nil {
		_, err = os.Stat(program)
	}
	ours := *dir == ""
	if err == nil && ours {
		*dir, err = os.MkdirTemp("", "tidewire-faults-")
	}
	if err == nil {
		*dir, err = filepath.Abs(*dir)
	}
	if err != nil {
		fmt.Fprintln(stderr, "tidewire-faults:", err)
		return exitUsage
	}
	switch {
	case *slice > 0 && *seed == 0:
		*seed = sliceSeed
	case *seed == 0:
		*seed = rand.Uint64N(1 << 32)
	}
	if *old != "" {
		if *old, err = filepath.Abs(*old); err != nil {
			fmt.Fprintln(stderr, "tidewire-faults:", err)
			return exitUsage
		}
	}
	passed, failed := 0, 0
	r := &faults.Runner{Root: *root, Tidewire: program, Old: *old, Version: *kafka, Dir: *dir, Progress: stderr, Keep: *keep, Loopback: *loopback}
	defer func() {
		if err := r.Close(); err != nil {
			fmt.Fprintln(stderr, "tidewire-faults: clean up:", err)
		}
		if ours && failed == 0 && passed > 0 && !*keep {
			_ = os.RemoveAll(*dir) // Kafka's data and logs of runs of which nobody will want to know
		}
	}()
	begun := time.Now()
	if err := r.Open(ctx); err != nil {
		fmt.Fprintln(stderr, "tidewire-faults:", err)
		return exitFailed
	}
	var results []faults.Result
	var left []string // not begun before the slice's time was over
	for round := *seed; ; round++ {
		for _, s := range scenarios {
			if ctx.Err() != nil {
				break
			}
			if *slice > 0 && time.Since(begun) > *slice {
				left = append(left, s.Name)
				continue
			}
			res := r.Run(ctx, s, round)
			if ctx.Err() != nil {
				break // cut short: it says nothing
			}
			results = append(results, res)
			switch {
			case res.Passed():
				passed++
			case res.NotRun() == "":
				failed++
			}
			res.WriteText(stderr)
		}
		if ctx.Err() != nil || time.Since(begun) >= *soak {
			break
		}
	}
	if *out != "" {
		err := faults.WriteMarkdown(*out, r, *seed, begun, results)
		if err != nil {
			fmt.Fprintln(stderr, "tidewire-faults:", err)
			return exitFailed
		}
	}
	faults.Summary(stdout, results, left)
	if failed > 0 || ctx.Err() != nil {
		return exitFailed
	}
	return exitOK
}
