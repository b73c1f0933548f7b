package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// bench is a run of the whole.
type bench struct {
	o       Options
	began   time.Time
	brokers []string
	kafka   *process
	prof    profiler
	topics  int   // made so far, or key sets where the topic is not ours
	files   int   // sockets that a process may have
	shared  []int // processors of all nodes alike; nil: they are divided
	report  *Report
}

// Run measures what the options say and returns the report, also with an error: then of what was measured until
// it. When ctx ends it stops what it started and reports what there is. Whatever goes wrong in one scenario is a
// failure in the report, and the next one is run.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	b := &bench{o: o, began: time.Now(), prof: profiler{dir: o.Profiles}}
	scenarios := b.o.selected()
	if len(scenarios) == 0 {
		return nil, fmt.Errorf("%w: no scenario matches %q that can be run so", ErrOptions, o.Scenarios)
	}
	need := 0
	for _, s := range scenarios {
		need = max(need, b.scaled(s.Clients))
	}
	var err error
	if b.files, err = raiseFiles(need); err != nil {
		return nil, err
	}
	b.report = &Report{Began: b.began, Machine: map[string]string{}, Settings: b.settings()}
	// The producers' garbage is collected between the runs, or when there is much of it: the load must not wait for it.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	if o.Local {
		if err := b.prepareLocal(); err != nil {
			return nil, err
		}
		if b.kafka != nil {
			defer b.kafka.stop(startWait)
		}
	} else {
		b.brokers = b.o.Brokers
	}
	b.machine()
	for run := 1; run <= b.o.Runs && ctx.Err() == nil; run++ {
		for i := range scenarios {
			for _, server := range scenarios[i].possible(&b.o) {
				if ctx.Err() != nil {
					break
				}
				b.one(ctx, &scenarios[i], server, run)
			}
		}
	}
	b.report.Cut = ctx.Err() != nil
	b.report.Took = time.Since(b.began)
	b.report.summarize(scenarios)
	switch {
	case len(b.report.Samples) > 0:
		return b.report, nil
	case ctx.Err() != nil:
		return b.report, context.Cause(ctx)
	default:
		return b.report, fmt.Errorf("nothing was measured: %s", strings.Join(b.report.Failed, "; "))
	}
}

// one runs one scenario once on one server.
func (b *bench) one(ctx context.Context, s *Scenario, server string, run int) {
	b.o.Progress("%s, %s, run %d of %d", s.Name, server, run, b.o.Runs)
	// Whatever hangs, the rest is still measured.
	ctx, cancel := context.WithTimeoutCause(ctx, b.o.Warmup+b.o.Duration*2+5*time.Minute, errors.New("it took too long"))
	defer cancel()
	runtime.GC()
	samples, err := b.measure(ctx, s, server)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return // Ctrl-C
		}
		text := fmt.Sprintf("%s, %s, run %d: %v", s.Name, server, run, err)
		b.report.Failed = append(b.report.Failed, text)
		b.o.Progress("FAILED: %s", text)
		return
	}
	for _, name := range serverOrder {
		values := samples[name]
		if len(values) == 0 {
			continue
		}
		b.report.Samples = append(b.report.Samples, Sample{s.Name, name, run, values})
		b.o.Progress("  %s: %s", name, oneLine(values))
		for _, bad := range []string{"missing", "repeated"} {
			if n := values[bad]; n > 0 && isTidewire(name) {
				b.problem("%s, %s, run %d: %.0f %s", s.Name, name, run, n, metric(bad).Title)
			}
		}
	}
}

func (b *bench) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(b.report.Problems, text) {
		b.report.Problems = append(b.report.Problems, text)
		b.o.Progress("NOTE: %s", text)
	}
}

// scaled is a number of clients as the options scale it.
func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.o.Scale)) }

// clientsOf is how many clients a scenario gets: fewer than it wants where files are limited.
func (b *bench) clientsOf(s *Scenario) int {
	n := b.scaled(s.Clients)
	if n > b.files {
		b.problem("%s: %d clients instead of %d: this user may open %d files a process (ulimit -Hn; to raise it takes CAP_SYS_RESOURCE)",
			s.Name, b.files, n, b.files+reservedFiles)
		n = b.files
	}
	return n
}

// keysOf is how many keys a scenario gets: as its clients are scaled, but for those of fan-out.
func (b *bench) keysOf(s *Scenario) int {
	if s.Keys == 1 {
		return 1
	}
	return b.scaled(s.Keys)
}

// rateOf is how fast it sends: what goes to keys is as much as there are of them.
func (b *bench) rateOf(s *Scenario) float64 {
	if s.Keys == 1 {
		return s.Rate
	}
	return max(1, s.Rate*b.o.Scale)
}

