package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Log holds the recent records of one partition in order of arrival.
//
// Invariants:
//  1. Positions rise from entry to entry; indices rise by one, and across Reset they go on rising.
//  2. Base < position of every entry <= Head.
//  3. The chain of a key links all entries of that key in [start, end), oldest to newest and back; the
//     index knows the newest of each key and no key that has no entry.
//  4. Readers hold rw only for reading and for a bounded number of steps at a time.
//
// Lock order: Store.evict, then Log.mu, then Log.rw. The Store's map lock is taken alone.
type Log struct {
	// Set once.
	store     *Store
	topic     string
	partition int32

	// mu is held by whoever changes the log, for the whole change. Frames are encoded and tables
	// copied under it alone, so that readers go on meanwhile.
	mu       sync.Mutex
	build    builder // work space of Append
	segBytes int64   // the sum of segment.bytes
	counted  int64   // what of this log is in the store's byte count
	arrived  int64   // the newest arrival so far, unix milliseconds
	dropped  bool

	// rw guards what readers see; writing it needs mu as well, so that a holder of mu may read it.
	rw       sync.RWMutex
	segs     []*segment
	gaps     []gapEntry // oldest first
	index    keyIndex
	nullLast uint64 // index of the newest record with a null key, plus one; 0: none
	start    Index
	end      Index
	base     Position
	head     Position

	// oldest is the arrival of the newest entry of the first segment, noOldest when there is none. It
	// only rises while the log is not empty. Written under mu.
	oldest atomic.Int64
	place  int // in the store's eviction queue, from 1; 0: not in it. Guarded by Store.evict.
}

type gapEntry struct {
	index Index
	gap   *Gap
}

const (
	// logSize is what an empty log costs, with its places in the store's tables.
	logSize = int64(unsafe.Sizeof(Log{})) + 128
	// gapSize is a gap's cost: its place in the list (which may be half empty) and the Gap.
	gapSize = 2*int64(unsafe.Sizeof(gapEntry{})) + int64(unsafe.Sizeof(Gap{}))
	// lockStep is how many entries are looked at in one go while a lock is held.
	lockStep = 4096
)

// Topic is the Kafka topic whose records these are.
func (l *Log) Topic() string { return l.topic }

// Partition is the Kafka partition whose records these are.
func (l *Log) Partition() int32 { return l.partition }

// Bounds returns where the log starts and ends, consistently.
func (l *Log) Bounds() Bounds {
	l.rw.RLock()
	defer l.rw.RUnlock()
	return Bounds{Start: l.start, End: l.end, Base: l.base, Head: l.head}
}

// Seek returns the index of the first entry after a position, from which a reader that has everything
// up to and including the position goes on; at or past Head that is the end of the log. It returns
// false when the position is before Base: something after it may have left the log.
func (l *Log) Seek(after Position) (Index, bool) {
	l.rw.RLock()
	defer l.rw.RUnlock()
	if l.base.After(after) {
		return 0, false
	}
	if !l.head.After(after) || l.start == l.end {
		return l.end, true
	}
	lo, hi := 0, len(l.segs)-1 // the first segment whose last entry is after the position, else the last
	for lo < hi {
		mid := (lo + hi) / 2
		if s := l.segs[mid]; s.pos(s.end() - 1).After(after) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return max(l.start, l.segs[lo].firstAfter(after)), true
}

// At returns the position of a reader that has everything before entry i: the position of entry i-1,
// Base when i is Start or has left the log, Head when i is End or beyond.
func (l *Log) At(i Index) Position {
	l.rw.RLock()
	defer l.rw.RUnlock()
	switch {
	case i >= l.end:
		return l.head
	case i <= l.start:
		return l.base
	default:
		return locate(l.segs, i-1).pos(i - 1)
	}
}

func (l *Log) hash(key []byte) uint32 {
	if key == nil {
		return 0
	}
	return uint32(maphash.Bytes(l.store.seed, key))
}

// newest returns the newest entry with a key, nil meaning the null key.
func (l *Log) newest(key []byte, hash uint32) (Index, bool) {
	if key == nil {
		return Index(l.nullLast - 1), l.nullLast != 0
	}
	return l.index.find(l.segs, key, hash)
}

// gapFrom returns the first gap at or after an index; without one, the end of the log and nil.
func (l *Log) gapFrom(i Index) (Index, *Gap) {
	if n := len(l.gaps); n == 0 || l.gaps[n-1].index < i {
		return l.end, nil
	}
	for _, g := range l.gaps {
		if g.index >= i {
			return g.index, g.gap
		}
	}
	return l.end, nil
}

// bytes is all the memory the log holds. The caller holds mu.
func (l *Log) bytes() int64 {
	return logSize + l.segBytes + l.index.bytes() + l.build.bytes() + int64(len(l.gaps))*gapSize
}
