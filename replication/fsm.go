package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// fsm is the thin shim between the library and bridge.StateMachine, for one group. The library calls
// ApplyBatch, Snapshot and Restore from one goroutine (Restore also from within NewRaft).
//
// A snapshot is stored as
//
//	offset  size  field
//	0       1     version, now 1
//	1       8     index of the last entry that the machine has applied, big-endian
//	9       …     the machine's own encoding
//
// The snapshot store adds a checksum, and verifies it before Restore.
type fsm struct {
	group   bridge.GroupID
	machine bridge.StateMachine
	// committed is told that index, written in term, is committed, before it is applied.
	committed func(index, term uint64)
	// members is told that the group's configuration may have changed; must not block.
	members func()

	applied atomic.Uint64 // the last entry that the machine has applied
	bytes   atomic.Int64  // applied since the last snapshot
	load    *load
}

const snapshotVersion = 1

// errSnapshot: a snapshot is not in our format.
var errSnapshot = errors.New("snapshot is not readable")

var _ raft.BatchingFSM = (*fsm)(nil)

func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	last := logs[len(logs)-1]
	f.committed(last.Index, last.Term)
	out := make([]any, len(logs))
	bytes := 0
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			out[i] = f.machine.Apply(f.group, bridge.Term(l.Term), l.Index, l.Data)
			bytes += len(l.Data)
		}
		if l.Type == raft.LogConfiguration {
			f.members()
		}
		f.applied.Store(l.Index)
	}
	f.bytes.Add(int64(bytes))
	f.load.add(bytes, time.Now())
	return out
}

// Apply is not called by the library, which prefers ApplyBatch.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	b, err := f.machine.Snapshot(f.group)
	if err != nil {
		return nil, fmt.Errorf("snapshot of group %d: %w", f.group, err)
	}
	head := binary.BigEndian.AppendUint64([]byte{snapshotVersion}, f.applied.Load())
	f.bytes.Store(0)
	return snapshot{head, b}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer func() { _ = r.Close() }()
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if head[0] != snapshotVersion {
		return fmt.Errorf("%w: version %d, this build knows %d", errSnapshot, head[0], snapshotVersion)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxRaftMessage+1))
	if err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if len(b) > maxRaftMessage {
		return fmt.Errorf("%w: over %d bytes", errSnapshot, maxRaftMessage)
	}
	if err := f.machine.Restore(f.group, b); err != nil {
		return fmt.Errorf("restore group %d: %w", f.group, err)
	}
	f.applied.Store(binary.BigEndian.Uint64(head[1:]))
	f.bytes.Store(0)
	f.members()
	return nil
}

// snapshot is what the machine gave, already encoded.
type snapshot [2][]byte

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	for _, b := range s {
		if _, err := sink.Write(b); err != nil {
			return errors.Join(err, sink.Cancel())
		}
	}
	return sink.Close()
}

func (snapshot) Release() {}
