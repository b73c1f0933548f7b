package kafkatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// startTimeout bounds the wait for a cluster to answer with all its brokers.
	// A start takes two to four seconds; on a machine on which others want all processors it took 86.
	startTimeout = 5 * time.Minute
	// stopGrace is how long a broker may take to shut down in order.
	stopGrace = 30 * time.Second
	// adminTimeout bounds one administrative step, such as creating a topic.
	adminTimeout = 2 * time.Minute
	// pollInterval is how often a condition is looked at again.
	pollInterval = 20 * time.Millisecond
	// clusterID is that of every cluster; they never meet.
	clusterID = "dGlkZXdpcmUtdGVzdC0wMQ"
)

// Options say which Kafka to start. The zero value is one broker of the newest
// 4.x without TLS.
type Options struct {
	Version string            // "4", "3.9" or a release such as "3.9.2"; "" means "4"
	Brokers int               // number of brokers, each also a controller; 0 means 1
	Config  map[string]string // properties of every broker, over those set here
	SASL    bool              // adds the listeners of SASLBrokers and TLSBrokers
}

// Cluster is a real Kafka and the test that uses it.
//
// Brokers are counted from 0; broker i has the Kafka node id i+1.
//
// Methods that cannot do what they promise end the test with t.Fatal, so they
// belong on the test's goroutine.
type Cluster struct {
	// Set with Options.SASL, else empty.
	CAFile         string // PEM of the authority that signed the brokers' certificates
	ClientCertFile string // PEM certificate which the listener of TLSBrokers accepts
	ClientKeyFile  string // PEM of its private key
	Username       string // for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 alike
	Password       string

	t testing.TB
	k *cluster
}

// cluster is what the views of one Kafka share.
type cluster struct {
	// Set once.
	external []string // TIDEWIRE_TEST_BROKERS; then nothing below is set
	source   *source
	dir      string
	options  Options
	nodes    []*node
	certs    certFiles
	training bool // may write a class archive, see archive.go
	jvm      []string

	mu sync.Mutex // guards the node.proc
}

// node is one broker; its ports and folder outlive its process.
type node struct {
	id                            int // Kafka node id
	plain, controller, sasl, mtls int // ports; sasl and mtls are 0 without Options.SASL
	dir                           string
	log                           string // file with what it printed
	starts                        int
	proc                          *process // nil while stopped
}

// Start starts a Kafka for this test alone and waits until it answers with all
// its brokers. It ends with the test. Where there is no Kafka to be had, the
// test is skipped or fails, as the package comment says.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	external := externalBrokers(t)
	if external != nil {
		if o.SASL || o.Brokers > 1 || len(o.Config) > 0 {
			t.Skipf("REAL KAFKA NOT RUN: %s is set, and this test needs a Kafka of its own (%+v)", envBrokers, o)
		}
		return &Cluster{t: t, k: &cluster{external: external}}
	}
	begin := time.Now()
	k, err := start(o, t.TempDir(), false)
	if err != nil {
		fail(t, err)
	}
	t.Cleanup(k.kill)
	t.Logf("Kafka %s: %d broker(s) ready after %v", k.options.Version, k.options.Brokers, time.Since(begin).Round(time.Millisecond))
	return k.view(t)
}

// externalBrokers returns those of TIDEWIRE_TEST_BROKERS, or nil. It skips the
// test if it must not use a real Kafka at all.
func externalBrokers(t testing.TB) []string {
	t.Helper()
	switch mode := os.Getenv(envMode); mode {
	case "", "required":
	case "off":
		t.Skipf("REAL KAFKA NOT RUN: %s=off", envMode)
	default:
		t.Fatalf("%s=%q: must be required, off or unset", envMode, mode)
	}
	return splitList(os.Getenv(envBrokers))
}

// fail ends a test whose Kafka could not be started: by skipping only when there
// is none on this machine and none is required. A Kafka that is there and does
// not start is a failure.
func fail(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errNoKafka) {
		err = fmt.Errorf("%w\nInstall a JVM (17 or newer) and Maven, start Docker, or list running brokers in %s", err, envBrokers)
		if os.Getenv(envMode) != "required" {
			t.Skipf("REAL KAFKA NOT RUN: %v", err)
		}
	}
	t.Fatalf("real Kafka: %v", err)
}

