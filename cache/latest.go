package cache

// This file reads a log for those who want only the latest record of each key. An entry is the latest of its
// key before an index if the chain leads on to none before that index; so a reader needs no memory of the
// keys that it has seen.

// LatestKey returns the latest record of one key in [from, until), a nil key meaning the null key, appended
// to items; until is at most the end of the log. Its cost is the number of entries of the key from there to
// the end of the log. Next is until, unless a gap lies in front of it: then the gap is what the read returns,
// alone, where the record is behind it, and the record alone where the gap is. Any goroutine may call it. It
// allocates nothing when items has room.
func (l *Log) LatestKey(from, until Index, key []byte, items []Item) Read {
	hash := l.hash(key)
	l.rw.RLock()
	defer l.rw.RUnlock()
	if from < l.start || until > l.end {
		return Read{Behind: true}
	}
	i, found := l.newest(key, hash)
	for steps := 1; found && i >= until; steps++ {
		back := Index(locate(l.segs, i).at(i).prev)
		if found = back != 0 && i-back >= from; found {
			i -= back
		}
		if steps%lockStep == 0 {
			l.rw.RUnlock()
			l.rw.RLock()
			if from < l.start {
				return Read{Behind: true}
			}
		}
	}
	found = found && i >= from
	at, gap := l.gapFrom(from)
	switch {
	case gap != nil && at < until && !(found && i < at):
		return Read{Items: items, Next: at + 1, Gap: gap}
	case found && gap != nil && at < until:
		return Read{Items: append(items, locate(l.segs, i).item(i)), Next: i + 1}
	case found:
		return Read{Items: append(items, locate(l.segs, i).item(i)), Next: until}
	}
	return Read{Items: items, Next: until}
}

// LatestAll returns, in order and appended to items, the records in [from, until) that are each the latest of
// its key before until: at most maxBytes of frames, though at least one record when there is one. Going on
// from Next with the same until leaves none out and returns none twice. It stops at a gap as ReadPrefix does.
// Its cost is the number of entries passed. Any goroutine may call it. It allocates nothing when items has
// room.
func (l *Log) LatestAll(from, until Index, maxBytes int, items []Item) Read {
	return l.latestWhere(from, until, maxBytes, items, func(*segment, *entry) bool { return true })
}

// LatestPrefix is LatestAll for the keys that begin with a prefix; the null key begins with none.
func (l *Log) LatestPrefix(from, until Index, prefix []byte, maxBytes int, items []Item) Read {
	return l.latestWhere(from, until, maxBytes, items, func(s *segment, e *entry) bool { return s.hasPrefix(e, prefix) })
}

func (l *Log) latestWhere(from, until Index, maxBytes int, items []Item, match func(*segment, *entry) bool) Read {
	l.rw.RLock()
	defer l.rw.RUnlock()
	if from < l.start || until > l.end {
		return Read{Behind: true}
	}
	var s *segment
	size := 0
	for i, steps := from, 1; i < until; i, steps = i+1, steps+1 {
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
		if s == nil || i >= s.end() {
			s = locate(l.segs, i)
		}
		e := s.at(i)
		if e.key == keyGap {
			_, gap := l.gapFrom(i)
			return Read{Items: items, Next: i + 1, Gap: gap}
		}
		if e.next != 0 && i+Index(e.next) < until || !match(s, e) {
			continue
		}
		it := s.item(i)
		if size > 0 && size+len(it.Frame) > maxBytes {
			return Read{Items: items, Next: i}
		}
		items = append(items, it)
		size += max(1, len(it.Frame))
	}
	return Read{Items: items, Next: until}
}
