package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

func TestRestartWithDisk(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1)
	for i := range 5 {
		c.propose(0, fmt.Sprint(i))
	}
	c.waitSame(0, 5)
	for i := range c.nodes {
		c.stop(i, 0)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.propose(0, "5")
	c.waitSame(0, 6)
	if got := c.appliedOnce(0, 0); !slices.Equal(got, []string{"0", "1", "2", "3", "4", "5"}) {
		t.Errorf("after a restart of all: %q", got)
	}
}

// A node whose disk is lost while the others have cut their logs gets a snapshot.
func TestRestartWithoutDisk(t *testing.T) {
	t.Parallel() // it waits for most of its time
	c := newCluster(t, 3, 1, func(_ int, c *Config) { c.TrailingLogs = 1; c.SnapshotBytes = 1 })
	l := c.waitLeader(0)
	lost := (l + 1) % 3
	for i := range 5 {
		c.propose(0, fmt.Sprint(i))
	}
	c.stop(lost, 0)
	if err := os.RemoveAll(c.configs[lost].Dir); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxAppendEntries {
		c.propose(0, fmt.Sprint("more", i))
	}
	eventually(t, "the leader cuts its log", func() bool {
		l := c.leader(0)
		if l < 0 {
			return false
		}
		first, err := c.nodes[l].groups[0].log.FirstIndex()
		return err == nil && first > 2
	})
	c.start(lost)
	c.waitSame(0, 5+2*maxAppendEntries)
	c.propose(0, "last")
	c.waitSame(0, 6+2*maxAppendEntries)
	eventually(t, "it is caught up", func() bool { ok, _ := c.nodes[lost].CaughtUp(); return ok })
}