// view returns the cluster as seen by one test.
func (k *cluster) view(t testing.TB) *Cluster {
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range k.nodes {
				t.Logf("broker %d printed (end of %s):\n%s", n.id-1, n.log, logTail(n.log))
			}
		}
	})
	c := &Cluster{t: t, k: k}
	if k.options.SASL {
		c.CAFile, c.ClientCertFile, c.ClientKeyFile = k.certs.ca, k.certs.clientCert, k.certs.clientKey
		c.Username, c.Password = saslUser, saslPassword
	}
	return c
}

// start makes a cluster in dir and waits for it. Ports are free only until
// somebody takes them, so it tries again when that is what went wrong. training
// lets it write a class archive.
func start(o Options, dir string, training bool) (*cluster, error) {
	return startWith(o, dir, training, nil)
}

// startWith does so with more flags for the JVMs.
func startWith(o Options, dir string, training bool, jvm []string) (*cluster, error) {
	if o.Version == "" {
		o.Version = "4"
	}
	o.Brokers = max(o.Brokers, 1)
	src, err := findSource(o.Version)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		k := &cluster{source: src, options: o, training: training, jvm: jvm, dir: filepath.Join(dir, "try"+strconv.Itoa(try))}
		err := k.start()
		if err == nil {
			return k, nil
		}
		k.kill()
		taken := false
		for _, n := range k.nodes {
			printed, _ := os.ReadFile(n.log)
			taken = taken || bytes.Contains(printed, []byte("Address already in use"))
			err = fmt.Errorf("%w\nbroker %d printed:\n%s", err, n.id-1, logTail(n.log))
		}
		if !taken || try == 3 {
			return nil, err
		}
	}
}

func (k *cluster) start() error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	perNode := 2
	if k.options.SASL {
		perNode = 4
		var err error
		if k.certs, err = writeCerts(k.dir); err != nil {
			return err
		}
	}
	ports, err := freePorts(perNode * k.options.Brokers)
	if err != nil {
		return err
	}
	for i := range k.options.Brokers {
		p := ports[i*perNode:]
		n := &node{id: i + 1, plain: p[0], controller: p[1]}
		if k.options.SASL {
			n.sasl, n.mtls = p[2], p[3]
		}
		n.dir = filepath.Join(k.dir, "broker"+strconv.Itoa(i))
		n.log = filepath.Join(k.dir, "broker"+strconv.Itoa(i)+".log")
		k.nodes = append(k.nodes, n)
	}
	for _, n := range k.nodes {
		if err := k.format(n); err != nil {
			return err
		}
	}
	for _, n := range k.nodes {
		if err := k.launch(n); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := k.waitReady(ctx); err != nil {
		return err
	}
	if k.options.SASL {
		return k.createSCRAM(ctx)
	}
	return nil
}

// format writes what StorageTool would: the node's identity and the feature
// levels of the release.
func (k *cluster) format(n *node) error {
	properties := k.properties(n)
	checkpoint, err := k.source.bootstrapCheckpoint(properties)
	if err != nil {
		return err
	}
	logs := filepath.Join(n.dir, "log")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n",
		clusterID, n.id, base64.RawURLEncoding.EncodeToString(id[:]))
	for file, content := range map[string][]byte{
		filepath.Join(n.dir, "server.properties"): []byte(properties),
		filepath.Join(logs, "meta.properties"):    []byte(meta),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return checkpoint.write(logs)
}

// launch starts the node's process. It does not wait until it answers.
func (k *cluster) launch(n *node) error {
	n.starts++
	container := ""
	if k.source.image != "" {
		container = fmt.Sprintf("tidewire-test-%d-%d-%d", os.Getpid(), n.plain, n.starts)
	}
	flags := append(append(k.archiveFlags(), logLevel("info")), k.jvm...)
	cmd := k.source.command(context.Background(), k.dir, container, flags, "kafka.Kafka",
		filepath.Join(n.dir, "server.properties"))
	cmd.Dir = n.dir
	p, err := startProcess(cmd, container, n.log)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n.proc = p
	return nil
}

// process returns the node's process, or nil while it is stopped.
func (k *cluster) process(n *node) *process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return n.proc
}

// kill ends all processes. Nothing of what they hold is wanted, so they are not
// given the time to shut down.
func (k *cluster) kill() {
	var wg sync.WaitGroup
	for _, n := range k.nodes {
		if p := k.process(n); p != nil {
			wg.Go(p.kill)
		}
	}
	wg.Wait()
}

