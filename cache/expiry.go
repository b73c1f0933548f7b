package cache

import "math"

// What leaves a log leaves at its start: record by record when it is older than the TTL, by the whole
// segment when the store needs memory. A record that has left cannot be read any more; its memory is
// free once the last record of its segment has left.

// noOldest stands for an empty log.
const noOldest = math.MaxInt64

// expire lets go of the records that arrived at or before a time in unix milliseconds, and returns how
// many they were.
func (l *Log) expire(before int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var gone int64
	for len(l.segs) > 0 {
		s := l.segs[0]
		if s.newest <= before {
			gone += l.dropSegment()
			continue
		}
		to := max(l.start, s.base)
		for s.arrivedAt(to) <= before { // ends: the newest is younger
			to++
		}
		gone += l.dropTo(to)
		break
	}
	l.settle()
	return gone
}

// dropSegment lets go of the oldest segment and returns how many records that took. The caller holds
// mu and calls settle afterwards.
func (l *Log) dropSegment() int64 { return l.dropTo(l.segs[0].end()) }

// dropTo moves the start of the log to an index within the oldest segment or at its end. The write
// lock is held for a bounded number of entries at a time.
func (l *Log) dropTo(to Index) int64 {
	var gone int64
	s := l.segs[0]
	for l.start < to {
		l.rw.Lock()
		for stop := min(to, l.start+lockStep); l.start < stop; l.start++ {
			e := s.at(l.start)
			switch e.key {
			case keyGap:
				l.gaps[0] = gapEntry{}
				l.gaps = l.gaps[1:]
				gone--
			case keyNull:
				if l.nullLast == uint64(l.start)+1 {
					l.nullLast = 0
				}
			default:
				l.index.remove(e.hash, l.start)
			}
			l.base = Position{e.epoch, e.seqno}
			gone++
		}
		if l.start == s.end() {
			// The array moves rather than the slice, so that what is in front is not held.
			l.segBytes -= s.bytes()
			copy(l.segs, l.segs[1:])
			l.segs[len(l.segs)-1] = nil
			l.segs = l.segs[:len(l.segs)-1]
		}
		l.rw.Unlock()
	}
	l.store.records.Add(-gone)
	return gone
}

// settle gives back what the tables no longer need and brings the accounts up to date after entries
// have left. The caller holds mu.
func (l *Log) settle() {
	if index := l.index.shrunk(); len(index.slots) != len(l.index.slots) {
		l.rw.Lock()
		l.index = index
		l.rw.Unlock()
	}
	l.account()
}

// account brings the store's byte count and the log's place in the order of eviction up to date. The
// caller holds mu.
func (l *Log) account() {
	now := l.bytes()
	l.store.bytes.Add(now - l.counted)
	l.counted = now
	if len(l.segs) == 0 {
		l.oldest.Store(noOldest)
	} else {
		l.oldest.Store(l.segs[0].newest)
	}
}

// records counts the entries held that are not gaps. The caller holds mu.
func (l *Log) records() int64 { return int64(l.end-l.start) - int64(len(l.gaps)) }
