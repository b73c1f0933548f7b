package cache

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Store owns the logs of a node. It may be used by any number of goroutines.
type Store struct {
	// Set once.
	cfg       Config
	seed      maphash.Seed
	rollAfter int64 // how long a segment takes entries, in milliseconds
	ttl       int64 // milliseconds
	listener  func(*Log)

	bytes   atomic.Int64
	records atomic.Int64
	evicted atomic.Int64
	expired atomic.Int64

	evict sync.Mutex // held while memory is being freed; guards queue and Log.place
	queue evictionQueue

	mu   sync.RWMutex
	logs map[string][]*Log // by topic, in order of partition
}

// Stats is one look at a Store. The numbers are each exact but not taken at one instant.
type Stats struct {
	Bytes    int64 // held by all logs, overhead and unused room included
	Budget   int64
	Records  int64 // that can be read
	Segments int64
	Evicted  int64 // records that left for want of memory, since the start
	Expired  int64 // records that left because of their age, since the start
}

// The defaults of Config and the limits of its fields.
const (
	DefaultBudget = 64 << 20
	DefaultTTL    = 10 * time.Minute

	minSegmentBytes = 16 << 10
	maxSegmentBytes = 1 << 20
	// segmentsPerBudget is the least number of segments the budget must hold, so that the memory
	// freed in one step is a small part of it. It wins over a greater SegmentBytes.
	segmentsPerBudget = 8
	// segmentsPerTTL is how many segments a log has over the TTL at least: a record's memory is
	// held at most an eighth longer than the record.
	segmentsPerTTL = 8
)

// NewStore makes an empty store. Fields of the configuration that are zero or negative get their
// defaults.
func NewStore(cfg Config) *Store {
	if cfg.Budget <= 0 {
		cfg.Budget = DefaultBudget
	}
	if cfg.TTL <= 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.SegmentBytes <= 0 {
		cfg.SegmentBytes = int(min(max(cfg.Budget/64, minSegmentBytes), maxSegmentBytes))
	}
	cfg.SegmentBytes = int(max(1, min(int64(cfg.SegmentBytes), cfg.Budget/segmentsPerBudget, maxArena/2)))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{
		cfg:       cfg,
		seed:      maphash.MakeSeed(),
		rollAfter: min(cfg.TTL.Milliseconds()/segmentsPerTTL, 1<<31),
		ttl:       cfg.TTL.Milliseconds(),
		logs:      make(map[string][]*Log),
	}
}

// OnAppend sets the one function that is called after each Append, AppendGap, Reset and Drop, by the
// goroutine that made the change and with no lock held. It must not block. Set it before the first
// Append.
func (s *Store) OnAppend(f func(*Log)) { s.listener = f }

func (s *Store) notify(l *Log) {
	if s.listener != nil {
		s.listener(l)
	}
}

func (s *Store) now() int64 { return s.cfg.Now().UnixMilli() }

// Log returns the log of a partition, making it if there is none. The pointer stays the same until the
// log is dropped.
func (s *Store) Log(topic string, partition int32) *Log {
	if l, ok := s.Lookup(topic, partition); ok {
		return l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := s.logs[topic]
	at, ok := find(logs, partition)
	if ok {
		return logs[at]
	}
	l := &Log{store: s, topic: strings.Clone(topic), partition: partition}
	l.account()
	s.logs[l.topic] = slices.Insert(slices.Clone(logs), at, l)
	return l
}

// Lookup returns the log of a partition if there is one.
func (s *Store) Lookup(topic string, partition int32) (*Log, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	logs := s.logs[topic]
	at, ok := find(logs, partition)
	if !ok {
		return nil, false
	}
	return logs[at], true
}

// Logs returns the logs of a topic in order of partition. The slice is shared: it must not be changed,
// and will not be.
func (s *Store) Logs(topic string) []*Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clip(s.logs[topic])
}

func find(logs []*Log, partition int32) (int, bool) {
	return slices.BinarySearchFunc(logs, partition, func(l *Log, p int32) int { return cmp.Compare(l.partition, p) })
}

// Drop forgets a partition. Whoever still holds its log finds it empty, as after Reset to its head, and
// what is appended to it is lost.
func (s *Store) Drop(topic string, partition int32) {
	s.mu.Lock()
	logs := s.logs[topic]
	at, ok := find(logs, partition)
	if !ok {
		s.mu.Unlock()
		return
	}
	l := logs[at]
	if len(logs) == 1 {
		delete(s.logs, topic)
	} else {
		s.logs[topic] = slices.Delete(slices.Clone(logs), at, at+1)
	}
	s.mu.Unlock()

	l.mu.Lock()
	l.reset(l.head)
	l.dropped = true
	l.build = builder{}
	s.bytes.Add(-l.counted)
	l.counted = 0
	l.mu.Unlock()
	s.dequeue(l)
	s.notify(l)
}

// Sweep lets go of what is older than the TTL and restores the budget. Its owner calls it about once a
// second, from one goroutine.
func (s *Store) Sweep() {
	before := s.now() - s.ttl
	for _, l := range s.all() {
		if l.oldest.Load() == noOldest {
			continue
		}
		s.expired.Add(l.expire(before))
	}
	s.evictFor(nil, 0)
}

// Stats counts what the store holds.
func (s *Store) Stats() Stats {
	st := Stats{
		Bytes:   s.bytes.Load(),
		Budget:  s.cfg.Budget,
		Records: s.records.Load(),
		Evicted: s.evicted.Load(),
		Expired: s.expired.Load(),
	}
	for _, l := range s.all() {
		l.rw.RLock()
		st.Segments += int64(len(l.segs))
		l.rw.RUnlock()
	}
	return st
}

func (s *Store) all() []*Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*Log
	for _, logs := range s.logs {
		all = append(all, logs...)
	}
	return all
}
