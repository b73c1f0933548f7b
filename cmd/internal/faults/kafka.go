package faults

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Kafka is three real brokers, each a controller too, that live through a run's scenarios.
//
// A broker has a listener of its own for each host that may connect, so that each is told the address at
// which that host reaches it: with namespaces they only differ in their port, with proxies they must.
type Kafka struct {
	net     Network
	jars    []string
	java    string
	dir     string
	brokers []*broker
	classes []string // whom there are listeners for: brokers themselves, Driver, nodes
}

type broker struct {
	id   int
	host string
	dir  string
	log  string
	proc *process // nil while it is not running
}

const (
	kafkaBrokers   = 3
	kafkaClusterID = "dGlkZXdpcmUtZmF1bHRzMQ"
	controllerPort = 9093
	listenerPort   = 9100 // of the first class
	kafkaReady     = 2 * time.Minute
	kafkaStopGrace = 40 * time.Second
	toolTimeout    = time.Minute
)

// startKafka starts the brokers of a release line in dir. root is the source tree, whose get-kafka.sh
// finds the jars. nodes are the hosts that will connect.
func startKafka(ctx context.Context, net Network, root, version, dir string, nodes []string) (*Kafka, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("a real Kafka needs a JVM: %w", err)
	}
	var stderr bytes.Buffer
	get := exec.CommandContext(ctx, filepath.Join(root, "testdata", "kafka", "get-kafka.sh"), version)
	get.Stderr = &stderr
	out, err := get.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	k := &Kafka{net: net, java: java, dir: dir, classes: append([]string{"BROKERS", Driver}, nodes...)}
	k.jars, _ = filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "*.jar")) // errs only on a bad pattern
	for i := range kafkaBrokers {
		b := &broker{id: i + 1, host: fmt.Sprintf("k%d", i+1)}
		b.dir, b.log = filepath.Join(dir, b.host), filepath.Join(dir, b.host+".log")
		if err := net.Add(b.host); err != nil {
			return nil, err
		}
		k.brokers = append(k.brokers, b)
	}
	for _, b := range k.brokers {
		if err := k.format(ctx, b); err != nil {
			return nil, err
		}
	}
	for i := range k.brokers {
		if err := k.launch(i); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	if err := k.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Release names the version that runs, from its jar.
func (k *Kafka) Release() string {
	for _, j := range k.jars {
		if v, ok := strings.CutPrefix(filepath.Base(j), "kafka_2.13-"); ok {
			return strings.TrimSuffix(v, ".jar")
		}
	}
	return "unknown"
}

// Addrs returns where a host reaches the brokers.
func (k *Kafka) Addrs(from string) ([]string, error) {
	class := slices.Index(k.classes, from)
	if class < 0 {
		return nil, fmt.Errorf("the brokers have no listener for %s", from)
	}
	var out []string
	for _, b := range k.brokers {
		a, err := k.net.Dial(from, b.host, listenerPort+class)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// Hosts returns the brokers' names.
func (k *Kafka) Hosts() []string {
	var out []string
	for _, b := range k.brokers {
		out = append(out, b.host)
	}
	return out
}

func (k *Kafka) format(ctx context.Context, b *broker) error {
	properties, err := k.properties(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	config := filepath.Join(b.dir, "server.properties")
	if err := os.WriteFile(config, []byte(properties), 0o644); err != nil {
		return err
	}
	logs := filepath.Join(b.dir, "log")
	if b != k.brokers[0] {
		// What the tool writes is the same for all but for two ids, and a JVM's start is dear.
		checkpoint, err := formatted(filepath.Join(k.brokers[0].dir, "log"))
		if err != nil {
			return err
		}
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", kafkaClusterID, b.id, base64.RawURLEncoding.EncodeToString(id[:]))
		for name, content := range map[string][]byte{"meta.properties": []byte(meta), checkpoint.name: checkpoint.content} {
			to := filepath.Join(logs, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o644)); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	args := append(k.jvm("warn"), "kafka.tools.StorageTool", "format", "--cluster-id", kafkaClusterID, "--config", config)
	if out, err := exec.CommandContext(ctx, k.java, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("format storage: %w: %s", err, out)
	}
	return nil
}

// file is one of a folder, by its name in there.
type file struct {
	name    string
	content []byte
}

// formatted returns the file of a formatted folder that holds the release's feature levels. It is
// bootstrap.checkpoint up to Kafka 4.3, and a snapshot of the metadata partition from 4.4 on.
func formatted(logs string) (file, error) {
	for _, pattern := range []string{"*.checkpoint", "__cluster_metadata-0/*.checkpoint"} {
		found, _ := filepath.Glob(filepath.Join(logs, pattern)) // errs only on a bad pattern
		if len(found) != 1 {
			continue
		}
		content, err := os.ReadFile(found[0])
		if err != nil {
			return file{}, err
		}
		name, err := filepath.Rel(logs, found[0])
		return file{name, content}, err
	}
	return file{}, fmt.Errorf("no checkpoint in the formatted folder %s", logs)
}

func (k *Kafka) jvm(level string) []string {
	return []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx512m",
		"-Djava.net.preferIPv4Stack=true", "-Djava.awt.headless=true",
		"-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=" + level,
		"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
		"-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
		"-cp", strings.Join(k.jars, ":")}
}

// properties are those of a small production cluster: three copies, of which two must have a record before
// it is acknowledged. Only what makes a minute's wait of a failure that takes seconds to notice is shorter.
func (k *Kafka) properties(b *broker) (string, error) {
	var voters, listeners, advertised, protocols []string
	for _, v := range k.brokers {
		a, err := k.net.Dial(b.host, v.host, controllerPort)
		if err != nil {
			return "", err
		}
		voters = append(voters, fmt.Sprintf("%d@%s", v.id, a))
	}
	a, err := k.net.Listen(b.host, controllerPort)
	if err != nil {
		return "", err
	}
	listeners, protocols = append(listeners, "CONTROLLER://"+a), append(protocols, "CONTROLLER:PLAINTEXT")
	for i, class := range k.classes {
		name := strings.ToUpper(class)
		at, err := k.net.Listen(b.host, listenerPort+i)
		if err != nil {
			return "", err
		}
		seen, from := at, class
		if class == "BROKERS" { // brokers reach each other directly
			from = b.host
		}
		if seen, err = k.net.Dial(from, b.host, listenerPort+i); err != nil {
			return "", err
		}
		listeners = append(listeners, name+"://"+at)
		advertised = append(advertised, name+"://"+seen)
		protocols = append(protocols, name+":PLAINTEXT")
	}
	return fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=BROKERS
listeners=%s
advertised.listeners=%s
listener.security.protocol.map=%s
log.dirs=%s
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
replica.lag.time.max.ms=5000
replica.fetch.wait.max.ms=100
leader.imbalance.check.interval.seconds=10
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
log.cleaner.dedupe.buffer.size=8388608
num.network.threads=2
num.io.threads=4
background.threads=2
`, b.id, strings.Join(voters, ","), strings.Join(listeners, ","), strings.Join(advertised, ","), strings.Join(protocols, ","), filepath.Join(b.dir, "log")), nil
}

func (k *Kafka) launch(i int) error {
	b := k.brokers[i]
	cmd := k.net.Command(b.host, k.java, append(k.jvm("info"), "kafka.Kafka", filepath.Join(b.dir, "server.properties"))...)
	cmd.Dir = b.dir
	p, err := start(cmd, b.log)
	b.proc = p
	return err
}

// Stop ends broker i, 0 to 2, in order; Kill at once.
func (k *Kafka) Stop(i int) { k.end(i, func(p *process) { p.stop(kafkaStopGrace) }) }

// Kill kills broker i.
func (k *Kafka) Kill(i int) { k.end(i, (*process).kill) }

func (k *Kafka) end(i int, how func(*process)) {
	if p := k.brokers[i].proc; p != nil {
		how(p)
		k.brokers[i].proc = nil
	}
}

// Start starts broker i again. It does not wait until it is ready.
func (k *Kafka) Start(i int) error {
	if k.brokers[i].proc != nil {
		return nil
	}
	return k.launch(i)
}

// Freeze stops a broker's process where it is, Thaw lets it go on.
func (k *Kafka) Freeze(i int) { k.signal(i, syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (k *Kafka) Thaw(i int) { k.signal(i, syscall.SIGCONT) }

func (k *Kafka) signal(i int, s syscall.Signal) {
	if p := k.brokers[i].proc; p != nil {
		p.signal(s)
	}
}

// Repair starts the brokers that are not running and waits for all.
func (k *Kafka) Repair(ctx context.Context) error {
	for i, b := range k.brokers {
		if b.proc != nil && !b.proc.running() {
			b.proc = nil
		}
		k.Thaw(i)
		if err := k.Start(i); err != nil {
			return err
		}
	}
	return k.WaitReady(ctx)
}

// WaitReady waits until every running broker knows of all that run, and no partition lacks a copy on them.
func (k *Kafka) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaReady)
	defer cancel()
	addrs, err := k.Addrs(Driver)
	if err != nil {
		return err
	}
	running := 0
	for _, b := range k.brokers {
		if b.proc != nil {
			running++
		}
	}
	for i, b := range k.brokers {
		if b.proc == nil {
			continue
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(addrs[i]), kgo.DialTimeout(time.Second), kgo.RequestRetries(0))
		if err != nil {
			return err
		}
		err = poll(ctx, func() error {
			if !b.proc.running() {
				return fmt.Errorf("its process ended: see %s", b.log)
			}
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = nil // all
			attempt, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			resp, err := cl.SeedBrokers()[0].Request(attempt, req)
			if err != nil {
				return err
			}
			meta := resp.(*kmsg.MetadataResponse)
			if len(meta.Brokers) != running || meta.ControllerID < 0 {
				return fmt.Errorf("it knows of %d of %d brokers", len(meta.Brokers), running)
			}
			for _, t := range meta.Topics {
				for _, p := range t.Partitions {
					if p.Leader < 0 || len(p.ISR) < min(running, len(p.Replicas)) {
						return fmt.Errorf("%s-%d has leader %d and %d copies in sync", *t.Topic, p.Partition, p.Leader, len(p.ISR))
					}
				}
			}
			return nil
		})
		cl.Close()
		if err != nil {
			return fmt.Errorf("broker %s is not ready: %w", b.host, err)
		}
	}
	return nil
}

// Close kills the brokers.
func (k *Kafka) Close() error {
	for i := range k.brokers {
		k.Kill(i)
	}
	return nil
}

// poll calls f until it returns nil or ctx ends; then the error tells what f said last.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