// shareProcessors lets everything run on all processors until restore is called: where not the processor time of one server
// is asked for but how fast all of them are together, to keep the others on one processor measures that processor.
func (b *bench) shareProcessors() (restore func() error, err error) {
	bind := func(cpus []int) error {
		pids := []int{os.Getpid()}
		if b.kafka != nil {
			kafka, err := descendants(b.kafka.cmd.Process.Pid)
			if err != nil {
				return err
			}
			pids = append(pids, kafka...)
		}
		for _, pid := range pids {
			if err := pinProcess(pid, cpus); err != nil {
				return err
			}
		}
		return nil
	}
	b.shared = slices.Concat(b.o.ServerCPUs, b.o.LoadCPUs)
	return func() error {
		b.shared = nil
		return bind(b.o.LoadCPUs)
	}, bind(b.shared)
}

// prepareLocal divides the processors and starts Kafka.
func (b *bench) prepareLocal() error {
	cpus, err := allowedCPUs()
	if err != nil {
		return err
	}
	if len(b.o.ServerCPUs) == 0 {
		b.o.ServerCPUs = cpus[:1]
	}
	if len(b.o.LoadCPUs) == 0 {
		for _, c := range cpus {
			if !slices.Contains(b.o.ServerCPUs, c) {
				b.o.LoadCPUs = append(b.o.LoadCPUs, c)
			}
		}
		if len(b.o.LoadCPUs) == 0 {
			b.o.LoadCPUs = cpus
			b.problem("there is one processor for the server and the load: figures say little")
		}
	}
	for _, c := range append(slices.Clone(b.o.ServerCPUs), b.o.LoadCPUs...) {
		if !slices.Contains(cpus, c) {
			return fmt.Errorf("this process may not use processor %d, only %v", c, cpus)
		}
	}
	for _, path := range []string{b.o.Tidewire, b.o.KafkaPath, b.o.Centrifuge} {
		if _, err := os.Stat(path); err != nil && path != "" {
			return fmt.Errorf("%w: `make bench` builds it", err)
		}
	}
	b.o.Dir = filepath.Join(b.o.Dir, fmt.Sprintf("bench-%d", b.began.Unix())) // an earlier one's data are not for this
	if err := os.MkdirAll(b.o.Dir, 0o755); err != nil {
		return err
	}
	if err := pinProcess(os.Getpid(), b.o.LoadCPUs); err != nil {
		return err
	}
	// A thread that waits in epoll_wait must not keep the producers from running.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), len(b.o.LoadCPUs)+b.o.Threads))
	b.report.Settings["server's processors"] = fmt.Sprint(b.o.ServerCPUs)
	b.report.Settings["processors of load, Kafka and the other nodes"] = fmt.Sprint(b.o.LoadCPUs)
	b.brokers = b.o.Brokers
	if b.o.KafkaPath == "" {
		return nil
	}
	b.o.Progress("Kafka is starting; logs are in %s", b.o.Dir)
	if b.kafka, err = spawn(b.o.LoadCPUs, filepath.Join(b.o.Dir, "kafka.log"), os.Environ(), b.o.KafkaPath,
		"-version", b.o.KafkaLine, "-dir", filepath.Join(b.o.Dir, "kafka")); err != nil {
		return err
	}
	line, err := b.kafka.line(10 * time.Minute) // the first time it may have to be fetched
	if err != nil {
		b.kafka.kill()
		return fmt.Errorf("kafka: %w", err)
	}
	brokers, release, _ := strings.Cut(line, " ")
	b.brokers = strings.Split(brokers, ",")
	b.report.Machine["Kafka"] = release + ", one broker"
	return nil
}

func (b *bench) settings() map[string]string {
	s := map[string]string{
		"runs": fmt.Sprint(b.o.Runs), "window": b.o.Duration.String(), "before it": b.o.Warmup.String(),
		"value": fmt.Sprintf("%d bytes", b.o.Size), "load threads": fmt.Sprint(b.o.Threads),
	}
	if b.o.Scale != 1 {
		s["clients"] = fmt.Sprintf("× %v", b.o.Scale)
	}
	if b.o.Local {
		s["nodes"] = fmt.Sprint(b.o.ClusterSize)
		s["cache a node"] = fmt.Sprintf("%d MiB", b.o.CacheBytes>>20)
	}
	if len(b.o.NodeEnv) > 0 {
		s["more variables of the nodes"] = strings.Join(b.o.NodeEnv, " ")
	}
	return s
}
