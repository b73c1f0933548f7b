package replication

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// checkedWAL is raft-wal with a checksum in each entry. raft-wal verifies its own only when it recovers
// the last segment; this one is verified on every read, so that a flipped bit is an error and never a
// different entry. It is kept in the entry's Extensions on disk, which neither the library nor we use
// otherwise (raft-wal v0.4.1 takes a codec of one's own, but cannot reopen what it wrote with it).
type checkedWAL struct{ *wal.WAL }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers all of an entry that matters: index, term, type, data.
func checksum(l *raft.Log) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
}

func (w checkedWAL) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

func (w checkedWAL) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = binary.LittleEndian.AppendUint32(nil, checksum(l))
		sealed[i] = &c
	}
	return w.WAL.StoreLogs(sealed)
}

func (w checkedWAL) GetLog(index uint64, l *raft.Log) error {
	if err := w.WAL.GetLog(index, l); err != nil {
		return err
	}
	if len(l.Extensions) != 4 || l.Index != index {
		return fmt.Errorf("%w: log entry %d has index %d and %d bytes of checksum", ErrCorrupt, index, l.Index, len(l.Extensions))
	}
	if got, want := checksum(l), binary.LittleEndian.Uint32(l.Extensions); got != want {
		return fmt.Errorf("%w: log entry %d has checksum %08x, not %08x", ErrCorrupt, index, got, want)
	}
	l.Extensions = nil
	return nil
}
