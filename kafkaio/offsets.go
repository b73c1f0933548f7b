package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

// Offsets asks the leaders of partitions for offsets, on connections of its own. What a moved leader or
// a broken connection causes is tried again until the context ends, or askTimeout has passed.
type Offsets struct {
	topics *Topics
	pool   *wirePool
}

var _ bridge.Offsets = (*Offsets)(nil)

// askTimeout bounds one question, its retries included.
const askTimeout = 30 * time.Second

// NewOffsets returns Offsets that need topics to run. Close it at the end.
func NewOffsets(client *Client, topics *Topics) *Offsets {
	return &Offsets{topics: topics, pool: &wirePool{client: client}}
}

// Close closes the idle connections; questions that are under way end with their contexts.
func (o *Offsets) Close() { o.pool.close() }

// Earliest is the first offset that Kafka holds. See bridge.Offsets.
func (o *Offsets) Earliest(ctx context.Context, tp bridge.TopicPartition) (bridge.Offset, error) {
	return o.ask(ctx, tp, timeEarliest, isolationCommitted)
}

// Latest is the last stable offset. See bridge.Offsets.
func (o *Offsets) Latest(ctx context.Context, tp bridge.TopicPartition) (bridge.Offset, error) {
	return o.ask(ctx, tp, timeLatest, isolationCommitted)
}

// logEnd is the high watermark: the largest offset from which a fetch is in range.
func (o *Offsets) logEnd(ctx context.Context, tp bridge.TopicPartition) (bridge.Offset, error) {
	return o.ask(ctx, tp, timeLatest, isolationUncommitted)
}

// AtTime is the first offset at or after a time. See bridge.Offsets.
func (o *Offsets) AtTime(ctx context.Context, tp bridge.TopicPartition, t time.Time) (bridge.Offset, error) {
	// Negative times are names of places in this request.
	off, err := o.ask(ctx, tp, max(t.UnixMilli(), 0), isolationCommitted)
	if err == nil && off < 0 {
		return o.Latest(ctx, tp)
	}
	return off, err
}

// EpochEnd asks how far a leader epoch goes. See bridge.Offsets.
func (o *Offsets) EpochEnd(ctx context.Context, tp bridge.TopicPartition, leader bridge.LeaderEpoch) (bridge.LeaderEpoch, bridge.Offset, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var known bridge.LeaderEpoch
	var end bridge.Offset
	err := retryLeader(ctx, o.topics, tp, func(addr string, epoch int32) error {
		return o.pool.with(ctx, addr, func(w *wire) (err error) {
			known, end, err = w.epochEnd(ctx, tp, epoch, leader)
			return err
		})
	})
	if err != nil {
		return 0, 0, fmt.Errorf("ask for the end of leader epoch %d of %s: %w", leader, tp, err)
	}
	return known, end, nil
}

func (o *Offsets) ask(ctx context.Context, tp bridge.TopicPartition, at int64, isolation int8) (bridge.Offset, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var off bridge.Offset
	err := retryLeader(ctx, o.topics, tp, func(addr string, epoch int32) error {
		return o.pool.with(ctx, addr, func(w *wire) (err error) {
			off, err = w.listOffset(ctx, tp, epoch, at, isolation)
			return err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("ask for an offset of %s: %w", tp, err)
	}
	return off, nil
}

// errLeaderless: the partition has no leader that we know of.
var errLeaderless = errors.New("the partition has no leader")

// retryLeader calls fn with the partition's leader until it succeeds, ctx ends, or fn fails for a reason
// that neither a new leader nor a new connection can mend. The error is the last of fn.
func retryLeader(ctx context.Context, topics *Topics, tp bridge.TopicPartition, fn func(addr string, epoch int32) error) error {
	for fails := 1; ; fails++ {
		err := errLeaderless
		if addr, epoch, ok := topics.Leader(tp); ok {
			if err = fn(addr, epoch); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) || !mendable(err) {
			return err
		}
		if fails > 1 { // at first a refresh is all that is needed
			timer := time.NewTimer(readBackoff(fails - 1))
			select {
			case <-ctx.Done():
				timer.Stop()
				return err
			case <-timer.C:
			}
		}
		if rerr := topics.Refresh(ctx); errors.Is(rerr, ErrClosed) {
			return rerr
		}
	}
}

// mendable says whether trying again can help: after anything but an answer of Kafka that stays. That we are refused
// need not: a token is replaced late, a password on both sides one after the other. Topics complains of it meanwhile.
func mendable(err error) bool {
	if isRefused(err) { // it has a code of Kafka's in it
		return true
	}
	var code kafka.Error
	if errors.As(err, &code) {
		return leaderMoved(err) || code.Temporary()
	}
	if errors.Is(err, bridge.ErrAnotherTopic) {
		return false
	}
	var batch *BatchError
	var version *VersionError
	return !errors.As(err, &batch) && !errors.As(err, &version)
}

// wirePool keeps a few idle connections to each broker for short questions.
type wirePool struct {
	client *Client

	mu     sync.Mutex
	closed bool
	idle   map[string][]*wire
}

// maxIdle is how many connections to a broker stay open.
const maxIdle = 4

// with calls fn with a connection to addr. An idle connection that turns out dead is replaced by a new
// one, once. After an error that is not an answer of Kafka to the question the connection is closed; that its session
// could not be renewed is none, although there is a code of Kafka's in it.
func (p *wirePool) with(ctx context.Context, addr string, fn func(*wire) error) error {
	for {
		w, old, err := p.get(ctx, addr)
		if err != nil {
			return err
		}
		err = fn(w)
		var code kafka.Error
		if err == nil || errors.As(err, &code) && !isRefused(err) {
			p.put(addr, w)
			return err
		}
		w.Close()
		if !old || ctx.Err() != nil || isTimeout(err) {
			return err
		}
	}
}

func (p *wirePool) get(ctx context.Context, addr string) (w *wire, old bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, ErrClosed
	}
	if ws := p.idle[addr]; len(ws) > 0 {
		w = ws[len(ws)-1]
		p.idle[addr] = ws[:len(ws)-1]
		p.mu.Unlock()
		return w, true, nil
	}
	p.mu.Unlock()
	w, err = openWire(ctx, p.client, addr)
	return w, false, err
}

func (p *wirePool) put(addr string, w *wire) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[addr]) >= maxIdle {
		w.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[string][]*wire{}
	}
	p.idle[addr] = append(p.idle[addr], w)
}

func (p *wirePool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, ws := range p.idle {
		for _, w := range ws {
			w.Close()
		}
	}
	p.idle = nil
}
