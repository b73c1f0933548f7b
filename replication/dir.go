package replication

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tidewire/tidewire/bridge"
)

// The folder of a node:
//
//	lock                 held while a process uses the folder
//	meta.json            whose folder it is
//	newcomer             there while the node has to catch up with what its disk has lost
//	group-0000/          one for each group
//	    wal-meta.db, *.wal   raft-wal: the log, term and vote
//	    snapshots/           the library's snapshot files
var (
	// ErrInUse: another process uses the folder.
	ErrInUse = errors.New("folder is in use by another process")
	// ErrMismatch: what is on disk belongs to another node or another shape of cluster.
	ErrMismatch = errors.New("folder does not fit the configuration")
	// ErrCorrupt: what is on disk cannot be read back. The error says which folder, and the remedy.
	ErrCorrupt = errors.New("corrupt Raft data")
)

// dirFormat is the version of the layout above.
const dirFormat = 1

// meta is the content of meta.json. Peers is what TIDEWIRE_CLUSTER_PEERS named when the folder was made: for people,
// since the members may have changed since then, and for older builds, which refuse another list.
type meta struct {
	Format int             `json:"format"`
	Node   bridge.NodeID   `json:"node"`
	Groups int             `json:"groups"`
	Peers  []bridge.NodeID `json:"peers"`
}

// dataDir is a folder that this process holds.
type dataDir struct {
	path string
	lock *os.File
}

// openDir creates or checks the folder and locks it.
func openDir(path string, want meta) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("TIDEWIRE_DATA_DIR=%q: want a folder that can be written to: %w", path, err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("TIDEWIRE_DATA_DIR=%q: want a folder that can be written to: %w", path, err)
	}
	d := &dataDir{path: path, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%w: %s: give each node a folder of its own", ErrInUse, path)
	}
	if err := d.check(want); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) check(want meta) error {
	want.Format = dirFormat
	name := filepath.Join(d.path, "meta.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return d.writeMeta(name, want)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	var have meta
	if err := json.Unmarshal(b, &have); err != nil {
		return fmt.Errorf("%w: %s: %w; %s", ErrCorrupt, name, err, remedy(d.path))
	}
	switch {
	case have.Format != want.Format:
		return fmt.Errorf("%w: %s has format %d, this build knows %d: use the build that wrote it, or %s", ErrMismatch, d.path, have.Format, want.Format, remedy(d.path))
	case have.Node != want.Node:
		return fmt.Errorf("%w: %s belongs to node %q, but TIDEWIRE_NODE_ID is %q: set it back, or point TIDEWIRE_DATA_DIR to another folder", ErrMismatch, d.path, have.Node, want.Node)
	case have.Groups != want.Groups:
		return fmt.Errorf("%w: %s was made with TIDEWIRE_GROUPS=%d, not %d: set it back; the number is fixed for the life of a cluster (to change it, stop all nodes and remove the data folders of all)", ErrMismatch, d.path, have.Groups, want.Groups)
	}
	return nil
}

// writeMeta makes the file whole or not at all: a crash in between must not leave a folder that is refused.
func (d *dataDir) writeMeta(name string, m meta) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode meta.json: %w", err)
	}
	f, err := os.CreateTemp(d.path, "meta-*.tmp")
	if err != nil {
		return fmt.Errorf("write meta.json: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("write meta.json: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// group returns the folder of a group, created.
func (d *dataDir) group(g bridge.GroupID) (string, error) {
	p := filepath.Join(d.path, fmt.Sprintf("group-%04d", g))
	if err := os.MkdirAll(p, 0o755); err != nil {
		return "", fmt.Errorf("create folder of group %d: %w", g, err)
	}
	return p, nil
}

// close gives the folder free; the lock ends with its file.
func (d *dataDir) close() { _ = d.lock.Close() }

// remedy is what to do about a folder that cannot be used any more.
func remedy(dir string) string {
	return fmt.Sprintf("stop this node, remove %s and start it again: it rebuilds itself from the other nodes (a cluster of one starts anew)", dir)
}

func joinIDs(ids []bridge.NodeID) string {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = string(id)
	}
	return strings.Join(s, ",")
}
