package cache

import (
	"math"
	"slices"
)

// endOfLog is before which everything is that a log may ever hold.
const endOfLog = Index(math.MaxUint64)

// NewestAll returns the last n records of the log, oldest first; all of them when n is negative. Gaps
// are not records and do not end the search. Like the others it may be called by any goroutine. The
// result has an item for each record: who may be asked for many goes back in steps, with the Older ones.
func (l *Log) NewestAll(n int) []Item { return l.OlderAll(endOfLog, n) }

// NewestPrefix is NewestAll for the keys that begin with a prefix; the null key begins with none.
func (l *Log) NewestPrefix(prefix []byte, n int) []Item { return l.OlderPrefix(endOfLog, prefix, n) }

// NewestKey is NewestAll for one key, nil meaning the null key. Its cost is the number returned.
func (l *Log) NewestKey(key []byte, n int) []Item { return l.OlderKey(endOfLog, key, n) }

// OlderAll returns the last n records in front of an index, oldest first. Fewer than n say that there are
// no more.
func (l *Log) OlderAll(before Index, n int) []Item {
	return l.olderWhere(before, n, func(_ *segment, e *entry) bool { return e.key != keyGap })
}

// OlderPrefix is OlderAll for the keys that begin with a prefix.
func (l *Log) OlderPrefix(before Index, prefix []byte, n int) []Item {
	return l.olderWhere(before, n, func(s *segment, e *entry) bool { return s.hasPrefix(e, prefix) })
}

// OlderKey is OlderAll for one key. Its cost is the number returned if there is a record of the key at
// the index, else the number of those behind it too.
func (l *Log) OlderKey(before Index, key []byte, n int) []Item {
	if n == 0 {
		return nil
	}
	hash := l.hash(key)
	var items []Item
	l.rw.RLock()
	defer l.rw.RUnlock()
	i, found := l.newest(key, hash)
	if before > l.start && before < l.end {
		if s := locate(l.segs, before); s.hasKey(s.at(before), key, hash) {
			i, found = before, true
		}
	}
	for steps := 1; found && i >= l.start; steps++ {
		s := locate(l.segs, i)
		if i < before {
			items = append(items, s.item(i))
		}
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

// olderWhere walks back from an index, letting the writer in now and then.
func (l *Log) olderWhere(before Index, n int, match func(*segment, *entry) bool) []Item {
	if n == 0 {
		return nil
	}
	var items []Item
	l.rw.RLock()
	defer l.rw.RUnlock()
	for i, steps := min(before, l.end), 1; i > l.start; steps++ {
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
