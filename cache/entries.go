package cache

// Entry is what a dispatcher, which looks for the readers of each new record, has to know of one.
type Entry struct {
	Index     Index
	Timestamp int64  // of the record, unix milliseconds
	Key       []byte // nil for a null key. Read-only, good for as long as it is referenced
	Gap       bool   // a gap: of all keys
}

// Entries appends what the log holds from an index on to entries, up to limit of them, and returns the
// index to go on from. behind is true when from has left the log; nothing is appended then. Any
// goroutine may call it. It allocates nothing when entries has room.
func (l *Log) Entries(from Index, limit int, entries []Entry) (_ []Entry, next Index, behind bool) {
	l.rw.RLock()
	defer l.rw.RUnlock()
	if from < l.start || from > l.end {
		return entries, from, true
	}
	var s *segment
	for ; from < l.end && limit > 0; from, limit = from+1, limit-1 {
		if s == nil || from >= s.end() {
			s = locate(l.segs, from)
		}
		e := s.at(from)
		it := Entry{Index: from, Timestamp: e.timestamp}
		switch e.key {
		case keyGap:
			it.Gap = true
		case keyNull:
		default:
			k := s.keyAt(e.key)
			it.Key = k[:len(k):len(k)]
		}
		entries = append(entries, it)
	}
	return entries, from, false
}

// Timestamp is that of the last record in the chunk, in unix milliseconds; zero if it holds none.
func (c Chunk) Timestamp() int64 {
	if c.Count() == 0 {
		return 0
	}
	return c.entries[len(c.entries)-1].timestamp
}
