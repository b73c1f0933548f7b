package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/verify"
)

func scenario(t *testing.T, name string) Scenario {
	i := slices.IndexFunc(Scenarios(), func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no scenario %s", name)
	}
	return Scenarios()[i]
}

// The goals for the speed of recovery are limits: a run that misses one has failed, and its figures say by how much.
func TestSpeedIsJudged(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name, kind string
		silences   []time.Duration
		want       string // part of the figure
		breach     bool
	}{
		{"speed-kill", "kill −9", []time.Duration{100 * ms, 200 * ms, 500 * ms}, "median ≤ 200ms met by 0s, worst ≤ 500ms met by 0s", false},
		{"speed-kill", "kill −9", []time.Duration{100 * ms, 201 * ms, 300 * ms}, "worst ≤ 500ms met by 200ms, median ≤ 200ms missed by 1ms", true},
		{"speed-kill", "kill −9", []time.Duration{100 * ms, 100 * ms, 501 * ms}, "worst ≤ 500ms missed by 1ms", true},
		{"speed-sigterm", "SIGTERM", []time.Duration{0, 100 * ms}, "worst ≤ 100ms met by 0s", false},
		{"speed-sigterm", "SIGTERM", []time.Duration{0, 130 * ms}, "worst ≤ 100ms missed by 30ms", true},
		{"speed-sigstop", "SIGSTOP", []time.Duration{1900 * ms}, "worst ≤ 2s met by 100ms", false},
		{"speed-sigstop", "SIGSTOP", []time.Duration{2100 * ms}, "worst ≤ 2s missed by 100ms", true},
		{"speed-sigstop", "SIGSTOP", nil, "none", true},
	} {
		h := verify.History{Began: time.Unix(0, 0), End: time.Hour}
		p := verify.Partition{Topic: "t"}
		s := verify.Subscriber{Name: "s", Subject: "/t/*", Events: []verify.Event{
			{Kind: verify.Connect, Detail: &verify.Detail{Node: "n1"}}, {Kind: verify.Subbed, Detail: &verify.Detail{}}}}
		r := &Rig{Marks: []Mark{{"back", 0, time.Second}}}
		for i, d := range c.silences {
			at := time.Duration(i+1) * time.Minute
			r.Marks = append(r.Marks, Mark{c.kind, at, at + 10*time.Second})
			id := fmt.Sprint(i)
			h.Kafka = append(h.Kafka, verify.Record{Partition: p, Offset: int64(i), ID: id, Subject: "/t/k"})
			h.Written = append(h.Written, verify.Write{Partition: p, Offset: int64(i), ID: id, Subject: "/t/k", Outcome: verify.Committed, At: at})
			s.Events = append(s.Events, verify.Event{Kind: verify.Msg, Time: at + d, Subject: "/t/k", ID: id, Place: verify.Place{Pos: verify.Pos{Epoch: 1, Seqno: uint64(i)}}})
		}
		h.Subscribers = []verify.Subscriber{s}
		res := Result{Figures: scenario(t, c.name).Measure(r, h)}
		if got := res.Figures[0]; !strings.Contains(got.Value, c.want) || (got.Breach != "") != c.breach || res.Passed() == c.breach {
			t.Errorf("%s of %v: %+v, want %q, failed %v", c.name, c.silences, got, c.want, c.breach)
		}
		r.Marks = r.Marks[1:]
		if got := scenario(t, c.name).Measure(r, h)[1]; got.Breach == "" {
			t.Errorf("nobody came back, and that is no breach: %+v", got)
		}
	}
}

