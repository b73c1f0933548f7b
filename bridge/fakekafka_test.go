package bridge

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A fakePart is one partition: offsets [start, end), some of which hold records.
type fakePart struct {
	start, end Offset
	records    []Record
	leaders    leaderList // each with where it began; none: its batches tell no leader epoch
}

// leaderOf is the epoch of what is at offset o, and where that ends.
func (p *fakePart) leaderOf(o Offset) (LeaderEpoch, Offset) {
	leader, end := NoLeaderEpoch, p.end
	for _, s := range slices.Backward(p.leaders) {
		if s.First <= o {
			leader = s.Leader
			break
		}
		end = s.First
	}
	return leader, end
}

// epochEnd is Kafka's answer to OffsetForLeaderEpoch.
func (p *fakePart) epochEnd(leader LeaderEpoch) (LeaderEpoch, Offset) {
	end := p.end
	for _, s := range slices.Backward(p.leaders) {
		if s.Leader <= leader {
			return s.Leader, end
		}
		end = s.First
	}
	return NoLeaderEpoch, -1
}

func (p *fakePart) append(r Record) Offset {
	r.Offset = p.end
	if r.Timestamp == 0 {
		r.Timestamp = time.Now().UnixMilli()
	}
	p.records = append(p.records, r)
	p.end++
	return r.Offset
}

type fakeKafka struct {
	mu           sync.Mutex
	parts        map[TopicPartition]*fakePart
	committed    map[TopicPartition]CommitOffset
	commitsAsked int
	away         bool
	changed      chan struct{} // closed and made anew at every change
	// produce decides what becomes of a write: whether it is written and what the caller is told.
	// It is called without the lock.
	produce func(tp TopicPartition, r Record) (write bool, err error)
	writes  int
	ids     map[string]TopicID
	asked   func() // somebody asks for a topic's id
}

func newKafka() *fakeKafka {
	return &fakeKafka{
		parts:     make(map[TopicPartition]*fakePart),
		committed: make(map[TopicPartition]CommitOffset),
		changed:   make(chan struct{}),
		ids:       make(map[string]TopicID),
	}
}

// do changes Kafka.
func (k *fakeKafka) do(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *fakeKafka) part(tp TopicPartition) *fakePart {
	p := k.parts[tp]
	if p == nil {
		p = new(fakePart)
		k.parts[tp] = p
	}
	return p
}

// write appends records with a key and values, and returns the first offset.
func (k *fakeKafka) write(tp TopicPartition, key string, values ...string) (first Offset) {
	k.do(func() {
		p := k.part(tp)
		first = p.end
		for _, v := range values {
			r := Record{Value: []byte(v)}
			if key != "" {
				r.Key = []byte(key)
			}
			p.append(r)
		}
	})
	return first
}

func (k *fakeKafka) truncate(tp TopicPartition, end Offset) {
	k.do(func() {
		p := k.part(tp)
		p.end = end
		p.records = slices.DeleteFunc(slices.Clone(p.records), func(r Record) bool { return r.Offset >= end })
	})
}

// elect makes another broker the leader, which has the log up to end.
func (k *fakeKafka) elect(tp TopicPartition, end Offset) {
	k.truncate(tp, end)
	k.do(func() {
		p := k.part(tp)
		epoch := p.leaders.last() + 1
		for len(p.leaders) > 0 && p.leaders[len(p.leaders)-1].First >= end {
			p.leaders = p.leaders[:len(p.leaders)-1]
		}
		p.leaders = append(p.leaders, leaderStart{epoch, end})
	})
}

func (k *fakeKafka) evict(tp TopicPartition, start Offset) {
	k.do(func() {
		p := k.part(tp)
		p.start, p.end = start, max(p.end, start)
		p.records = slices.DeleteFunc(slices.Clone(p.records), func(r Record) bool { return r.Offset < start })
	})
}

func (k *fakeKafka) values(tp TopicPartition) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.part(tp).records {
		out = append(out, string(r.Value))
	}
	return out
}

// look calls f with a partition, or returns errAway.
func (k *fakeKafka) look(tp TopicPartition, f func(p *fakePart)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errAway
	}
	f(k.part(tp))
	return nil
}

