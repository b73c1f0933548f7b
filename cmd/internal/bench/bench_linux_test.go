package bench

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// These tests run whole benches, tiny ones, and look at what was counted. What was timed is not looked at.

// tiny are options for a bench of a blink.
func tiny(t *testing.T, o Options) Options {
	o.Runs, o.Duration, o.Warmup, o.Scale = 1, 400*time.Millisecond, 100*time.Millisecond, 0.02
	o.Progress = func(format string, args ...any) { t.Logf(format, args...) }
	return o
}

// runEnough runs a bench. A machine that stands still may leave nothing to count in so short a window; then the whole is run
// again with a longer one.
func runEnough(t *testing.T, o Options, enough func(Sample) bool) (*Report, error) {
	t.Helper()
	for {
		r, err := Run(t.Context(), o)
		short := r != nil && (slices.ContainsFunc(r.Failed, func(why string) bool { return strings.HasSuffix(why, errNothing.Error()) }) ||
			slices.ContainsFunc(r.Samples, func(s Sample) bool { return !enough(s) }))
		if !short || o.Duration > 5*time.Second {
			return r, err
		}
		o.Duration *= 4
		t.Logf("once more, with windows of %v: %v", o.Duration, err)
	}
}

func whatever(Sample) bool { return true }

// check looks at a report: all was measured, and nothing was missed or came twice.
func check(t *testing.T, r *Report, err error, want []string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	// A blink is short, and what was timed is not looked at.
	problems := slices.DeleteFunc(slices.Clone(r.Problems), func(p string) bool {
		return strings.HasPrefix(p, "ingest: ") || strings.Contains(p, "did not keep up")
	})
	if len(problems) > 0 || len(r.Failed) > 0 || r.Cut {
		t.Errorf("problems %q, failed %q, cut %v", r.Problems, r.Failed, r.Cut)
	}
	var got []string
	for _, s := range r.Samples {
		got = append(got, s.Scenario+" "+s.Server)
		if s.Values["missing"] != 0 || s.Values["repeated"] != 0 || s.Values["not_resumed"] != 0 {
			t.Errorf("%s on %s: %s", s.Scenario, s.Server, oneLine(s.Values))
		}
		if _, counted := s.Values["rate"]; counted && s.Values["rate"] <= 0 {
			t.Errorf("%s on %s delivered nothing: %s", s.Scenario, s.Server, oneLine(s.Values))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("measured %q, want %q", got, want)
	}
}

// A bench of a cluster that runs: one node in this process.
func TestBenchOfARunningCluster(t *testing.T) {
	brokers := kafkatest.Fake(t, kfake.SeedTopics(6, "bench")).Brokers()
	cfg := node.Defaults()
	cfg.NodeID, cfg.Listen, cfg.AdminListen, cfg.ClusterListen = "n1", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir, cfg.KafkaBrokers, cfg.KafkaGroupID, cfg.CacheBytes, cfg.Log = t.TempDir(), brokers, "bench", 64<<20, zerolog.Nop()
	var err error
	if cfg.Topics, err = kafkaio.ParseSelectors("bench"); err != nil {
		t.Fatal(err)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-n.Ready():
	case err := <-ended:
		ended <- err
		t.Fatal("the node ended")
	case <-time.After(time.Minute):
		t.Fatal("the node is not ready")
	}
	o := tiny(t, Options{Nodes: []string{n.Addr()}, Admin: []string{n.AdminAddr()}, Brokers: brokers, Topic: "bench", Create: true})
	cpuKnown := func(s Sample) bool { return !strings.HasPrefix(s.Scenario, "fanout") || s.Values["cpu_us"] > 0 }
	r, err := runEnough(t, o, cpuKnown)
	var want []string
	for _, s := range Scenarios() {
		if s.LocalOnly {
			continue
		}
		want = append(want, s.Name+" tidewire")
		if s.kind == kindLatency {
			want = append(want, s.Name+" consumer")
		}
	}
	check(t, r, err, want)
	for _, s := range r.Samples {
		if !cpuKnown(s) {
			t.Errorf("%s: no processor time: %s", s.Scenario, oneLine(s.Values))
		}
	}

	// A topic that nobody exposes says so, and no scenario is taken for measured.
	o.Topic, o.Create, o.Scenarios = "other", false, "fanout-50"
	if r, err := Run(t.Context(), o); err == nil || len(r.Failed) != 1 || !strings.Contains(err.Error(), "there is no topic other") {
		t.Error(err, r)
	}

	// Ctrl-C ends it soon, with what there is.
	ctx2, stop := context.WithCancel(t.Context())
	o = tiny(t, Options{Nodes: []string{n.Addr()}, Brokers: brokers, Topic: "bench", Scenarios: "fanout-50|fanout-200"})
	o.Duration = time.Hour
	o.Progress = func(format string, args ...any) { stop() }
	if r, err := Run(ctx2, o); !errors.Is(err, context.Canceled) || !r.Cut || len(r.Failed) > 0 {
		t.Error(err, r)
	}
}

// A bench of this machine: real processes, but for Kafka, which is embedded, and the centrifuge server, which is a
// module of its own.
func TestBenchOfThisMachine(t *testing.T) {
	o := local(t)
	o.Scenarios = "fanout-1000|fanout-max|keys-5000|idle-10000|latency|ingest|storm|dead"
	r, err := runEnough(t, o, whatever)
	check(t, r, err, []string{
		"fanout-1000 tidewire", "fanout-1000 floor", "fanout-max tidewire", "fanout-max floor", "keys-5000 tidewire", "keys-5000 floor",
		"idle-10000 tidewire", "idle-10000 floor", "latency tidewire", "latency consumer", "ingest tidewire", "ingest consumer",
		"storm tidewire", "dead tidewire",
	})
}

// local are options for a tiny bench of this machine.
func local(t *testing.T) Options {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "tidewire")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/tidewire/tidewire/cmd/tidewire").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cpus, err := allowedCPUs()
	if err != nil {
		t.Fatal(err)
	}
	return tiny(t, Options{
		Local: true, Brokers: kafkatest.Fake(t).Brokers(), Tidewire: bin, FloorCommand: []string{os.Args[0], "floor"}, Dir: t.TempDir(),
		ServerCPUs: cpus, LoadCPUs: cpus, CacheBytes: 16 << 20, Records: 20_000,
	})
}

func TestResolve(t *testing.T) {
	for _, bad := range []string{"", "localhost", "localhost:x", "localhost:70000"} {
		if _, err := resolve(t.Context(), bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if a, err := resolve(t.Context(), "127.0.0.1:80"); err != nil || a.String() != "127.0.0.1:80" {
		t.Error(a, err)
	}
}

func TestStatusOfANodeThatRefuses(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	var into bridge.NodeStatus
	if err := getJSON(t.Context(), s.Client(), s.URL, &into); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}

// Measurements on a cluster that runs share its topic: what the one before has left in it is not for the next.
func TestMeasurementsShareNoSubject(t *testing.T) {
	b := &bench{began: time.Now(), o: Options{Nodes: []string{"127.0.0.1:1"}, Brokers: kafkatest.Fake(t, kfake.SeedTopics(6, "bench")).Brokers(), Topic: "bench"}}
	seen := map[string]bool{}
	for range 3 {
		sys, err := b.joinTidewire(t.Context(), 50)
		if err != nil {
			t.Fatal(err)
		}
		for key := range 50 {
			if s := sys.subject(key); seen[s] {
				t.Errorf("%s is in two measurements", s)
			} else {
				seen[s] = true
			}
		}
		sys.close()
	}
}
