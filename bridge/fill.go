package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A filler reads back from Kafka what the cache of a starting node should hold: the records of the
// last TTL, up to the partition's share of the budget. A filling that fails is given up: the node
// then begins with what Raft brings, and resumes that reach further back are served from Kafka.
type filler struct {
	b    *Bridge
	wake chan struct{}

	mu    sync.Mutex
	queue []*partition
}

const (
	fillWorkers = 4
	fillTimeout = 60 * time.Second
	// fillAsk bounds the questions about offsets, so that a Kafka that is away delays a start little.
	fillAsk = 5 * time.Second
	// fillSample is how many records are read to learn a partition's record size.
	fillSample = 64
)

func newFiller(b *Bridge) *filler { return &filler{b: b, wake: make(chan struct{}, fillWorkers)} }

func (f *filler) add(p *partition) {
	f.mu.Lock()
	f.queue = append(f.queue, p)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *filler) take() *partition {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.queue) == 0 {
		return nil
	}
	p := f.queue[0]
	f.queue = f.queue[1:]
	return p
}

func (f *filler) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range fillWorkers {
		wg.Go(func() {
			for {
				for p := f.take(); p != nil; p = f.take() {
					f.fill(ctx, p)
				}
				select {
				case <-f.wake:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Wait()
}

// errOvertaken: another filling has begun, or this one was given up.
var errOvertaken = errors.New("overtaken")

func (f *filler) fill(ctx context.Context, p *partition) {
	p.mu.Lock()
	taken, run, to := !p.filling || p.fillTaken == p.fillRun, p.fillRun, p.fillTo
	p.fillTaken = run
	p.mu.Unlock()
	if taken { // a partition is queued at each change while it is being filled
		return
	}
	begun := time.Now()
	n, err := f.read(ctx, p, run, to)
	p.mu.Lock()
	if p.filling && p.fillRun == run {
		p.endFill(err == nil)
	}
	p.mu.Unlock()
	log := f.b.log.With().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).Logger()
	switch {
	case errors.Is(err, errOvertaken):
	case err != nil:
		log.Warn().Err(err).Msg("cache not filled: it begins with what arrives now")
	default:
		log.Info().Int("records", n).Dur("took_ms", time.Since(begun)).Msg("cache filled")
	}
}

// read puts the records before to into the log.
func (f *filler) read(ctx context.Context, p *partition, run int, to Offset) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	from, err := f.from(ctx, p, to)
	if err != nil || from >= to {
		return 0, err
	}
	begun := false
	err = f.b.cfg.Replayer.Replay(ctx, p.replayRange(from, to), func(part Fetched) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.filling || p.fillRun != run {
			return errOvertaken
		}
		if !p.ledger.leaders.holds(part, min(part.Next, to)) {
			return fmt.Errorf("offset %d: %w", part.From, errMoved)
		}
		if !begun {
			begun = true
			p.log.Reset(p.ledger.before(from))
		}
		next := min(part.Next, to)
		s := p.ledger.stampOld(part.Records, next)
		n += len(s.Records)
		var arrived time.Time
		if len(s.Records) > 0 { // their age counts, not that of the filling
			arrived = time.UnixMilli(s.Records[len(s.Records)-1].Timestamp)
		}
		p.append(s, arrived)
		if next == to {
			return ErrStop
		}
		return nil
	})
	if err == nil && !begun {
		return 0, fmt.Errorf("nothing could be read up to offset %d", to)
	}
	return n, err
}

// from returns the offset at which the filling begins.
func (f *filler) from(ctx context.Context, p *partition, to Offset) (Offset, error) {
	ask, cancel := context.WithTimeout(ctx, fillAsk)
	defer cancel()
	select {
	case <-f.b.known:
	case <-ask.Done():
		return 0, fmt.Errorf("the topics of Kafka are not known: %w", ask.Err())
	}
	if m, ok := f.b.topicMeta(p.tp.Topic); !ok || !m.Exposed {
		return to, nil // nobody can ask for it
	}
	from, err := f.b.cfg.Offsets.AtTime(ask, p.tp, time.Now().Add(-f.b.cfg.CacheTTL))
	if err != nil {
		return 0, err
	}
	earliest, err := f.b.cfg.Offsets.Earliest(ask, p.tp)
	if err != nil {
		return 0, err
	}
	p.mu.RLock()
	// Never before the epoch in force: a log holds positions in rising order, and across epochs
	// offsets need not rise.
	from = max(from, earliest, p.ledger.fillable(to))
	p.mu.RUnlock()
	if from >= to {
		return to, nil
	}
	return f.withinBudget(ctx, p, from, to)
}

// withinBudget moves from up so that the range fits the partition's share of the cache, by the size of
// a few records just before to.
func (f *filler) withinBudget(ctx context.Context, p *partition, from, to Offset) (Offset, error) {
	if to-from <= fillSample {
		return from, nil
	}
	bytes, records := 0, 0
	err := f.b.cfg.Replayer.Replay(ctx, p.replayRange(to-fillSample, to), func(part Fetched) error {
		bytes += batchBytes(part.Records)
		records += len(part.Records)
		if part.Next >= to {
			return ErrStop
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if records == 0 {
		return from, nil
	}
	f.b.mu.RLock()
	partitions := len(f.b.parts)
	f.b.mu.RUnlock()
	const frameOverhead = 160 // the JSON around a value, and the entry
	stats := f.b.cfg.Cache.Stats()
	fit := Offset(stats.Budget / int64(max(partitions, 1)) / int64(bytes/records+frameOverhead))
	return max(from, to-max(fit, fillSample)), nil
}

// replayRange is a range of the topic that the ledger has read.
func (p *partition) replayRange(from, to Offset) ReplayRange {
	r := ReplayRange{TP: p.tp, From: from, To: to}
	p.view(func(l *ledger) { r.Topic = l.topic })
	return r
}

// fillable is the first offset from which the records before to have rising positions without a
// truncation in between.
func (l *ledger) fillable(to Offset) Offset {
	first := l.epochs[0].First
	for i := 1; i < len(l.epochs); i++ {
		if l.epochs[i].First < l.epochs[i-1].End {
			first = l.epochs[i].First
		}
	}
	return first
}

// stampOld gives records that the ledger has taken before their positions, up to offset next. Repeats
// of a publish are left out as they were then.
func (l *ledger) stampOld(records []Record, next Offset) stamped {
	var s stamped
	for _, r := range records {
		pos, ok := l.epochs.position(r.Offset)
		if !ok || r.Offset >= next || l.isDropped(r.Offset) {
			continue
		}
		s.Records = append(s.Records, r)
		s.Positions = append(s.Positions, pos)
	}
	s.Head = l.before(next)
	return s
}
