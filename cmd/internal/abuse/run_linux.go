package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/cmd/internal/bench"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

const (
	nodes      = 3
	partitions = 6
	live       = "prices"
	archive    = "archive"
	chat       = "chat"

	// startWait bounds a step of the preparations.
	startWait = 2 * time.Minute
	// returnWait is how long after an attack the nodes may take to hold what they held before it.
	returnWait = 20 * time.Second
	// rest is what nodes and clients get after that before the next attack.
	rest = time.Second
	// attackerGrace is how long after its time an attacker's process may take to say what it did.
	attackerGrace = 20 * time.Second
	// completeWait is how long honest clients may take for the last records.
	completeWait = 30 * time.Second

	tokenSecret   = "of the nodes and clients that are attacked, 64 bytes, no more!!!"
	clusterSecret = "of the nodes that strangers try to reach 4711"
)

type runner struct {
	o      Options
	report *Report
	kafka  *kgo.Client
	nodes  *bench.Nodes
	probe  *probe
	crowd  *crowd
	target Target
}

// Run starts everything, attacks it, and returns the report, judged; with an error it may be of less than was asked
// for, and is nil if nothing was measured. When ctx ends it stops what it started.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	attacks, err := Select(o.Only)
	if err != nil {
		return nil, err
	}
	o.Progress("Kafka is starting; logs are in %s", o.Dir)
	kafka, err := kafkatest.StartAlone(kafkatest.Options{Version: o.Kafka}, filepath.Join(o.Dir, "kafka"), "-Xmx1g", "-XX:TieredStopAtLevel=4")
	if err != nil {
		return nil, err
	}
	defer kafka.Close()
	r := &runner{o: o, report: newReport(o, kafka.Release())}
	defer r.close()
	if err := r.prepare(ctx, kafka.Brokers()); err != nil {
		return nil, err
	}
	err = r.phases(ctx, attacks)
	r.report.finish()
	return r.report, err
}

// prepare starts nodes and honest clients.
func (r *runner) prepare(ctx context.Context, brokers []string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	r.kafka, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID("tidewire-abuse"), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		return fmt.Errorf("client of Kafka: %w", err)
	}
	for _, topic := range []string{live, archive, chat} {
		if err := bench.CreateTopic(ctx, r.kafka, topic, partitions); err != nil {
			return err
		}
	}
	r.o.Progress("%d nodes are starting", nodes)
	heard, deaf := listen()
	if deaf != nil {
		r.o.Progress("%v: strangers will say again what they said themselves", deaf)
	}
	r.nodes, err = bench.StartNodes(ctx, bench.NodesOptions{Tidewire: r.o.Tidewire, Dir: r.o.Dir, Brokers: brokers, Topic: live, Partitions: partitions,
		Count: nodes, CacheBytes: cacheBytes, Env: environment(r.o.Memory)})
	var ports []string
	if err == nil {
		for _, n := range r.nodes.List() {
			ports = append(ports, n.Cluster)
		}
	}
	var said [][]byte
	if heard != nil {
		said = heard.stop(ports)
	}
	if err != nil {
		return err
	}
	// Now, so that all of it is of the nodes' first epoch, and resumes from its beginning are of records that were.
	if err := fillArchive(ctx, r.kafka, archive); err != nil {
		return err
	}
	list := r.nodes.List()
	r.probe = newProbe(list)
	r.report.Overheard = len(said)
	r.target = Target{Live: live, Archive: archive, Chat: chat, Partitions: partitions, Keys: archiveKeys, Overheard: said}
	for _, n := range list {
		r.target.Clients, r.target.Cluster = append(r.target.Clients, n.Client), append(r.target.Cluster, n.Cluster)
	}
	if r.target.Token, err = token("mallory", []string{"/" + live + "/*", "/" + archive + "/*"}, []string{"/" + chat + "/*"}); err != nil {
		return err
	}
	r.o.Progress("%d honest clients are connecting", r.o.Clients)
	r.crowd, err = openCrowd(ctx, r.o.Clients, keys, r.target.Clients, live, func(user string) (string, error) {
		return token(user, []string{"/" + live + "/*"}, nil)
	})
	return err
}

