package cache

import "container/heap"

// Eviction frees whole segments while the store is over its budget, first the one whose newest record
// is the oldest of all logs. The goroutine that appended does it, after its own records are published
// and its own locks released: one appender may wait for another log's batch to be encoded, no reader
// of a third log waits for anything.

// evictionQueue is a heap of the logs that are not empty, by the age of their first segment. A log's
// age is noted when it is put in; the true one can only have moved on since, so a log that comes to
// the top is checked, and put back further down if it did. That way appending costs the queue nothing.
type evictionQueue []queuedLog

type queuedLog struct {
	log    *Log
	oldest int64
}

func (q evictionQueue) Len() int           { return len(q) }
func (q evictionQueue) Less(i, j int) bool { return q[i].oldest < q[j].oldest }
func (q evictionQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].log.place, q[j].log.place = i+1, j+1
}
func (q *evictionQueue) Push(x any) {
	*q = append(*q, x.(queuedLog))
	x.(queuedLog).log.place = len(*q)
}
func (q *evictionQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	last.log.place = 0
	old[len(old)-1] = queuedLog{}
	*q = old[:len(old)-1]
	return last
}

// enqueue enters a log that was empty and is not any more.
func (s *Store) enqueue(l *Log) {
	s.evict.Lock()
	defer s.evict.Unlock()
	s.push(l)
}

func (s *Store) push(l *Log) {
	switch oldest := l.oldest.Load(); {
	case oldest == noOldest:
	case l.place == 0:
		heap.Push(&s.queue, queuedLog{l, oldest})
	default: // it was emptied and filled again, maybe with older records, as after Reset
		s.queue[l.place-1].oldest = oldest
		heap.Fix(&s.queue, l.place-1)
	}
}

// dequeue takes out a log that is gone for good.
func (s *Store) dequeue(l *Log) {
	s.evict.Lock()
	defer s.evict.Unlock()
	if l.place != 0 {
		heap.Remove(&s.queue, l.place-1)
	}
}

// oldestLog returns the log at the top of the queue, nil when all are empty.
func (s *Store) oldestLog() *Log {
	for len(s.queue) > 0 {
		top := &s.queue[0]
		switch oldest := top.log.oldest.Load(); {
		case oldest == noOldest:
			heap.Pop(&s.queue)
		case oldest != top.oldest:
			top.oldest = oldest
			heap.Fix(&s.queue, 0)
		default:
			return top.log
		}
	}
	return nil
}

// evictFor restores the budget. The segments that hold the entries of log `mine` from index `keep` on
// go only when nothing else is left. mine may be nil.
func (s *Store) evictFor(mine *Log, keep Index) {
	if s.bytes.Load() <= s.cfg.Budget {
		return
	}
	s.evict.Lock()
	defer s.evict.Unlock()
	spared := false
	for s.bytes.Load() > s.cfg.Budget {
		l := s.oldestLog()
		if l == nil {
			break
		}
		limit := noLimit
		if l == mine {
			limit = keep
		}
		if l.evictOldest(limit) {
			continue
		}
		// What is left of this log was just appended: look at the others first.
		if l == mine {
			spared = true
			heap.Pop(&s.queue)
		}
	}
	if !spared {
		return
	}
	for s.bytes.Load() > s.cfg.Budget && mine.evictOldest(noLimit) {
	}
	s.push(mine)
}

const noLimit = ^Index(0)

// evictOldest lets go of the oldest segment if it ends at or before limit, and says whether it did.
func (l *Log) evictOldest(limit Index) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segs) == 0 || l.segs[0].end() > limit {
		return false
	}
	l.store.evicted.Add(l.dropSegment())
	l.settle()
	return true
}
