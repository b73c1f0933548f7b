package replication

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// ErrWriteTimeout: the disk did not finish a write of the Raft log in time.
var ErrWriteTimeout = errors.New("write to the Raft log hangs")

// writeSteps is in how many steps the time of a write is counted.
const writeSteps = 10

// tailBytes is how much of the end of a log is kept in memory, by group.
const tailBytes = 2 << 20

// logStore is the raft.LogStore that a group uses: the store behind it, with two additions.
//
// A write that hangs fails after timeout. The library's heartbeats do not touch the disk, so without
// this a leader whose disk hangs stays leader for ever and commits nothing. All writes fail from then on
// until the hung one has ended; should it end well after all, what it wrote is taken out again, for
// the library has been told that it is not there (and would offer the same indexes anew, which raft-wal
// refuses). Other errors of writing are reported through failed: they do not pass by themselves.
//
// The library panics when it cannot read an entry that it is to apply. A flipped byte on one disk is not
// worth a crash without a word: it is reported through unreadable, which ends the process in order, and the
// goroutine that wanted the entry ends here, for it must not go on without it (as in stablestore.go).
//
// The last entries are kept in memory: a follower reads each entry when it is committed, the leader
// for each follower, and both soon after it was written.
type logStore struct {
	inner   raft.LogStore
	timeout time.Duration
	failed  func(error) // told of an error that does not pass; must not block
	// unreadable is told of an entry that is there and cannot be read; must not block. Only once live is
	// set: until then the caller of Open reads, and can be told by an error.
	unreadable func(index uint64, err error)
	live       atomic.Bool
	// gaveUp, if not nil, is told once live is set that a write was not waited for any longer; must not block.
	gaveUp func()

	req  chan writeReq
	done chan struct{}
	wg   sync.WaitGroup

	lastHang atomic.Int64 // when a write was last given up, in unix ns; 0: never
	// hung says that a write was given up and has not ended. Written under mu; read without, by those who
	// must not wait for a disk.
	hung atomic.Bool

	mu    sync.Mutex
	tail  []*raft.Log // consecutive, the newest last
	bytes int
}

type writeReq struct {
	logs     []*raft.Log // to store, or
	min, max uint64      // to delete
	answer   chan error  // holds one
}

func newLogStore(inner raft.LogStore, timeout time.Duration, failed func(error)) *logStore {
	s := &logStore{inner: inner, timeout: timeout, failed: failed, req: make(chan writeReq, 1), done: make(chan struct{})}
	s.wg.Add(1)
	go s.write()
	return s
}

// close ends the writer. A write that hangs is not waited for longer than timeout.
func (s *logStore) close() {
	close(s.done)
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(s.timeout):
	}
}

// write is the one goroutine that touches the disk for writing.
func (s *logStore) write() {
	defer s.wg.Done()
	for {
		select {
		case r := <-s.req:
			err := s.do(r)
			s.mu.Lock()
			if s.hung.Load() {
				// Nobody waits any more.
				if err == nil && r.logs != nil {
					err = s.inner.DeleteRange(r.logs[0].Index, r.logs[len(r.logs)-1].Index)
				}
				s.hung.Store(false)
				s.dropTail()
			}
			r.answer <- err // under the lock: submit decides under it that no answer has come
			s.mu.Unlock()
			if err != nil {
				s.failed(err)
			}
		case <-s.done:
			return
		}
	}
}

func (s *logStore) do(r writeReq) error {
	if r.logs != nil {
		return s.inner.StoreLogs(r.logs)
	}
	return s.inner.DeleteRange(r.min, r.max)
}

// submit has the writer do r and waits up to timeout.
func (s *logStore) submit(r writeReq) error {
	if s.hung.Load() {
		return ErrWriteTimeout
	}
	r.answer = make(chan error, 1)
	select {
	case s.req <- r:
	case <-s.done:
		return raft.ErrRaftShutdown
	}
	// In steps: a time in which this process itself stood still (stopped, or its machine paused) says nothing
	// about the disk, and counts as one step however long it was.
	t := time.NewTicker(s.timeout / writeSteps)
	defer t.Stop()
	for range writeSteps {
		select {
		case err := <-r.answer:
			return err
		case <-t.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case err := <-r.answer: // just in time
		return err
	default:
	}
	s.hung.Store(true)
	s.lastHang.Store(time.Now().UnixNano())
	s.dropTail()
	if s.gaveUp != nil && s.live.Load() {
		s.gaveUp()
	}
	return fmt.Errorf("%w: over %v", ErrWriteTimeout, s.timeout)
}

// hangs says whether a write that was given up has not ended yet.
func (s *logStore) hangs() bool {
	return s.hung.Load()
}

func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	if err := s.submit(writeReq{logs: logs}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		if n := len(s.tail); n > 0 && s.tail[n-1].Index+1 != l.Index {
			s.dropTail()
		}
		s.tail = append(s.tail, l)
		s.bytes += len(l.Data)
	}
	cut := 0
	for cut < len(s.tail)-1 && (s.bytes > tailBytes || len(s.tail)-cut > 4*maxAppendEntries) {
		s.bytes -= len(s.tail[cut].Data)
		cut++
	}
	if cut > 0 {
		n := copy(s.tail, s.tail[cut:])
		clear(s.tail[n:])
		s.tail = s.tail[:n]
	}
	return nil
}

func (s *logStore) DeleteRange(min, max uint64) error {
	s.mu.Lock()
	s.dropTail()
	s.mu.Unlock()
	return s.submit(writeReq{min: min, max: max})
}

func (s *logStore) dropTail() {
	clear(s.tail)
	s.tail, s.bytes = s.tail[:0], 0
}

func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	s.mu.Lock()
	if len(s.tail) > 0 && index >= s.tail[0].Index && index-s.tail[0].Index < uint64(len(s.tail)) {
		*l = *s.tail[index-s.tail[0].Index]
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	err := s.inner.GetLog(index, l)
	if err == nil || !s.live.Load() || !s.has(index) {
		return err // the library asks for what has been cut, and can do without
	}
	// Between the two looks it may have been cut and written anew.
	if err = s.inner.GetLog(index, l); err == nil {
		return nil
	}
	s.unreadable(index, err)
	runtime.Goexit()
	return err
}

// has says whether the store should have an entry.
func (s *logStore) has(index uint64) bool {
	first, err1 := s.inner.FirstIndex()
	last, err2 := s.inner.LastIndex()
	return err1 == nil && err2 == nil && first <= index && index <= last
}

func (s *logStore) FirstIndex() (uint64, error) { return s.inner.FirstIndex() }
func (s *logStore) LastIndex() (uint64, error)  { return s.inner.LastIndex() }

// IsMonotonic tells the library that gaps are not possible (raft.MonotonicLogStore).
func (s *logStore) IsMonotonic() bool {
	m, ok := s.inner.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}