// environment is what the nodes' limits are, where that is not their default.
func environment(memory int64) []string {
	return []string{
		"TIDEWIRE_KAFKA_TOPICS=" + live + "," + archive + "," + chat, "TIDEWIRE_KAFKA_PUBLISH_TOPICS=" + chat,
		"TIDEWIRE_CLUSTER_SECRET=" + clusterSecret,
		"TIDEWIRE_AUTH=jwt", "TIDEWIRE_AUTH_JWT_SECRET=" + tokenSecret, "TIDEWIRE_COMPRESSION=on",
		"TIDEWIRE_MAX_CONNECTIONS=", "TIDEWIRE_MAX_CONNECTIONS_PER_IP=", // the defaults
		// The defaults are more than Kafka and three nodes on two processors take: they would not be met.
		fmt.Sprintf("TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND=%d", userPublishes),
		fmt.Sprintf("TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND=%d", replayBytes),
		fmt.Sprintf("TIDEWIRE_MAX_PENDING_BYTES=%d", memory/8), // a tenth of the machine's memory by default, of which there is less for a node here
		fmt.Sprintf("GOMEMLIMIT=%d", memory*3/4),
	}
}

// token makes one that is good for an hour.
func token(user string, sub, pub []string) (string, error) {
	now := time.Now()
	return jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "tidewire": map[string]any{"sub": sub, "pub": pub},
	}).SignedString([]byte(tokenSecret))
}

// phases measures quiet, the attacks, and quiet again, and what became of the last records.
func (r *runner) phases(ctx context.Context, attacks []Attack) (err error) {
	ctx, end := whileRunning(ctx)
	defer end()
	defer func() {
		if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrStopped) {
			err = cause // whatever failed for it
		}
	}()
	f := startFeed(r.kafka, live, r.o.Rate)
	defer func() { _, _ = f.end(context.Background()) }()
	r.o.Progress("warming up")
	if err := sleep(ctx, r.o.Warmup); err != nil {
		return err
	}
	r.crowd.take(time.Now(), window)
	r.o.Progress("quiet, %v", r.o.Quiet)
	if err := r.quiet(ctx); err != nil {
		return err
	}
	if r.report.Before, err = r.probe.held(ctx); err != nil {
		return err
	}
	for i, a := range attacks {
		r.o.Progress("%d of %d, %s: %s; %s", i+1, len(attacks), a.Name, a.About, a.Figure)
		p, err := r.attack(ctx, a)
		if err != nil {
			return err
		}
		r.report.Phases = append(r.report.Phases, *p)
		r.o.Progress("  %s", p.line())
		if err := sleep(ctx, rest); err != nil {
			return err
		}
		_, faults, details := r.crowd.take(time.Now(), window) // what came meanwhile is of no phase, but no fault is forgotten
		r.report.Phases[len(r.report.Phases)-1].add(faults, details)
	}
	r.o.Progress("quiet, %v", r.o.Quiet)
	if err := r.quiet(ctx); err != nil {
		return err
	}
	sent, err := f.end(ctx)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, completeWait)
	defer cancel()
	behind := r.crowd.complete(wait, sent)
	_, faults, details := r.crowd.take(time.Now(), window)
	if behind > 0 {
		faults[Lost] += behind
		details = append(details, fmt.Sprintf("%d clients did not get the last records of their keys", behind))
	}
	r.report.Phases[len(r.report.Phases)-1].add(faults, details)
	return nil
}

// quiet measures a phase without an attack.
func (r *runner) quiet(ctx context.Context) error {
	from := time.Now()
	w, used := r.probe.watch(ctx), r.probe.cpu()
	err := sleep(ctx, r.o.Quiet)
	p := Phase{NodesCPU: cores(r.probe.cpu()-used, time.Since(from))}
	_, watchErr := w.end(&p)
	if err != nil {
		return err
	}
	p.Windows, p.Faults, p.Details = r.crowd.take(from, window)
	p.Spread = spread(p.Windows, window)
	if watchErr != nil {
		p.Broken = watchErr.Error()
	}
	r.report.Phases = append(r.report.Phases, p)
	r.o.Progress("  %s", p.line())
	return r.nodes.Died()
}

