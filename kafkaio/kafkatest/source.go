package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Environment variables that choose the Kafka of the tests; see the package
// comment.
const (
	envBrokers  = "TIDEWIRE_TEST_BROKERS"
	envMode     = "TIDEWIRE_TEST_KAFKA"
	envVersions = "TIDEWIRE_TEST_KAFKA_VERSIONS"
)

// External is the only element of [Versions] when TIDEWIRE_TEST_BROKERS names a
// running cluster: its version is not ours to choose.
const External = "external"

// fetchTimeout bounds the fetching of the jars, which happens once a machine.
const fetchTimeout = 5 * time.Minute

// Versions returns the Kafka versions a test should run against, each a value
// for [Options.Version]: "3.9" and "4", or those of the two that
// TIDEWIRE_TEST_KAFKA_VERSIONS lists, or [External].
func Versions() []string {
	if os.Getenv(envBrokers) != "" {
		return []string{External}
	}
	if v := splitList(os.Getenv(envVersions)); len(v) > 0 {
		return v
	}
	return []string{"3.9", "4"}
}

// EachVersion runs f as a parallel-free subtest for every one of [Versions].
func EachVersion(t *testing.T, f func(t *testing.T, version string)) {
	t.Helper()
	for _, v := range Versions() {
		t.Run("kafka-"+v, func(t *testing.T) { f(t, v) })
	}
}

// splitList splits a comma-separated list, dropping blanks.
func splitList(s string) []string {
	var out []string
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// source is where a version of Kafka comes from.
//
// Exactly one of jars and image is set. It is made once a version and test
// binary, and shared.
type source struct {
	version string // as in Options.Version
	jars    string // folder of jars, for the local JVM
	java    string // the JVM's launcher
	archive string // class data sharing archive of java and jars, see archive.go
	image   string // Docker image

	mu         sync.Mutex
	bootstrap  *checkpoint // made on first use
	bootstrapE error
}

var sources struct {
	sync.Mutex
	by map[string]*source
}

// errNoKafka says that no real Kafka can be run here; its text says why.
var errNoKafka = errors.New("no real Kafka")

// findSource returns the source of a version, or an error that wraps
// errNoKafka when there is none.
func findSource(version string) (*source, error) {
	sources.Lock()
	defer sources.Unlock()
	if s := sources.by[version]; s != nil {
		return s, nil
	}
	s, err := lookForSource(version)
	if err != nil {
		return nil, err
	}
	if sources.by == nil {
		sources.by = make(map[string]*source)
	}
	sources.by[version] = s
	return s, nil
}

func lookForSource(version string) (*source, error) {
	scripts, err := scriptDir()
	if err != nil {
		return nil, err
	}
	java, jvmErr := exec.LookPath("java")
	if jvmErr == nil {
		jars, err := fetchJars(scripts, version)
		if err == nil {
			return &source{version: version, jars: jars, java: java, archive: archiveFile(java, jars)}, nil
		}
		jvmErr = err
	}
	image, dockerErr := dockerImage(scripts, version)
	if dockerErr == nil {
		return &source{version: version, image: image}, nil
	}
	return nil, fmt.Errorf("%w: version %s from a JVM and Maven: %w; from Docker: %w",
		errNoKafka, version, jvmErr, dockerErr)
}

// scriptDir finds testdata/kafka by walking up from the working directory, which
// for a test is its package's folder, to the module's root.
func scriptDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find testdata/kafka: %w", err)
	}
	for {
		p := filepath.Join(dir, "testdata", "kafka")
		if _, err := os.Stat(filepath.Join(p, "get-kafka.sh")); err == nil {
			return p, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find testdata/kafka: not in a folder of the Tidewire module")
		}
		dir = up
	}
}

// fetchJars runs get-kafka.sh.
func fetchJars(scripts, version string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(scripts, "get-kafka.sh"), version)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// dockerImage returns the image of a version if a Docker daemon answers and has
// or can get it.
func dockerImage(scripts, version string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		return "", fmt.Errorf("no Docker daemon answers: %w: %s", err, firstLine(out))
	}
	pinned, err := os.ReadFile(filepath.Join(scripts, "versions"))
	if err != nil {
		return "", err
	}
	releases := []string{version}
	for line := range strings.Lines(string(pinned)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == version {
			releases = f[1:]
		}
	}
	var last error
	for _, r := range releases {
		image := "apache/kafka:" + r
		if exec.CommandContext(ctx, "docker", "image", "inspect", image).Run() == nil {
			return image, nil
		}
		out, err := exec.CommandContext(ctx, "docker", "pull", "--quiet", image).CombinedOutput()
		if err == nil {
			return image, nil
		}
		last = fmt.Errorf("pull %s: %w: %s", image, err, firstLine(out))
	}
	return "", last
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}

