package kafkatest

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// shared are the clusters of [Shared], one a version, kept until [Main] ends.
var shared struct {
	sync.Mutex
	inMain bool
	dir    string
	by     map[string]*sharedCluster
}

type sharedCluster struct {
	k   *cluster
	err error
}

// Main runs the tests of a binary, then stops the clusters that [Shared] started,
// and returns the code to exit with:
//
//	func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }
func Main(m *testing.M) int {
	shared.Lock()
	shared.inMain = true
	shared.Unlock()
	defer stopShared()
	return m.Run()
}

func stopShared() {
	shared.Lock()
	defer shared.Unlock()
	for _, s := range shared.by {
		if s.k != nil {
			s.k.finish()
		}
	}
	shared.by = nil
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
		shared.dir = ""
	}
}

// Shared returns the one-broker cluster of a version that all tests of this
// binary share, starting it on first use. The binary's TestMain must use [Main].
//
// A test takes its topic and group names from [Topic] and must leave the broker
// running; one that stops it uses [Start].
func Shared(t testing.TB, version string) *Cluster {
	t.Helper()
	if external := externalBrokers(t); external != nil {
		return &Cluster{t: t, k: &cluster{external: external}}
	}
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		t.Fatal("kafkatest.Shared needs: func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }")
	}
	s := shared.by[version]
	if s == nil {
		s = startShared(t, version)
	}
	if s.err != nil {
		fail(t, s.err)
	}
	return s.k.view(t)
}

// startShared starts the cluster of a version and remembers it, or why it could
// not be started: the next test need not wait to learn the same. The caller
// holds shared's lock.
func startShared(t testing.TB, version string) *sharedCluster {
	t.Helper()
	s := &sharedCluster{}
	if shared.by == nil {
		shared.by = make(map[string]*sharedCluster)
	}
	shared.by[version] = s
	if shared.dir == "" {
		if shared.dir, s.err = os.MkdirTemp("", "tidewire-kafka-"); s.err != nil {
			return s
		}
	}
	dir, err := os.MkdirTemp(shared.dir, "v")
	if err != nil {
		s.err = err
		return s
	}
	begin := time.Now()
	s.k, s.err = start(Options{Version: version}, dir, true)
	if s.err == nil {
		t.Logf("shared Kafka %s ready after %v", version, time.Since(begin).Round(time.Millisecond))
	}
	return s
}

var topicCount atomic.Int64

// Topic returns a name for a topic or group that no other call and, with high
// probability, no other test run has: the test's own name, fit for Kafka, with a
// suffix.
func Topic(t testing.TB) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
			return r
		default:
			return '-'
		}
	}, t.Name())
	if len(clean) > 100 {
		clean = clean[:100]
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d %d %d", t.Name(), os.Getpid(), time.Now().UnixNano(), topicCount.Load())
	return fmt.Sprintf("%s-%d-%08x", clean, topicCount.Add(1), h.Sum32())
}
