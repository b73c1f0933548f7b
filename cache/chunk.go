package cache

import "sort"

// Chunk is a run of consecutive frames, ready to be written as they are. It stays good for as long as
// it is referenced, whatever happens to the log. It is a value: making one allocates nothing.
type Chunk struct {
	// Bytes are the frames of the entries [From, Next), back to back. Read-only.
	Bytes []byte
	// From is the index asked for.
	From Index
	// Next is the index to go on from.
	Next Index
	// Gap is set when the entry at From is a gap; Bytes is empty then and Next past it.
	Gap *Gap
	// Behind is true when From has left the log; nothing else is set then.
	Behind bool

	start   uint32  // where Bytes begins in its arena
	entries []entry // those of [From, Next); entry.next must not be looked at
}

// Split says where a write of n bytes of the chunk has got to: the index of the first record of which
// nothing was written, and of the record before it what was not, nil when it went out whole.
func (c Chunk) Split(n int) (next Index, rest []byte) {
	if n <= 0 {
		return c.From, nil
	}
	if n >= len(c.Bytes) {
		return c.Next, nil
	}
	k := sort.Search(len(c.entries), func(k int) bool { return c.frameEnd(k) >= n })
	next = c.From + Index(k) + 1
	if end := c.frameEnd(k); end > n {
		rest = c.Bytes[n:end:end]
	}
	return next, rest
}

func (c Chunk) frameEnd(k int) int { return int(c.entries[k].end - c.start) }

// Item is record k of the chunk, counted from 0 up to Count.
func (c Chunk) Item(k int) Item {
	from := 0
	if k > 0 {
		from = c.frameEnd(k - 1)
	}
	to, e := c.frameEnd(k), &c.entries[k]
	return Item{Index: c.From + Index(k), Pos: Position{e.epoch, e.seqno}, Timestamp: e.timestamp, Frame: c.Bytes[from:to:to]}
}

// Last is the position of the last record in the chunk, that of the gap if it holds one, and zero if
// it holds nothing.
func (c Chunk) Last() Position {
	if len(c.entries) == 0 {
		return Position{}
	}
	e := &c.entries[len(c.entries)-1]
	return Position{e.epoch, e.seqno}
}

// Count is the number of records in the chunk.
func (c Chunk) Count() int {
	if c.Gap != nil {
		return 0
	}
	return len(c.entries)
}

// ReadAll returns the records from an index on: at most maxBytes of frames, though at least one record
// when there is one, and no more than lies contiguously, so that an empty chunk alone means the end of
// the log. Any goroutine may call it. It allocates nothing.
func (l *Log) ReadAll(from Index, maxBytes int) Chunk {
	l.rw.RLock()
	defer l.rw.RUnlock()
	if from < l.start || from > l.end {
		return Chunk{Behind: true}
	}
	if from == l.end {
		return Chunk{From: from, Next: from}
	}
	s := locate(l.segs, from)
	limit, gap := l.gapFrom(from)
	if gap != nil && limit == from {
		return Chunk{From: from, Next: from + 1, Gap: gap, entries: s.entries[from-s.base : from-s.base+1]}
	}
	limit = min(limit, s.end())
	lo, hi := from-s.base, limit-s.base
	start := s.frameStart(from)
	run := s.entries[lo:hi]
	n := sort.Search(len(run), func(k int) bool { return int(run[k].end-start) > maxBytes })
	n = max(n, 1)
	end := run[n-1].end
	return Chunk{
		Bytes: s.arena[start:end:end], From: from, Next: from + Index(n),
		start: start, entries: run[:n:n],
	}
}
