package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// recorded is a history of two records of which a subscriber got so many.
func recorded(got int) *verify.History {
	part := verify.Partition{Topic: "t"}
	h := &verify.History{Version: verify.HistoryVersion, Began: time.UnixMilli(1_700_000_000_000), End: time.Second, Settled: true}
	s := verify.Subscriber{Name: "all-0", Subject: "/t/*", Events: []verify.Event{
		{Kind: verify.Connect, Detail: &verify.Detail{Node: "n1"}},
		{Kind: verify.Subbed, Detail: &verify.Detail{At: []verify.Place{{Pos: verify.Pos{Epoch: 1}}}}},
	}}
	for i, id := range []string{"a", "b"} {
		h.Kafka = append(h.Kafka, verify.Record{Partition: part, Offset: int64(i), ID: id, Subject: "/t/k"})
		if i < got {
			s.Events = append(s.Events, verify.Event{Kind: verify.Msg, Place: verify.Place{Pos: verify.Pos{Epoch: 1, Seqno: uint64(i) + 1}}, ID: id, Subject: "/t/k"})
		}
	}
	h.Subscribers = append(h.Subscribers, s)
	return h
}

func TestVerifyJudgesARecordedHistory(t *testing.T) {
	for _, name := range []string{"run.json", "run.json.gz"} {
		file := filepath.Join(t.TempDir(), name)
		if err := writeHistory(file, recorded(2)); err != nil {
			t.Fatal(err)
		}
		r := startCmd(t, nil, nil, "verify", "-judge", file)
		r.wait(t, exitOK)
		if !strings.Contains(r.out.String(), "clean") || r.err.String() != "" {
			t.Errorf("out %s\nerr %s", r.out.String(), r.err.String())
		}
		if err := writeHistory(file, recorded(1)); err != nil {
			t.Fatal(err)
		}
		r = startCmd(t, nil, nil, "verify", "-judge", file)
		r.wait(t, exitFailed)
		if !strings.Contains(r.out.String(), "lost: [b (1,2) offset 1] had not come at the end, on n1 [all-0, t-0, at 1s]") {
			t.Errorf("out %s", r.out.String())
		}
		r = startCmd(t, nil, nil, "verify", "-judge", file, "-o", "json")
		r.wait(t, exitFailed)
		var report struct {
			Clean  bool
			Counts map[verify.Kind]int
		}
		if err := json.Unmarshal([]byte(r.out.String()), &report); err != nil || report.Clean || report.Counts[verify.Lost] != 1 {
			t.Errorf("%v: %s", err, r.out.String())
		}
	}
}

// A run that checked nothing is no proof.
func TestVerifyOfNothingFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run.json")
	if err := writeHistory(file, &verify.History{Version: verify.HistoryVersion, Settled: true}); err != nil {
		t.Fatal(err)
	}
	r := startCmd(t, nil, nil, "verify", "-judge", file)
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), "nothing was checked") {
		t.Errorf("err %s", r.err.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Ctrl-C before anything was reached
	r = startCmdIn(ctx, nil, nil, "verify", "-topics", "t", "-nodes", "127.0.0.1:1", "-kafka", "127.0.0.1:1")
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), "nothing was checked") {
		t.Errorf("err %s", r.err.String())
	}
}

func TestVerifyOfAFileThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run.json")
	for _, content := range []string{"", "{}", `{"version":99}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := startCmd(t, nil, nil, "verify", "-judge", file)
		r.wait(t, exitFailed)
		if !strings.Contains(r.err.String(), file) {
			t.Errorf("%q: %s", content, r.err.String())
		}
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"x"}, {"-topics", "t", "-o", "xml"}, {"-topics", "t", "-duration", "0s"}, {"-topics", "t", "-nodes", ""},
		{"-topics", "t", "-kafka", ","}, {"-topics", "t", "-kafka-sasl", "x"}, {"-topics", "t", "-kafka-ca", "no-such-file"},
	} {
		r := startCmd(t, nil, nil, append([]string{"verify"}, args...)...)
		r.wait(t, exitUsage)
		if r.out.String() != "" || r.err.String() == "" {
			t.Errorf("%q: out %q, err %q", args, r.out.String(), r.err.String())
		}
	}
	r := startCmd(t, nil, nil, "verify", "-h")
	r.wait(t, exitOK)
	for _, want := range []string{"-topics", "memory", "Exit codes"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("no %q in the help:\n%s", want, r.out.String())
		}
	}
}