// attack runs one attack, and waits until the nodes are as they were. The error is of ctx, or of what keeps more from
// being measured.
func (r *runner) attack(ctx context.Context, a Attack) (*Phase, error) {
	p := &Phase{Attack: a.Name, Did: map[string]int64{}}
	t := r.target
	t.Attack, t.Processes, t.For = a.Name, a.processes, max(r.o.Attack, a.Least)
	before, err := r.probe.all(ctx)
	if err != nil {
		return nil, err
	}
	w, used := r.probe.watch(ctx), r.probe.cpu()
	from := time.Now()
	var children []*bench.Child
	for t.Process = range a.processes {
		c, err := r.start(t)
		if err != nil {
			p.Broken = err.Error()
			break
		}
		children = append(children, c)
	}
	err = sleep(ctx, t.For)
	p.Windows, p.Faults, p.Details = r.crowd.take(from, window)
	p.Spread, p.NodesCPU = spread(p.Windows, window), cores(r.probe.cpu()-used, time.Since(from))
	for _, c := range children {
		if err == nil && p.Broken == "" {
			p.Broken = join(c, p.Did)
		}
		c.Stop(time.Second)
	}
	p.AttackersCPU = cores(time.Duration(p.Did[didCPU])*time.Millisecond, time.Since(from))
	delete(p.Did, didCPU)
	peaks, watchErr := w.end(p)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	if died := r.nodes.Died(); died != nil {
		p.Broken = died.Error()
		r.report.Phases = append(r.report.Phases, *p)
		return nil, died
	}
	if watchErr != nil && p.Broken == "" {
		p.Broken = watchErr.Error()
	}
	if after, err := r.probe.all(ctx); err == nil {
		p.Traces = traces(before, after, peaks)
	}
	began := time.Now()
	p.After = r.returned(ctx)
	p.Returned = time.Since(began)
	return p, ctx.Err()
}

// start starts a process of attackers.
func (r *runner) start(t Target) (*bench.Child, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	args := append(r.o.Attacker[1:len(r.o.Attacker):len(r.o.Attacker)], string(b))
	return bench.StartChild(filepath.Join(r.o.Dir, "attackers.log"), []string{"PATH=" + os.Getenv("PATH")}, r.o.Attacker[0], args...)
}

// join waits for what an attacker did; it returns why that is not known.
func join(c *bench.Child, did map[string]int64) (broken string) {
	line, err := c.Line(attackerGrace)
	if err != nil {
		return fmt.Sprintf("attackers: %v", err)
	}
	var more map[string]int64
	if err := json.Unmarshal([]byte(line), &more); err != nil {
		return fmt.Sprintf("attackers: %v: %q", err, line)
	}
	for what, n := range more {
		did[what] += n
	}
	return ""
}

// returned waits until the nodes hold no more than before the first attack, and returns what they hold then.
func (r *runner) returned(ctx context.Context) []Held {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	var last []Held
	for until := time.Now().Add(returnWait); time.Now().Before(until); {
		if held, err := r.probe.held(ctx); err == nil {
			last = held
			back := true
			for i, h := range held {
				b := r.report.Before[i]
				back = back && h.Goroutines <= b.Goroutines+slack.Goroutines && h.Descriptors <= b.Descriptors+slack.Descriptors
			}
			if back {
				break
			}
		}
		select {
		case <-ctx.Done():
			return last
		case <-t.C:
		}
	}
	return last
}

// cores is how many processors were used on average.
func cores(used, took time.Duration) float64 { return max(0, used.Seconds()/took.Seconds()) }

func (p *Phase) add(faults map[Fault]int, details []string) {
	if p.Faults == nil {
		p.Faults = map[Fault]int{}
	}
	for f, n := range faults {
		p.Faults[f] += n
	}
	p.Details = append(p.Details, details...)
	maps.DeleteFunc(p.Faults, func(_ Fault, n int) bool { return n == 0 })
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (r *runner) close() {
	if r.crowd != nil {
		r.crowd.close()
	}
	if r.probe != nil {
		r.probe.http.CloseIdleConnections()
	}
	if r.nodes != nil {
		_ = r.nodes.Close() // always nil
	}
	if r.kafka != nil {
		r.kafka.Close()
	}
}