// Entries as large as a segment of the log, and larger, go through.
func TestLargeEntries(t *testing.T) {
	c := newCluster(t, 3, 1, func(_ int, c *Config) { c.HeartbeatTimeout = time.Second })
	for i, size := range []int{1 << 20, segmentBytes + 1} {
		c.propose(0, strings.Repeat(fmt.Sprint(i), size))
	}
	c.waitSame(0, 2)
	l := c.waitLeader(0)
	if _, err := c.nodes[l].Propose(0, make([]byte, MaxEntry+1)).Wait(); !errors.Is(err, ErrEntryTooLarge) {
		t.Errorf("an entry over the limit: %v", err)
	}
	for i := range c.nodes {
		c.stop(i, 0)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.waitSame(0, 2)
}

// single is a configuration of a cluster of one.
func single(t *testing.T) Config {
	return Config{
		NodeID: "a", Listen: "127.0.0.1:0", Groups: 2, Dir: t.TempDir(), Log: testLog(), Machine: newToy(), Service: &stubService{},
		HeartbeatTimeout: 50 * time.Millisecond,
	}
}

func openClose(t *testing.T, cfg Config) {
	t.Helper()
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a leader", func() bool { ok, _ := n.CaughtUp(); return ok })
	for i := range 20 {
		if _, err := n.Propose(0, bytes.Repeat([]byte{byte(i)}, 1000)).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// refused opens the node and expects an error that is want and contains all of says.
func refused(t *testing.T, cfg Config, want error, says ...string) {
	t.Helper()
	n, err := Open(cfg)
	if err == nil {
		_ = n.Close(context.Background())
		t.Fatal("it was opened")
	}
	if !errors.Is(err, want) {
		t.Errorf("error is not %q: %v", want, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error does not say %q: %v", s, err)
		}
	}
}

func TestFolderOfAnotherShapeIsRefused(t *testing.T) {
	t.Parallel() // it waits for most of its time
	cfg := single(t)
	openClose(t, cfg)
	groups := cfg
	groups.Groups = 4
	refused(t, groups, ErrMismatch, "TIDEWIRE_GROUPS=2", "not 4", "set it back")
	node := cfg
	node.NodeID = "b"
	refused(t, node, ErrMismatch, `node "a"`, "TIDEWIRE_NODE_ID")
	peers := cfg
	peers.Peers = []Peer{{"a", "127.0.0.1:7001"}, {"b", "127.0.0.1:7002"}}
	openClose(t, peers) // the members may have been changed since then
	openClose(t, cfg)
}

// A folder that cannot be had is named with the variable that chose it.
func TestFolderThatCannotBeHad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := openDir(path, meta{}); err == nil || !strings.Contains(err.Error(), "TIDEWIRE_DATA_DIR=") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFolderIsForOneProcess(t *testing.T) {
	t.Parallel() // it waits for most of its time
	cfg := single(t)
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	other := cfg
	other.Machine = newToy()
	refused(t, other, ErrInUse, cfg.Dir)
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	openClose(t, cfg)
}

// Wherever a byte of a log flips, or its tail is cut, the node starts with the first part of its entries
// (damage at the very end looks like a write that was cut off by a crash) or says what to do; it never
// panics, and never applies another entry.
func TestCorruptLog(t *testing.T) {
	cfg := single(t)
	openClose(t, cfg)
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "group-0000", "*.wal"))
	if err != nil || len(files) == 0 {
		t.Fatalf("log files: %v, %v", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	used := bytes.LastIndexByte(whole, 19) // within the last entry
	var refusals int
	try := func(what string, content []byte) {
		if err := os.WriteFile(files[0], content, 0o644); err != nil {
			t.Fatal(err)
		}
		m := newToy()
		cfg.Machine = m
		n, err := Open(cfg)
		if err != nil {
			refusals++
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "remove "+cfg.Dir) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if err := n.Close(context.Background()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for i, e := range m.applied(0) {
			if e != strings.Repeat(string(rune(i)), 1000) {
				t.Errorf("%s: entry %d is not what was proposed", what, i)
			}
		}
	}
	for i := 0; i < used; i += 1777 {
		flipped := slices.Clone(whole)
		flipped[i] ^= 0x10
		try(fmt.Sprintf("byte %d flipped", i), flipped)
	}
	for i := 0; i < used; i += 5989 {
		try(fmt.Sprintf("cut at %d", i), whole[:i])
	}
	if refusals == 0 {
		t.Error("no damage was noticed")
	}
}

func TestCorruptSnapshot(t *testing.T) {
	cfg := single(t)
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an entry is applied", func() bool {
		_, err := n.Propose(0, []byte("abcdefghijklmnop")).Wait()
		return err == nil
	})
	if err := n.groups[0].raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "group-0000", "snapshots", "*", "state.bin"))
	if err != nil || len(files) != 1 {
		t.Fatalf("snapshots: %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(files[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	cfg.Machine = newToy()
	refused(t, cfg, ErrCorrupt, "snapshot", "remove "+cfg.Dir)
}

func TestBadConfigurations(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"empty":            func(c *Config) { c.NodeID = "" },
		"is empty":         func(c *Config) { c.NodeID = "" },
		"between 1 and":    func(c *Config) { c.Groups = 0 },
		"among the peers":  func(c *Config) { c.Peers = []Peer{{"x", "h:1"}} },
		"listed twice":     func(c *Config) { c.Peers = []Peer{{"a", "h:1"}, {"a", "h:2"}} },
		"same address":     func(c *Config) { c.Peers = []Peer{{"a", "h:1"}, {"b", "h:1"}} },
		"not host:port":    func(c *Config) { c.Peers = []Peer{{"a", "h"}} },
		"longer than the":  func(c *Config) { c.LeaderLease = time.Hour },
		"no folder":        func(c *Config) { c.Dir = "" },
		"to listen on":     func(c *Config) { c.Listen = "" },
		"single late one":  func(c *Config) { c.Silence = time.Millisecond },
		"state machine":    func(c *Config) { c.Machine = nil },
		"longer than 128 ": func(c *Config) { c.NodeID = bridge.NodeID(strings.Repeat("x", 129)) },
	} {
		cfg := single(t)
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	cfg := single(t)
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

var _ raft.LogStore = checkedWAL{}

// twoSnapshots returns a configuration whose folder holds two snapshots of group 0, the older of which ends
// before its log begins, and the files of their states, oldest first.
func twoSnapshots(t *testing.T) (Config, []string) {
	t.Helper()
	cfg := single(t)
	cfg.TrailingLogs = 1
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for range 10 {
			eventually(t, "an entry is applied", func() bool {
				_, err := n.Propose(0, []byte("abcdefghijklmnop")).Wait()
				return err == nil
			})
		}
		if err := n.groups[0].raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "group-0000", "snapshots", "*", "state.bin"))
	if err != nil || len(files) != 2 {
		t.Fatalf("snapshots: %v, %v", files, err)
	}
	slices.Sort(files)
	return cfg, files
}

// The newest snapshot was cut short, and the one before it ends before the log begins. The library takes
// that one and panics ("log not found"), which told nobody what to do.
func TestNewestSnapshotCutShort(t *testing.T) {
	cfg, files := twoSnapshots(t)
	if err := os.Truncate(files[1], 3); err != nil {
		t.Fatal(err)
	}
	cfg.Machine = newToy()
	refused(t, cfg, ErrCorrupt, "the log begins with entry", "remove "+cfg.Dir)
}

// The snapshots are gone altogether, and the log is not whole without them.
func TestSnapshotsGone(t *testing.T) {
	cfg, files := twoSnapshots(t)
	for _, f := range files {
		if err := os.RemoveAll(filepath.Dir(f)); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Machine = newToy()
	refused(t, cfg, ErrCorrupt, "the log begins with entry", "remove "+cfg.Dir)
}

// A folder that cannot be written to for now is not corrupt: to remove it, as such an error advises, would be
// of no use.
func TestNoRoomIsNoCorruption(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EACCES} {
		if !noFault(fmt.Errorf("open log: %w", &os.PathError{Op: "open", Path: "x", Err: err})) {
			t.Errorf("%v counts as corruption", err)
		}
	}
	if noFault(errFlipped) || noFault(syscall.EIO) || noFault(nil) {
		t.Error("corruption does not count as such")
	}
}