// jvmFlags make a short-lived JVM start soon and stay small.
var jvmFlags = []string{
	"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx384m",
	"-Djava.net.preferIPv4Stack=true", "-Djava.awt.headless=true",
	"-Dorg.slf4j.simpleLogger.showDateTime=true",
	"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
	// Hundreds of lines of settings at each start would hide the rest.
	"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
	"-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
}

// logLevel is the JVM flag for the least severe messages to print to stderr.
func logLevel(level string) string { return "-Dorg.slf4j.simpleLogger.defaultLogLevel=" + level }

// command returns the command that runs a Java class of this Kafka. dir is the
// folder whose files the class reads and writes. name, which may be empty, is a
// name for the container when there is one. flags are for the JVM.
func (s *source) command(ctx context.Context, dir, name string, flags []string, class string, args ...string) *exec.Cmd {
	java := append(slices.Clone(jvmFlags), flags...)
	if s.image == "" {
		// Named one by one, as an archive holds for one order of the jars.
		jars, _ := filepath.Glob(filepath.Join(s.jars, "*.jar")) // errs only on a bad pattern
		java = append(java, "-cp", strings.Join(jars, string(filepath.ListSeparator)), class)
		return exec.CommandContext(ctx, s.java, append(java, args...)...)
	}
	run := []string{
		"run", "--rm", "--network=host",
		fmt.Sprintf("--user=%d:%d", os.Getuid(), os.Getgid()),
		"--volume=" + dir + ":" + dir, "--workdir=" + dir,
	}
	if name != "" {
		run = append(run, "--name="+name)
	}
	run = append(run, "--entrypoint=java", s.image)
	java = append(java, "-cp", "/opt/kafka/libs/*", class)
	return exec.CommandContext(ctx, "docker", append(append(run, java...), args...)...)
}

// checkpoint is the file in a freshly formatted metadata folder that holds the feature levels a release
// starts with: bootstrap.checkpoint up to Kafka 4.3, from 4.4 on a snapshot of the metadata partition.
type checkpoint struct {
	name    string // relative to the folder
	content []byte
}

// findCheckpoint looks for it in a folder.
func findCheckpoint(dir string) (*checkpoint, error) {
	for _, pattern := range []string{"*.checkpoint", "__cluster_metadata-0/*.checkpoint"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // errs only on a bad pattern
		if len(found) != 1 {
			continue
		}
		content, err := os.ReadFile(found[0])
		if err != nil {
			return nil, err
		}
		name, err := filepath.Rel(dir, found[0])
		return &checkpoint{name, content}, err
	}
	return nil, fmt.Errorf("there is no checkpoint of the metadata in the formatted folder %s: has this release of Kafka another layout?", dir)
}

// write puts it into another node's folder.
func (c *checkpoint) write(dir string) error {
	file := filepath.Join(dir, c.name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, c.content, 0o600)
}

// bootstrapCheckpoint returns what StorageTool puts into a freshly formatted
// metadata folder. It is the same for every node of every cluster, and a JVM's
// start dear, so one run a version serves all, kept beside the jars.
func (s *source) bootstrapCheckpoint(properties string) (*checkpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bootstrap != nil || s.bootstrapE != nil {
		return s.bootstrap, s.bootstrapE
	}
	kept := filepath.Join(s.jars, "formatted")
	if s.jars != "" {
		if c, err := findCheckpoint(kept); err == nil && len(c.content) > 0 {
			s.bootstrap = c
			return c, nil
		}
	}
	s.bootstrap, s.bootstrapE = s.format(properties)
	if s.jars != "" && s.bootstrapE == nil {
		// Renamed into place, as other test binaries may do the same now. If that
		// fails, they run the tool for themselves.
		part := fmt.Sprintf("%s.%d", kept, os.Getpid())
		if s.bootstrap.write(part) != nil || os.Rename(part, kept) != nil {
			_ = os.RemoveAll(part)
		}
	}
	return s.bootstrap, s.bootstrapE
}

func (s *source) format(properties string) (*checkpoint, error) {
	dir, err := os.MkdirTemp("", "tidewire-kafka-format-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	logs := filepath.Join(dir, "log")
	file := filepath.Join(dir, "server.properties")
	// The last of two equal keys holds.
	if err := os.WriteFile(file, []byte(properties+"\nlog.dirs="+logs+"\n"), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
	defer cancel()
	out, err := s.command(ctx, dir, "", []string{logLevel("warn")}, "kafka.tools.StorageTool",
		"format", "--cluster-id", clusterID, "--config", file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("format storage: %w: %s", err, out)
	}
	return findCheckpoint(logs)
}