// waitReady waits until each running broker tells of all of them.
func (k *cluster) waitReady(ctx context.Context) error {
	running := make(map[int32]bool)
	for _, n := range k.nodes {
		if k.process(n) != nil {
			running[int32(n.id)] = true
		}
	}
	for _, n := range k.nodes {
		p := k.process(n)
		if p == nil {
			continue
		}
		if err := waitBroker(ctx, p, loopback(n.plain), running); err != nil {
			return fmt.Errorf("broker %d is not ready: %w", n.id-1, err)
		}
	}
	return nil
}

// waitBroker waits until the broker at addr names all of want in its metadata.
func waitBroker(ctx context.Context, p *process, addr string, want map[int32]bool) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DialTimeout(time.Second), kgo.RequestRetries(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		resp, err := cl.SeedBrokers()[0].Request(attempt, req)
		cancel()
		if err == nil {
			seen := 0
			meta := resp.(*kmsg.MetadataResponse)
			for _, b := range meta.Brokers {
				if want[b.NodeID] {
					seen++
				}
			}
			if seen == len(want) && meta.ControllerID >= 0 {
				return nil
			}
			err = fmt.Errorf("it knows of %d of %d brokers", seen, len(want))
		}
		select {
		case <-p.exited:
			return fmt.Errorf("its process ended: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Brokers returns the host:port of every broker's listener without security.
func (c *Cluster) Brokers() []string {
	if c.k.external != nil {
		return c.k.external
	}
	return c.k.addresses(func(n *node) int { return n.plain })
}

// SASLBrokers returns the host:port of every broker's SASL_SSL listener, which
// takes Username and Password by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, and an
// UnsignedToken by OAUTHBEARER.
func (c *Cluster) SASLBrokers() []string {
	return c.k.addresses(func(n *node) int { return n.sasl })
}

// TLSBrokers returns the host:port of every broker's SSL listener, which demands
// a client certificate.
func (c *Cluster) TLSBrokers() []string {
	return c.k.addresses(func(n *node) int { return n.mtls })
}

func (k *cluster) addresses(port func(*node) int) []string {
	var out []string
	for _, n := range k.nodes {
		if p := port(n); p != 0 {
			out = append(out, loopback(p))
		}
	}
	return out
}

// StopBroker shuts broker i down in order (SIGTERM) and waits until it is gone.
func (c *Cluster) StopBroker(i int) {
	c.t.Helper()
	p := c.takeProcess(i)
	if !p.stop(stopGrace) {
		c.t.Logf("broker %d did not shut down within %v and was killed", i, stopGrace)
	}
}

// KillBroker kills broker i (SIGKILL) and waits until it is gone.
func (c *Cluster) KillBroker(i int) {
	c.t.Helper()
	c.takeProcess(i).kill()
}

// takeProcess marks broker i as stopped and returns its process.
func (c *Cluster) takeProcess(i int) *process {
	c.t.Helper()
	c.ownOnly("stop a broker")
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	n := c.k.nodes[i]
	p := n.proc
	if p == nil {
		c.t.Fatalf("broker %d is stopped already", i)
	}
	n.proc = nil
	return p
}

// StartBroker starts broker i again after StopBroker or KillBroker, with the same
// ports and data, and waits until it and the other running brokers know each
// other.
func (c *Cluster) StartBroker(i int) {
	c.t.Helper()
	c.ownOnly("start a broker")
	n := c.k.nodes[i]
	if c.k.process(n) != nil {
		c.t.Fatalf("broker %d is running", i)
	}
	if err := c.k.launch(n); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.k.waitReady(ctx); err != nil {
		c.t.Fatal(err)
	}
}

// ownOnly skips the test, saying so, where the cluster is not ours.
func (c *Cluster) ownOnly(what string) {
	c.t.Helper()
	if c.k.external != nil {
		c.t.Skipf("REAL KAFKA NOT RUN: cannot %s of the cluster in %s", what, envBrokers)
	}
}

// logTail returns the warnings in a broker's log and its last lines.
func logTail(file string) string {
	const lastLines, warnings = 30, 30
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	end := max(0, len(lines)-lastLines)
	var loud []string
	for _, l := range lines[:end] {
		if strings.Contains(l, " WARN ") || strings.Contains(l, " ERROR ") || strings.Contains(l, " FATAL ") {
			loud = append(loud, l)
		}
	}
	if len(loud) > warnings {
		loud = loud[len(loud)-warnings:]
	}
	return strings.Join(append(loud, lines[end:]...), "\n")
}
