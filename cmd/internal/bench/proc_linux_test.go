package bench

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const after = " S 1 2 3 0 -1 4194560 100 0 0 0 250 50 7 9 20 0 5 0 100 1000 200"
	for _, name := range []string{"(tidewire)", "(a b)", "(x) 99 99 (y)", "())"} {
		if cpu, err := parseStat([]byte("123 " + name + after)); err != nil || cpu != 3*time.Second {
			t.Errorf("%s: %v, %v", name, cpu, err)
		}
	}
	for _, s := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S 1 2 3 0 -1 4194560 100 0 0 0 a b 7"} {
		if _, err := parseStat([]byte(s)); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestParseRSS(t *testing.T) {
	if n, err := parseRSS([]byte("Name:\tx\nVmPeak:\t 9 kB\nVmRSS:\t    1234 kB\nRssAnon:\t 1 kB\n")); err != nil || n != 1234<<10 {
		t.Error(n, err)
	}
	if _, err := parseRSS([]byte("Name:\tx\n")); err == nil {
		t.Error("no VmRSS was taken")
	}
}

// What /proc says of us is what getrusage says, to its ticks.
func TestUsageAgainstRusage(t *testing.T) {
	spent := func() time.Duration {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			t.Fatal(err)
		}
		return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	low := spent()
	before, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	high := spent()
	sum := 0
	for spent()-high < 300*time.Millisecond {
		for i := range 100_000 {
			sum += i
		}
	}
	least := spent() - high
	after, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	most := spent() - low
	// Two fields, each rounded down to a tick, at both ends.
	if got := after.cpu - before.cpu; got < least-2*clockTick || got > most+2*clockTick {
		t.Errorf("%v, want %v to %v (%d)", got, least, most, sum)
	}
	if before.rss < 1<<20 || after.rss > 10<<30 {
		t.Errorf("memory of %d and %d bytes", before.rss, after.rss)
	}
}

func TestThreadCPUIsOfTheThread(t *testing.T) {
	l := aLoad(t)
	l.take()
	l.threads[0].do(func() {
		for begin := threadCPU(); threadCPU()-begin < 50*time.Millisecond; {
		}
	})
	if w := l.take(); w.cpu < 50*time.Millisecond {
		t.Errorf("%v", w.cpu)
	}
	_ = l.Close()
}

// Before: addresses with a scheme were asked at http://http://…, and what a port that wants to be shown something answers
// was taken for metrics.
func TestMetricsOfANode(t *testing.T) {
	const text = "process_cpu_seconds_total 1\nprocess_resident_memory_bytes 1000\n"
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" || r.Header.Get("Authorization") != "shown" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write([]byte(text))
	}))
	defer node.Close()
	shown := roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "shown")
		return http.DefaultTransport.RoundTrip(r)
	})
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for _, address := range []string{node.Listener.Addr().String(), node.URL, node.URL + "/"} {
		sys := &tidewire{admin: []string{address}, http: http.Client{Transport: shown}}
		if u, known, err := sys.usage(); err != nil || !known || u.cpu != time.Second || u.rss != 1000 {
			t.Errorf("%s: %+v, %v, %v", address, u, known, err)
		}
		sys.http.Transport = nil
		if _, _, err := sys.usage(); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s, with nothing shown: %v", address, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestParseMetrics(t *testing.T) {
	const text = "# HELP process_cpu_seconds_total x\nprocess_cpu_seconds_total 1.5\nother 3\nprocess_resident_memory_bytes 2.5e+07\n"
	if u, err := parseMetrics(strings.NewReader(text)); err != nil || u.cpu != 1500*time.Millisecond || u.rss != 25_000_000 {
		t.Error(u, err)
	}
	if _, err := parseMetrics(strings.NewReader("other 3\n")); err == nil {
		t.Error("nothing was taken for metrics")
	}
}

func TestFilesAreChecked(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	if n, err := raiseFiles(10); err != nil || n < 10 {
		t.Error(n, err)
	}
	b := &bench{o: Options{Scale: 1}, files: 500, report: &Report{}}
	b.o.Progress = func(string, ...any) {}
	if n := b.clientsOf(&Scenario{Name: "s", Clients: 501}); n != 500 || len(b.report.Problems) != 1 || !strings.Contains(b.report.Problems[0], "500 clients instead of 501") {
		t.Error(n, b.report.Problems)
	}
	if n := b.clientsOf(&Scenario{Name: "s", Clients: 500}); n != 500 || len(b.report.Problems) != 1 {
		t.Error(n, b.report.Problems)
	}
}

// A child of a child is found, and bound with the rest.
func TestDescendantsAreBound(t *testing.T) {
	all, err := allowedCPUs()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	p, err := spawn(all, log, os.Environ(), "/bin/sh", "-c", "sleep 60 & echo $!; wait")
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	line, err := p.line(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(child, unix.SIGKILL) }() // before its parent is waited for: it holds the parent's output open
	pids, err := descendants(p.cmd.Process.Pid)
	if err != nil || !slices.Equal(pids, []int{p.cmd.Process.Pid, child}) {
		t.Fatalf("%v, %v: want %d and %d", pids, err, p.cmd.Process.Pid, child)
	}
	for _, pid := range pids {
		if err := pinProcess(pid, all[:1]); err != nil {
			t.Fatal(err)
		}
		var may unix.CPUSet
		if err := unix.SchedGetaffinity(pid, &may); err != nil || may.Count() != 1 || !may.IsSet(all[0]) {
			t.Errorf("%d may use %d processors: %v", pid, may.Count(), err)
		}
	}
}
