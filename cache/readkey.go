package cache

import "bytes"

// ReadKey returns the records of one key from an index on, a nil key meaning the null key, in order and
// appended to items: at most maxBytes of frames, though at least one record when there is one. Its
// cost is the number of entries of that key which the reader has missed; going on from the Next of a
// read that maxBytes cut short, only the number returned. It stops at a gap, which is of all keys. Any
// goroutine may call it. It allocates nothing when items has room.
func (l *Log) ReadKey(from Index, key []byte, maxBytes int, items []Item) Read {
	hash := l.hash(key)
	l.rw.RLock()
	defer l.rw.RUnlock()
	i, found, behind := l.firstOf(from, key, hash)
	if behind {
		return Read{Behind: true}
	}
	limit, gap := l.gapFrom(from)
	for size := 0; found && i < limit; {
		s := locate(l.segs, i)
		it := s.item(i)
		if size > 0 && size+len(it.Frame) > maxBytes {
			return Read{Items: items, Next: items[len(items)-1].Index + 1}
		}
		items = append(items, it)
		size += max(1, len(it.Frame))
		next := s.at(i).next
		i, found = i+Index(next), next != 0
	}
	return ended(items, limit, gap)
}

// ended is the result of a read that found all there is before limit, where gap lies if it is not nil.
func ended(items []Item, limit Index, gap *Gap) Read {
	if gap != nil {
		limit++
	}
	return Read{Items: items, Next: limit, Gap: gap}
}

// firstOf finds the first entry of a key at or after an index. The read lock is held when it is called
// and when it returns; on a long way back it is let go now and then so that the writer gets in.
func (l *Log) firstOf(from Index, key []byte, hash uint32) (i Index, found, behind bool) {
	if from < l.start || from > l.end {
		return 0, false, true
	}
	if from == l.end {
		return 0, false, false
	}
	if from > l.start {
		// A reader that was cut short stands right behind a record of the key.
		s := locate(l.segs, from-1)
		if e := s.at(from - 1); s.hasKey(e, key, hash) {
			return from - 1 + Index(e.next), e.next != 0, false
		}
	}
	i, found = l.newest(key, hash)
	if !found || i < from {
		return 0, false, false
	}
	s := locate(l.segs, i)
	for steps := 1; ; steps++ {
		if i < s.base {
			s = locate(l.segs, i)
		}
		back := Index(s.at(i).prev)
		if back == 0 || i-back < from {
			return i, true, false
		}
		i -= back
		if steps%lockStep == 0 {
			l.rw.RUnlock()
			l.rw.RLock()
			if from < l.start {
				return 0, false, true
			}
			s = locate(l.segs, i)
		}
	}
}

// ReadPrefix is like ReadKey for all keys that begin with a prefix; the null key begins with none. Its
// cost is the number of entries that the reader has missed, whatever their keys.
func (l *Log) ReadPrefix(from Index, prefix []byte, maxBytes int, items []Item) Read {
	l.rw.RLock()
	defer l.rw.RUnlock()
	if from < l.start || from > l.end {
		return Read{Behind: true}
	}
	var s *segment
	size := 0
	for i, steps := from, 1; ; i, steps = i+1, steps+1 {
		if steps%lockStep == 0 {
			l.rw.RUnlock()
			l.rw.RLock()
			if i < l.start {
				if size == 0 {
					return Read{Behind: true}
				}
				return Read{Items: items, Next: i} // the next read says it
			}
			s = nil
		}
		if i == l.end {
			return Read{Items: items, Next: i}
		}
		if s == nil || i >= s.end() {
			s = locate(l.segs, i)
		}
		e := s.at(i)
		if e.key == keyGap {
			_, gap := l.gapFrom(i)
			return Read{Items: items, Next: i + 1, Gap: gap}
		}
		if !s.hasPrefix(e, prefix) {
			continue
		}
		it := s.item(i)
		if size > 0 && size+len(it.Frame) > maxBytes {
			return Read{Items: items, Next: i}
		}
		items = append(items, it)
		size += max(1, len(it.Frame))
	}
}

func (s *segment) hasPrefix(e *entry, prefix []byte) bool {
	return e.key < keyGap && bytes.HasPrefix(s.keyAt(e.key), prefix)
}
