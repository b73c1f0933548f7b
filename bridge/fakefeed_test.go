package bridge

import (
	"errors"
	"slices"
	"sync"
)

// A fakeFeed reads for one node. Its one goroutine ends with close.
type fakeFeed struct {
	k     *fakeKafka
	limit int
	sink  FeedSink

	mu     sync.Mutex
	last   uint64
	runs   map[TopicPartition]*fakeRun
	starts map[TopicPartition][]Offset
	wake   chan struct{}
	quit   chan struct{}
	wg     sync.WaitGroup
}

type fakeRun struct {
	run  uint64
	next Offset
	last LeaderEpoch
	open int
}

func newFeed(k *fakeKafka, sink FeedSink) *fakeFeed {
	f := &fakeFeed{
		k: k, limit: 1000, sink: sink, runs: make(map[TopicPartition]*fakeRun),
		starts: make(map[TopicPartition][]Offset), wake: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	f.wg.Go(f.run)
	return f
}

func (f *fakeFeed) close() {
	close(f.quit)
	f.wg.Wait()
}

func (f *fakeFeed) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fakeFeed) Start(tp TopicPartition, from FeedStart) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.runs[tp] = &fakeRun{run: f.last, next: from.Next, last: from.Leader}
	f.starts[tp] = append(f.starts[tp], from.Next)
	f.poke()
	return f.last
}

func (f *fakeFeed) Stop(tp TopicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.runs, tp)
}

func (f *fakeFeed) Done(tp TopicPartition, run uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.runs[tp]; r != nil && r.run == run {
		if r.open--; r.open < 0 {
			panic("a Fetched was given back twice")
		}
	}
	f.poke()
}

// idle says whether tp is being read and everything was given back.
func (f *fakeFeed) idle(tp TopicPartition) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.runs[tp]
	return r != nil && r.open == 0
}

func (f *fakeFeed) startsOf(tp TopicPartition) []Offset {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.starts[tp])
}

func (f *fakeFeed) run() {
	for {
		f.k.mu.Lock()
		changed := f.k.changed
		f.k.mu.Unlock()
		for f.round() {
		}
		select {
		case <-f.wake:
		case <-changed:
		case <-f.quit:
			return
		}
	}
}

// round fetches once for each partition and says whether that brought anything.
func (f *fakeFeed) round() (more bool) {
	f.mu.Lock()
	var calls []func()
	for tp, r := range f.runs {
		if r.open >= 2 {
			continue
		}
		run := r.run
		got, _, err := f.k.fetch(tp, r.next, r.last, f.limit)
		var out *OffsetOutOfRangeError
		var div *diverged
		at := r.next
		switch {
		case errors.As(err, &out):
			delete(f.runs, tp)
			calls = append(calls, func() { f.sink.OutOfRange(run, tp, out.At, out.LogStart, out.LogEnd) })
		case errors.As(err, &div):
			delete(f.runs, tp)
			calls = append(calls, func() { f.sink.Diverged(run, tp, at, div.leader, div.end) })
		case err == nil && got.Next > r.next:
			r.open++
			r.last = max(r.last, got.Leader)
			r.next = got.Next
			calls = append(calls, func() { f.sink.Fetched(run, got) })
		}
	}
	f.mu.Unlock()
	for _, call := range calls {
		call()
	}
	return len(calls) > 0
}
