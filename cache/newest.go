package cache

import "slices"

// NewestAll returns the last n records of the log, oldest first; all of them when n is negative. Gaps
// are not records and do not end the search. Like the other two it may be called by any goroutine.
func (l *Log) NewestAll(n int) []Item {
	return l.newestWhere(n, func(_ *segment, e *entry) bool { return e.key != keyGap })
}

// NewestPrefix is NewestAll for the keys that begin with a prefix; the null key begins with none.
func (l *Log) NewestPrefix(prefix []byte, n int) []Item {
	return l.newestWhere(n, func(s *segment, e *entry) bool { return s.hasPrefix(e, prefix) })
}

// NewestKey is NewestAll for one key, nil meaning the null key. Its cost is the number returned.
func (l *Log) NewestKey(key []byte, n int) []Item {
	if n == 0 {
		return nil
	}
	hash := l.hash(key)
	var items []Item
	l.rw.RLock()
	defer l.rw.RUnlock()
	i, found := l.newest(key, hash)
	for steps := 1; found && i >= l.start; steps++ {
		s := locate(l.segs, i)
		items = append(items, s.item(i))
		back := Index(s.at(i).prev)
		if back == 0 || back > i || len(items) == n {
			break
		}
		i -= back
		if steps%lockStep == 0 {
			l.rw.RUnlock()
			l.rw.RLock()
		}
	}
	slices.Reverse(items)
	return items
}

// newestWhere walks back from the end of the log, letting the writer in now and then.
func (l *Log) newestWhere(n int, match func(*segment, *entry) bool) []Item {
	if n == 0 {
		return nil
	}
	var items []Item
	l.rw.RLock()
	defer l.rw.RUnlock()
	for i, steps := l.end, 1; i > l.start; steps++ {
		i--
		s := locate(l.segs, i)
		if match(s, s.at(i)) {
			items = append(items, s.item(i))
			if len(items) == n {
				break
			}
		}
		if steps%lockStep == 0 {
			l.rw.RUnlock()
			l.rw.RLock()
		}
	}
	slices.Reverse(items)
	return items
}
