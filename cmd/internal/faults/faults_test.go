package faults

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

func TestScenariosAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	families := map[string]bool{}
	for _, s := range Scenarios() {
		if seen[s.Name] || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(s.Name) {
			t.Errorf("name %q is taken, or cannot be part of a topic's", s.Name)
		}
		seen[s.Name] = true
		if s.Family == "" || s.About == "" || s.Run == nil || s.Nodes < 3 || s.Nodes+s.Spare > maxNodes {
			t.Errorf("%s: %+v", s.Name, s)
		}
		families[s.Family] = true
	}
	// Speed is measured on a machine that does nothing else; of everything else CI sees something, and first.
	delete(families, "Speed")
	short := Slice(Scenarios())
	for _, s := range short[:min(len(short), len(families))] {
		delete(families, s.Family)
	}
	if len(families) > 0 {
		t.Errorf("the slice does not begin with one of each family: %v are missing", families)
	}
}

// The schedule of a scenario is its seed's, and another one's with another seed or name.
func TestScheduleIsTheSeeds(t *testing.T) {
	draw := func(name string, seed uint64) (out [8]int) {
		r := rngOf(name, seed)
		for i := range out {
			out[i] = r.IntN(1000)
		}
		return out
	}
	if once, again := draw("a", 1), draw("a", 1); once != again {
		t.Error("one seed, two schedules")
	}
	if draw("a", 1) == draw("a", 2) || draw("a", 1) == draw("b", 1) {
		t.Error("two seeds or scenarios, one schedule")
	}
}

// echo answers what it is sent until it is closed.
func echo(t *testing.T, addr string) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
}

func TestLoopbackCutsOneDirection(t *testing.T) {
	l := newLoopback()
	for _, h := range []string{"n1", "n2"} {
		if err := l.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	at, err := l.Listen("n2", 80)
	if err != nil {
		t.Fatal(err)
	}
	echo(t, at)
	via, err := l.Dial("n1", "n2", 80)
	if err != nil || via == at {
		t.Fatalf("%s is no proxy for %s: %v", via, at, err)
	}
	if again, _ := l.Dial("n1", "n2", 80); again != via {
		t.Fatalf("two proxies for one way: %s and %s", via, again)
	}
	c, err := net.Dial("tcp", via)
	if err != nil {
		t.Fatal(err)
	}
	answered := func(wait time.Duration) bool {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err := io.ReadFull(c, make([]byte, 4))
		return err == nil
	}
	send := func() {
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
	}
	send()
	if !answered(time.Minute) {
		t.Fatal("nothing came through a whole way")
	}
	for _, w := range []way{{"n1", "n2"}, {"n2", "n1"}} {
		if err := l.Impair(w.from, w.to, Impairment{Cut: true}); err != nil {
			t.Fatal(err)
		}
		send()
		if answered(50 * time.Millisecond) {
			t.Fatalf("something came over the cut %v", w)
		}
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
		if !answered(time.Minute) {
			t.Fatalf("what was held back on %v did not come after it was healed", w)
		}
	}
	if err := l.Impair("n1", "nobody", Impairment{Cut: true}); err == nil {
		t.Error("a way to nobody was cut")
	}
	if err := l.Impair("n1", "n2", Impairment{Cut: true}); err != nil {
		t.Fatal(err)
	}
	send()
	if err := l.Close(); err != nil { // with something held back
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestResults(t *testing.T) {
	s := Scenario{Name: "x", About: "nothing", Nodes: 3}
	good := Result{Scenario: s, Seed: 7}
	bad := Result{Scenario: s, Seed: 8, Dir: "/logs", Report: verify.Report{Counts: map[verify.Kind]int{verify.Lost: 3}}}
	slow := Result{Scenario: s, Seed: 9, Figures: []Figure{{Name: "n", Value: "9 s", Breach: "over 1 s"}}}
	none := Result{Scenario: Scenario{Name: "y", Family: "Disks", Nodes: 3}, Seed: 7, Err: fmt.Errorf("%w: no disks", ErrNotRun)}
	once := Result{Scenario: s, Seed: 10, Err: fmt.Errorf("%w: no old build", ErrNotRun)}
	if !good.Passed() || bad.Passed() || slow.Passed() || none.Passed() || none.NotRun() == "" || bad.NotRun() != "" {
		t.Fatal("a verdict is wrong")
	}
	var text bytes.Buffer
	bad.WriteText(&text)
	for _, want := range []string{"FAILED", "SCENARIO=x", "SEED=8", "/logs", "lost: 3"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in:\n%s", want, text.String())
		}
	}
	path := filepath.Join(t.TempDir(), "faults.md")
	run := &Runner{net: newLoopback(), kafka: &Kafka{jars: []string{"/x/kafka_2.13-4.1.0.jar"}}}
	if err := WriteMarkdown(path, run, 7, time.Now(), []Result{good, none, bad, slow, once}); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| x | nothing, 3 nodes | 3 |", "**failed**, seed 8, 9", "4.1.0", "| n | 9 s |",
		"5 runs of 2 scenarios: 1 passed, 2 failed, 2 not run", "## Disks", "NOT RUN: no disks", "seed 8, 9; 1 NOT RUN",
		"**NOT RUN, so that nothing is shown of them: y.**", "Not part of these runs: kill-coordinator, "} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is not in:\n%s", want, page)
		}
	}
	text.Reset()
	Summary(&text, []Result{good, none, bad, slow, once, none}, []string{"z"})
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	closing := []string{"NOT BEGUN, the time was over: z", "y: NOT RUN: no disks", "x: NOT RUN: no old build", "1 passed, 2 failed, 3 NOT RUN: of y nothing is shown"}
	if got := lines[len(lines)-len(closing):]; !slices.Equal(got, closing) {
		t.Errorf("the closing lines are %q, want %q", got, closing)
	}
	text.Reset()
	Summary(&text, []Result{good}, nil)
	if strings.Contains(text.String(), "NOT") || !strings.HasSuffix(text.String(), "1 passed, 0 failed\n") {
		t.Errorf("a run of everything ends with:\n%s", text.String())
	}
}
