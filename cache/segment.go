package cache

import (
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"unsafe"
)

// A segment is a run of consecutive entries of one Log: their frames back to back in one arena, their
// keys in another, and a table of entries. All three hold no pointers, so the garbage collector marks
// a segment in three steps however many records it has.
//
// Invariants:
//  1. Bytes and entries below the published lengths never change, but for entry.next, so that slices
//     of them stay good after the log's lock is released. When an array is full it is replaced by a
//     bigger copy and the old one left to those who still look at it.
//  2. The headers (arena, keys, entries) change only under the log's write lock. What lies beyond
//     their lengths belongs to the goroutine that holds the log's mutation lock.
//  3. entries[i] has index base+i and its frame is arena[entries[i-1].end:entries[i].end].
type segment struct {
	base    Index
	first   int64 // arrival of the first entry, unix milliseconds
	newest  int64 // arrival of the last entry, unix milliseconds
	arena   []byte
	keys    []byte // for each key that occurs: its length as uvarint, its bytes
	entries []entry
}

// entry describes one record or gap.
type entry struct {
	epoch     Epoch
	seqno     Seqno
	timestamp int64
	end       uint32 // where the frame ends in the arena
	arrived   uint32 // milliseconds after the segment's first
	key       uint32 // where the key is in the segment's keys, or keyNull, or keyGap
	hash      uint32 // of the key
	prev      uint32 // how many entries back the one with the same key is; 0: none
	next      uint32 // how many entries on the next with the same key is; 0: none yet. The one field that changes after publication: read and written under the log's lock only.
}

const (
	keyNull = math.MaxUint32
	keyGap  = math.MaxUint32 - 1

	// maxArena bounds the arenas so that entry.end and entry.key can be 32 bits wide.
	maxArena = math.MaxUint32

	entrySize   = int64(unsafe.Sizeof(entry{}))
	segmentSize = int64(unsafe.Sizeof(segment{})) + 16 // with its place in the list, which may be half empty
)

// bytes is the memory the segment holds, slack included.
func (s *segment) bytes() int64 {
	return segmentSize + int64(cap(s.arena)) + int64(cap(s.keys)) + int64(cap(s.entries))*entrySize
}

func (s *segment) end() Index { return s.base + Index(len(s.entries)) }

func (s *segment) at(i Index) *entry { return &s.entries[i-s.base] }

func (s *segment) pos(i Index) Position {
	e := s.at(i)
	return Position{e.epoch, e.seqno}
}

// frameStart is the arena offset of entry i's frame; i may be the segment's end.
func (s *segment) frameStart(i Index) uint32 {
	if i == s.base {
		return 0
	}
	return s.entries[i-s.base-1].end
}

func (s *segment) item(i Index) Item {
	e := s.at(i)
	from, to := s.frameStart(i), e.end
	return Item{Index: i, Pos: Position{e.epoch, e.seqno}, Timestamp: e.timestamp, Frame: s.arena[from:to:to]}
}

// keyAt decodes the key stored at an offset that an entry names.
func (s *segment) keyAt(off uint32) []byte {
	n, w := binary.Uvarint(s.keys[off:])
	from := int(off) + w
	return s.keys[from : from+int(n)]
}

// hasKey says whether the entry is a record with this key; a nil key is the null key.
func (s *segment) hasKey(e *entry, key []byte, hash uint32) bool {
	if key == nil {
		return e.key == keyNull
	}
	return e.key < keyGap && e.hash == hash && string(s.keyAt(e.key)) == string(key)
}

// arrived is when entry i came, in unix milliseconds.
func (s *segment) arrivedAt(i Index) int64 { return s.first + int64(s.at(i).arrived) }

// firstAfter is the index of the first entry whose position is after p, the segment's end if none is.
func (s *segment) firstAfter(p Position) Index {
	n := sort.Search(len(s.entries), func(k int) bool {
		e := &s.entries[k]
		return Position{e.epoch, e.seqno}.After(p)
	})
	return s.base + Index(n)
}

// clip gives back the slack of a segment that takes no more entries, when it is worth a copy.
func (s *segment) clip() {
	s.arena = clip(s.arena)
	s.keys = clip(s.keys)
	s.entries = clip(s.entries)
}

func clip[T any](s []T) []T {
	if cap(s)-len(s) <= cap(s)/8 {
		return s
	}
	return append([]T(nil), s...)
}

// withRoom returns s, or a copy of it with room for n more elements, at least doubled but, where that
// is enough, not beyond limit.
func withRoom[T any](s []T, n, limit int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	want := max(len(s)+n, min(2*cap(s), limit))
	return append(slices.Grow([]T(nil), want), s...)
}

// locate finds the segment that holds index i, which must be in one of them.
func locate(segs []*segment, i Index) *segment {
	last := len(segs) - 1
	if i >= segs[last].base {
		return segs[last]
	}
	return segs[sort.Search(last, func(k int) bool { return segs[k+1].base > i })]
}
