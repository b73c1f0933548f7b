package deploytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
)

// This file does what `docker compose up` would, without Docker: the same variables, the same commands,
// with Kafka's jars instead of its image and the loopback interface instead of a network of containers.

// tools are the scripts of Kafka's image that the file calls, and the classes behind them.
var tools = map[string]string{
	"kafka-topics.sh":              "org.apache.kafka.tools.TopicCommand",
	"kafka-broker-api-versions.sh": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}

const composeTimeout = 90 * time.Second

// composeKafka is the compose file's world on this machine.
type composeKafka struct {
	t     *testing.T
	dir   string
	java  []string
	ports *strings.Replacer // from the containers' addresses to ours
}

// The broker starts with the file's variables and passes its health check, the command of the topics'
// service creates them (and may be run again), and three nodes with their variables become ready and
// healthy.
func TestComposeAgainstKafka(t *testing.T) {
	k := newComposeKafka(t)
	project := load(t)
	kafka := project.Services["kafka"]
	k.startBroker(kafka)
	healthy := func() error { return k.run(kafka.HealthCheck.Test[1:]...) }
	deadline := time.Now().Add(composeTimeout)
	for healthy() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("the health check fails: %v", healthy())
		}
	}
	for range 2 { // a second `docker compose up` runs it again
		if err := k.run(project.Services["topics"].Command...); err != nil {
			t.Fatalf("the topics' command: %v", err)
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ports.Replace("127.0.0.1:9092"))) // as programs on this machine would
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), composeTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range []string{"prices", "chat"} {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &name
		req.Topics = append(req.Topics, topic)
	}
	res, err := req.RequestWith(ctx, cl)
	if err != nil || len(res.Topics) != 2 || len(res.Topics[0].Partitions)+len(res.Topics[1].Partitions) != 6 {
		t.Fatalf("topics %+v, %v", res, err)
	}
	k.startNodes(project)
}

func newComposeKafka(t *testing.T) *composeKafka {
	if os.Getenv("TIDEWIRE_TEST_KAFKA") == "off" || os.Getenv("TIDEWIRE_TEST_BROKERS") != "" {
		t.Skip("REAL KAFKA NOT RUN: this test needs a Kafka of its own")
	}
	script, err := filepath.Abs(root + "testdata/kafka/get-kafka.sh")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(script, "4").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		if os.Getenv("TIDEWIRE_TEST_KAFKA") == "required" {
			t.Fatalf("real Kafka: %v", err)
		}
		t.Skipf("REAL KAFKA NOT RUN: %v", err)
	}
	k := &composeKafka{t: t, dir: t.TempDir()}
	k.java = []string{"-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", strings.TrimSpace(string(out)) + "/*"}
	for name, class := range tools {
		var line strings.Builder
		line.WriteString("#!/bin/sh\nexec java")
		for _, arg := range append(slices.Clone(k.java), class) {
			fmt.Fprintf(&line, " '%s'", arg)
		}
		line.WriteString(" \"$@\"\n")
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(line.String()), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Every address that the file names, longest first.
	var pairs []string
	port := func(addresses ...string) {
		ours := freeAddress(t)
		for _, a := range addresses {
			pairs = append(pairs, a, ours)
		}
	}
	port("kafka:19092", "INTERNAL://:19092")
	port("127.0.0.1:9092", "HOST://:9092")
	port("kafka:9093", "CONTROLLER://:9093")
	for i, from := range pairs {
		if name, _, ok := strings.Cut(from, "://"); ok && i%2 == 0 {
			pairs[i+1] = name + "://" + pairs[i+1]
		}
	}
	for _, n := range []string{"n1", "n2", "n3"} {
		port(n + ":7070")
	}
	k.ports = strings.NewReplacer(append(pairs, "/opt/kafka/bin", k.dir)...)
	return k
}

// freeAddress is on the loopback interface.
func freeAddress(t *testing.T) string {
	ports, err := freeport.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0])
}

// run runs a command of the file.
func (k *composeKafka) run(command ...string) error {
	args := make([]string, len(command))
	for i, a := range command {
		args[i] = k.ports.Replace(a)
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), composeTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// startBroker makes of the variables what Kafka's image does: KAFKA_NODE_ID is node.id.
func (k *composeKafka) startBroker(s types.ServiceConfig) {
	t := k.t
	var properties strings.Builder
	for name, value := range s.Environment {
		key, ok := strings.CutPrefix(name, "KAFKA_")
		if !ok {
			t.Errorf("kafka: %s is not a property of Kafka", name)
		}
		v := k.ports.Replace(*value)
		if name == "KAFKA_LOG_DIRS" {
			v = filepath.Join(k.dir, "log")
		}
		fmt.Fprintf(&properties, "%s=%s\n", strings.ToLower(strings.ReplaceAll(key, "_", ".")), v)
	}
	file := filepath.Join(k.dir, "server.properties")
	if err := os.WriteFile(file, []byte(properties.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := k.run(append(append([]string{"java"}, k.java...), "kafka.tools.StorageTool", "format", "--cluster-id", "dGlkZXdpcmUtY29tcG9zZQ", "--config", file)...); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	broker := exec.Command("java", append(slices.Clone(k.java), "kafka.Kafka", file)...)
	broker.Stdout, broker.Stderr = &said, &said
	broker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = broker.Process.Kill() // fails only if it has ended
		_ = broker.Wait()
		if t.Failed() {
			t.Logf("the broker said:\n%s", said.String())
		}
	})
}

// startNodes runs the three nodes in this process until they are ready, and asks what their health check
// would.
func (k *composeKafka) startNodes(project *types.Project) {
	t := k.t
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "TIDEWIRE_") {
			t.Setenv(name, "") // set back at the end
			_ = os.Unsetenv(name)
		}
	}
	var nodes []*node.Node
	for _, name := range []string{"n1", "n2", "n3"} {
		for variable, value := range project.Services[name].Environment {
			t.Setenv(variable, k.ports.Replace(*value))
		}
		// What in a container is its own.
		t.Setenv("TIDEWIRE_LISTEN", "127.0.0.1:0")
		t.Setenv("TIDEWIRE_ADMIN_LISTEN", "127.0.0.1:0")
		t.Setenv("TIDEWIRE_CLUSTER_LISTEN", os.Getenv("TIDEWIRE_CLUSTER_ADVERTISE"))
		t.Setenv("TIDEWIRE_DATA_DIR", filepath.Join(k.dir, name))
		t.Setenv("TIDEWIRE_CACHE_BYTES", "64MiB")
		t.Setenv("TIDEWIRE_LOG_LEVEL", "error")
		cfg, err := node.FromEnv()
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		select {
		case <-n.Ready():
		case <-time.After(composeTimeout):
			t.Fatalf("n%d is not ready: %v", i+1, n.Status().NotReady)
		}
		res, err := http.Get("http://" + n.AdminAddr() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("n%d: /healthz %s", i+1, res.Status)
		}
	}
}