// A scenario that damages something fails if there was nothing to damage.
func TestDamageIsDone(t *testing.T) {
	dir := t.TempDir()
	var logs []string
	for i := range 3 {
		logs = append(logs, filepath.Join(dir, fmt.Sprintf("%d.wal", i)))
		if err := os.WriteFile(logs[i], slices.Concat([]byte(strings.Repeat("x", 20<<10)), make([]byte, 30<<10)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if flipped, err := flipWritten(logs, []int64{20 << 10, 19 << 10, 12 << 10}); err == nil {
		t.Errorf("%v were damaged, of logs that have not grown", flipped)
	}
	flipped, err := flipWritten(logs, []int64{20 << 10, 1 << 10, 19 << 10})
	if err != nil || !slices.Equal(flipped, logs[1:2]) {
		t.Errorf("damaged: %v, %v", flipped, err)
	}
	if b, _ := os.ReadFile(logs[1]); b[5<<10] == 'x' {
		t.Error("the byte is as it was")
	}
	if gone(logs) || gone([]string{logs[0], "/nowhere"}) || !gone([]string{"/nowhere"}) {
		t.Error("which files are gone")
	}

	if cut, err := cutSnapshots(dir, true); err == nil {
		t.Errorf("%d snapshots were cut where there is none", cut)
	}
	for _, name := range []string{"group-0/snapshots/1-2", "group-0/snapshots/1-9", "group-1/snapshots/1-5"} {
		file := filepath.Join(dir, name, "state.bin")
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, make([]byte, 100), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if cut, err := cutSnapshots(dir, false); err != nil || cut != 2 {
		t.Errorf("%d of the newest were cut: %v", cut, err)
	}
	if cut, err := cutSnapshots(dir, true); err != nil || cut != 3 {
		t.Errorf("%d of all were cut: %v", cut, err)
	}
}

// A node whose disk cannot be read must say so, and what it says must help; one that starts as if nothing were wrong
// has not noticed.
func TestRefusesWhatItCannotRead(t *testing.T) {
	f := newFake(t)
	f.Nodes.Kill(0)
	dir := f.Nodes.list[0].dir
	bad := filepath.Join(dir, "bad")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(bad, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := refuses(t.Context(), f.Rig, 0); err != nil {
		t.Errorf("a node that said what to do: %v", err)
	}
	if _, err := os.Stat(bad); err == nil || !f.Nodes.Running(0) {
		t.Error("what it said was not done")
	}
	f.Nodes.Kill(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := refuses(ctx, f.Rig, 0); err == nil {
		t.Error("a node started on a damaged disk, and that is right")
	}
}

// Thousands are thrown out only where there are thousands.
func TestCrowdIsThere(t *testing.T) {
	f := newFake(t)
	have := func(clients ...int64) {
		for i, n := range clients {
			f.set(i, func(s *bridge.NodeStatus) { s.Connections = n })
		}
	}
	have(2499, 2501, 10)
	ctx, cancel := context.WithCancel(t.Context())
	f.onLook(func(n int) {
		if n == 6 {
			cancel()
		}
	})
	if i, err := f.gathered(ctx, 5000); err == nil || !strings.Contains(err.Error(), "[2499 2501 10]") {
		t.Errorf("half a crowd on node %d will do: %v", i, err)
	}
	f.onLook(func(n int) { // they are on their way
		if n == 3 {
			have(0, 5003, 7)
		}
	})
	if i, err := f.gathered(t.Context(), 5000); err != nil || i != 1 {
		t.Errorf("the crowd is on node %d: %v", i, err)
	}
}

// A node that is cut off has no clients, all of which are somewhere else, and takes nothing in; the others do.
func TestCutOffIsHeldAgainstItsPromises(t *testing.T) {
	served := verify.Counters{Subscribed: 9, Subscribers: 9}
	for _, c := range []struct {
		away    string
		clients int64
		n       verify.Counters
		want    bool
	}{
		{"isolated", 0, served, true}, {"", 0, served, false}, {"isolated", 1, served, false}, {"isolated", 0, verify.Counters{}, false},
		{"isolated", 0, verify.Counters{Subscribed: 8, Subscribers: 9, NotSubscribed: 1}, false},
	} {
		if got := elsewhere(bridge.NodeStatus{Away: c.away, Connections: c.clients}, c.n); got != c.want {
			t.Errorf("away %q, %d clients, %+v: %v", c.away, c.clients, c.n, got)
		}
	}
	f := newFake(t)
	advance := func(i int, by uint64) { f.set(i, func(s *bridge.NodeStatus) { s.Groups[0].Applied += by }) }
	if err := f.commitsNothing(t.Context(), 2, func() error { advance(0, 5); return nil }); err != nil {
		t.Error(err)
	}
	if err := f.commitsNothing(t.Context(), 2, func() error { advance(0, 5); advance(2, 1); return nil }); err == nil {
		t.Error("a minority that commits is fine")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := f.commitsNothing(ctx, 2, func() error {
		f.onLook(func(n int) {
			if n == 3 {
				cancel()
			}
		})
		return nil
	})
	if err == nil {
		t.Error("a majority that commits nothing is fine")
	}
	f.onLook(nil)
	f.set(2, func(s *bridge.NodeStatus) { s.Connections = 1 })
	if err := f.servesNobody(t.Context(), 2); err == nil {
		t.Error("a client of a node that serves nobody is fine")
	}
}
