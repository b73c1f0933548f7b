package replication

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
)

// segmentBytes is the size of a file of the log. raft-wal allocates it in advance, for each group.
const segmentBytes = 4 << 20

// Stores are where one group keeps its state.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	Close     func() error
}

// openDisk opens a group's folder. Whatever cannot be read is ErrCorrupt and says what to do.
func openDisk(dir string, log hclog.Logger) (Stores, error) {
	w, err := openWAL(dir, log)
	if noFault(err) {
		return Stores{}, fmt.Errorf("open log in %s: %w: make room, or let the node have it", dir, err)
	}
	if err != nil {
		return Stores{}, fmt.Errorf("%w: log in %s: %w; %s", ErrCorrupt, dir, err, remedy(dir))
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("open snapshots in %s: %w", dir, err), w.Close())
	}
	snapshot, err := verifySnapshots(snaps)
	if err == nil {
		err = verifyLog(w, snapshot)
	}
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("%w: %s: %w; %s", ErrCorrupt, dir, err, remedy(dir)), w.Close())
	}
	return Stores{Log: w, Stable: w, Snapshots: snaps, Close: w.Close}, nil
}

// noFault says whether the system refused what was asked of a disk whose content may be in best order: to
// remove it would help nobody.
func noFault(err error) bool {
	for _, why := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// openWAL turns a panic into an error: what raft-wal finds on disk is not its fault or ours.
func openWAL(dir string, log hclog.Logger) (w checkedWAL, err error) {
	// raft-wal leaves its metadata open, and so locked, when it fails: the next attempt would wait for ever.
	db := new(metadb.BoltMetaDB)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("open log: %v", r)
		}
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	inner, err := wal.Open(dir, wal.WithMetaStore(db), wal.WithSegmentSize(segmentBytes), wal.WithLogger(log.Named("wal")))
	return checkedWAL{inner}, err
}

// verifyLog reads the log from end to end. The library reads most of it at start anyway, and panics at
// what it cannot read, and so it does where the log does not follow on the snapshot that it begins with: an
// older one, because the newest is damaged.
func verifyLog(s raft.LogStore, snapshot uint64) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read log: %v", r)
		}
	}()
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if last == 0 {
		return nil
	}
	if first > snapshot+1 {
		return fmt.Errorf("the log begins with entry %d, and what comes before it is in no snapshot that can be read (the newest such ends with %d)", first, snapshot)
	}
	var term uint64
	for i := first; i <= last; i++ {
		var e raft.Log
		if err := s.GetLog(i, &e); err != nil {
			return fmt.Errorf("entry %d of [%d, %d]: %w", i, first, last, err)
		}
		if e.Index != i || e.Term < term {
			return fmt.Errorf("entry %d is of index %d and term %d after term %d", i, e.Index, e.Term, term)
		}
		if err := checkEntry(&e); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		term = e.Term
	}
	return nil
}

// verifySnapshots reads the newest snapshot that can be read, and returns the index of its last entry, 0 if
// there is no snapshot at all; the library takes that one. It is an error when there are some and none is good.
func verifySnapshots(s raft.SnapshotStore) (last uint64, bad error) {
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return 0, err
	}
	for _, m := range list {
		_, r, err := s.Open(m.ID)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			err = errors.Join(err, r.Close())
		}
		if err == nil {
			return m.Index, nil
		}
		if err = fmt.Errorf("snapshot %s: %w", m.ID, err); bad != nil {
			err = fmt.Errorf("%w, %w", bad, err) // one line: people read it
		}
		bad = err
	}
	return 0, bad
}
