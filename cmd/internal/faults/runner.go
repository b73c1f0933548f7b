package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// Runner starts Kafka once, and runs scenarios against it, each with a cluster and a topic of its own.
type Runner struct {
	Root     string // the source tree, for get-kafka.sh
	Tidewire string // path of the program
	Old      string // path of an earlier build of it; empty: there is none
	Version  string // Kafka's release line: 4 or 3.9
	Dir      string // for logs and data; each run has a folder in it
	Progress io.Writer
	Loopback bool // use proxies even where namespaces are allowed
	Keep     bool // keep the folders of runs that passed, too

	net   Network
	kafka *Kafka
	runs  int
}

// Result is what came of one run of one scenario.
type Result struct {
	Scenario Scenario
	Seed     uint64
	Report   verify.Report
	Figures  []Figure
	Kills    int
	Took     time.Duration
	Err      error  // the run could not be judged, or the scenario's own demands were not met
	Dir      string // what was kept; empty: nothing
}

// Passed says that everything held.
func (r *Result) Passed() bool { return r.Err == nil && r.Report.Clean() && r.Breach() == "" }

// ErrNotRun marks a scenario that this machine does not let us run: it says nothing about Tidewire.
var ErrNotRun = errors.New("NOT RUN")

// NotRun returns why it was not run, empty if it was.
func (r *Result) NotRun() string {
	if errors.Is(r.Err, ErrNotRun) {
		return r.Err.Error()
	}
	return ""
}

// Breach returns the first figure over its limit.
func (r *Result) Breach() string {
	for _, f := range r.Figures {
		if f.Breach != "" {
			return f.Name + " " + f.Value + ": " + f.Breach
		}
	}
	return ""
}

// maxNodes is the largest cluster of any scenario.
const maxNodes = 5

// Open makes the network and starts Kafka. Close must be called even if it fails.
func (r *Runner) Open(ctx context.Context) error {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return err
	}
	var err error
	if !r.Loopback {
		if ns, nsErr := newNetns(); nsErr == nil {
			r.net = ns
		} else {
			r.tell("NO NETWORK NAMESPACES HERE (%v): loopback and proxies instead, whose cuts are coarser", nsErr)
		}
	}
	if r.net == nil {
		r.net = newLoopback()
	}
	for _, n := range nodeNames(maxNodes) {
		if err := r.net.Add(n); err != nil {
			return err
		}
	}
	sweepDisks()
	r.tell("network: %v; Kafka is starting, logs in %s", r.net, r.Dir)
	begin := time.Now()
	r.kafka, err = startKafka(ctx, r.net, r.Root, r.Version, filepath.Join(r.Dir, "kafka"), nodeNames(maxNodes))
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	r.tell("Kafka %s with three brokers is ready after %v", r.kafka.Release(), time.Since(begin).Round(100*time.Millisecond))
	return nil
}

// Network and Kafka name what the runs were made with.
func (r *Runner) Network() string { return r.net.String() }

// Kafka returns the release.
func (r *Runner) Kafka() string { return r.kafka.Release() }

// Close ends everything that Open started.
func (r *Runner) Close() error {
	var errs []error
	if r.kafka != nil {
		errs = append(errs, r.kafka.Close())
	}
	if r.net != nil {
		errs = append(errs, r.net.Close())
	}
	return errors.Join(errs...)
}

func (r *Runner) tell(format string, args ...any) { fmt.Fprintf(r.Progress, format+"\n", args...) }

// Run runs one scenario with one seed.
func (r *Runner) Run(ctx context.Context, s Scenario, seed uint64) Result {
	begin := time.Now()
	r.runs++
	res := Result{Scenario: s, Seed: seed}
	r.tell("== %s (seed %d): %s", s.Name, seed, s.About)
	dir := filepath.Join(r.Dir, fmt.Sprintf("%03d-%s-%d", r.runs, s.Name, seed))
	res.Err = r.run(ctx, s, seed, dir, &res)
	res.Took = time.Since(begin)
	if (res.Passed() || res.NotRun() != "") && !r.Keep {
		_ = os.RemoveAll(dir)
	} else {
		res.Dir = dir
	}
	return res
}