func (k *fakeKafka) Earliest(_ context.Context, tp TopicPartition) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { o = p.start })
	return o, err
}

func (k *fakeKafka) Latest(_ context.Context, tp TopicPartition) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { o = p.end })
	return o, err
}

func (k *fakeKafka) AtTime(_ context.Context, tp TopicPartition, t time.Time) (o Offset, err error) {
	err = k.look(tp, func(p *fakePart) {
		o = p.end
		for _, r := range slices.Backward(p.records) {
			if r.Timestamp >= t.UnixMilli() {
				o = r.Offset
			}
		}
	})
	return o, err
}

func (k *fakeKafka) EpochEnd(_ context.Context, tp TopicPartition, leader LeaderEpoch) (l LeaderEpoch, o Offset, err error) {
	err = k.look(tp, func(p *fakePart) { l, o = p.epochEnd(leader) })
	return l, o, err
}

func (k *fakeKafka) TopicID(_ context.Context, topic string) (TopicID, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked != nil {
		k.asked()
	}
	return k.ids[topic], nil
}

func (k *fakeKafka) Committed(_ context.Context, tps []TopicPartition) (map[TopicPartition]CommitOffset, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return nil, errAway
	}
	k.commitsAsked++
	out := make(map[TopicPartition]CommitOffset)
	for _, tp := range tps {
		if c, ok := k.committed[tp]; ok {
			out[tp] = c
		}
	}
	return out, nil
}

func (k *fakeKafka) askedForCommits() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.commitsAsked
}

func (k *fakeKafka) Produce(ctx context.Context, tp TopicPartition, r Record) (Produced, error) {
	k.mu.Lock()
	hook := k.produce
	k.mu.Unlock()
	write, err := true, error(nil)
	if hook != nil {
		write, err = hook(tp, r)
	}
	var o Offset
	k.do(func() {
		if k.away {
			write, err = false, errAway
		}
		if write {
			k.writes++
			o = k.part(tp).append(r)
		}
	})
	if err == nil {
		err = ctx.Err() // written, but the caller is not told
	}
	return Produced{Offset: o, Timestamp: r.Timestamp}, err
}

// fetch returns up to limit records of tp from an offset on, or blocks nothing: next == from when there
// is nothing yet.
// last is the leader epoch of what the reader has read: a *diverged tells it of a truncation.
func (k *fakeKafka) fetch(tp TopicPartition, from Offset, last LeaderEpoch, limit int) (f Fetched, changed chan struct{}, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed = k.changed
	if k.away {
		return f, changed, errAway
	}
	p := k.part(tp)
	if leader, end := p.epochEnd(last); last >= 0 && from >= p.start && (leader < last || end < from) {
		return f, changed, &diverged{leader, end}
	}
	if from < p.start || from > p.end {
		return f, changed, &OffsetOutOfRangeError{TP: tp, At: from, LogStart: p.start, LogEnd: p.end}
	}
	f = Fetched{TP: tp, From: from, LogStart: p.start, End: p.end}
	f.Leader, f.Next = p.leaderOf(from)
	for _, r := range p.records {
		if r.Offset < from {
			continue
		}
		if r.Offset >= f.Next {
			break
		}
		if len(f.Records) == limit {
			f.Next = r.Offset
			break
		}
		f.Records = append(f.Records, r)
	}
	return f, changed, nil
}

type diverged struct {
	leader LeaderEpoch
	end    Offset
}

func (d *diverged) Error() string { return "the logs part" }

func (k *fakeKafka) Replay(ctx context.Context, r ReplayRange, emit func(Fetched) error) error {
	for from := r.From; r.To < 0 || from < r.To; {
		f, changed, err := k.fetch(r.TP, from, NoLeaderEpoch, 3)
		if id, _ := k.TopicID(ctx, r.TP.Topic); err == nil && !r.Topic.IsZero() && !id.IsZero() && id != r.Topic {
			err = ErrAnotherTopic
		}
		if err != nil {
			return err
		}
		if f.Next == from {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if r.To >= 0 && f.Next > r.To {
			f.Next = r.To
			f.Records = slices.DeleteFunc(f.Records, func(rec Record) bool { return rec.Offset >= r.To })
		}
		if err := emit(f); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
		from = f.Next
	}
	return nil
}