func (r *Runner) run(ctx context.Context, s Scenario, seed uint64, dir string, res *Result) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := r.kafka.Repair(ctx); err != nil {
		return fmt.Errorf("before it began: %w", err)
	}
	topic := fmt.Sprintf("f%d-%s", r.runs, s.Name)
	if err := r.kafka.CreateTopic(ctx, topic, s.Partitions, s.Copies, s.TopicConfig); err != nil {
		return err
	}
	defer func() { // for the sake of the next run alone
		_ = r.kafka.Repair(context.WithoutCancel(ctx))
		_ = r.kafka.DeleteTopic(context.WithoutCancel(ctx), topic)
	}()
	nodes := newNodes(r.net, r.kafka, r.Tidewire, dir, topic, s.Nodes, s.Env)
	defer func() { err = errors.Join(err, nodes.Close()) }()
	defer func() { err = errors.Join(err, r.net.Heal()) }()
	if err := r.equip(s, nodes, dir); err != nil {
		return err
	}
	if err := nodes.StartAll(ctx); err != nil {
		return err
	}
	clients, err := nodes.clients(s.Spare)
	if err != nil {
		return err
	}
	brokers, err := r.kafka.Addrs(Driver)
	if err != nil {
		return err
	}
	o := verify.Options{Nodes: clients, Brokers: brokers, Topics: []string{topic}, Partitions: s.Partitions,
		Duration: 24 * time.Hour, Settle: s.Settle, Seed: seed | 1, Limits: verify.Limits{Silence: s.Silence, Resume: s.Resume}}
	if s.Load != nil {
		s.Load(&o)
	}
	load, err := verify.New(o)
	if err != nil {
		return err
	}
	nodes.mu.Lock()
	nodes.watch = load
	nodes.mu.Unlock()
	rig := &Rig{Net: r.net, Kafka: r.kafka, Nodes: nodes, Load: load, Topic: topic, Parts: s.Partitions, tell: r.tell, Rand: rngOf(s.Name, seed)}
	history, err := r.drive(ctx, rig, s)
	res.Kills = rig.Kills
	if len(history.Subscribers) > 0 { // also of a run that did not come to its end: it may say why
		res.Report = verify.Judge(history)
	}
	if err == nil && s.Measure != nil {
		res.Figures = s.Measure(rig, history)
	}
	return errors.Join(err, nodes.Died(),
		write(filepath.Join(dir, "history.json"), history), write(filepath.Join(dir, "report.json"), res.Report), write(filepath.Join(dir, "events.json"), rig.Events))
}

// equip gives the nodes what the scenario wants them to have. The error is ErrNotRun if that cannot be had.
func (r *Runner) equip(s Scenario, nodes *Nodes, dir string) (err error) {
	for _, n := range nodes.list {
		if s.Disk > 0 {
			if n.disk, err = newDisk(dir, n.name, s.Disk, !s.DiskHangs); err != nil {
				return err
			}
			n.dir = n.disk.path()
		}
		if s.Old {
			if _, err := os.Stat(r.Old); r.Old == "" || err != nil {
				return fmt.Errorf("%w: there is no build of an earlier commit (-old %q); make faults makes one where the repository has its history", ErrNotRun, r.Old)
			}
			n.path = r.Old
			// It may know no secret. The new build lets it in as it is, and proves itself to its like.
			n.env = append(n.env, "TIDEWIRE_CLUSTER_INSECURE=true")
		}
	}
	return nil
}

// drive runs the load, and the scenario while it goes on.
func (r *Runner) drive(ctx context.Context, rig *Rig, s Scenario) (verify.History, error) {
	loadCtx, endLoad := context.WithCancel(ctx)
	defer endLoad()
	type outcome struct {
		h   verify.History
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		h, err := rig.Load.Run(loadCtx)
		ended <- outcome{h, err}
	}()
	select {
	case o := <-ended:
		return o.h, fmt.Errorf("the load could not begin: %w", errors.Join(o.err, ctx.Err()))
	case <-rig.Load.Loading():
	}
	err := s.Run(ctx, rig)
	if err == nil {
		err = rig.Net.Heal()
	}
	rig.Note("end of the load")
	endLoad()
	o := <-ended
	return o.h, errors.Join(err, o.err, ctx.Err())
}

func rngOf(name string, seed uint64) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // never fails
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// write writes a value as JSON.
func write(path string, v any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(v), f.Close())
}
