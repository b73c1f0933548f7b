package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

// Replayer reads ranges of partitions once, for clients and caches that are behind. Its connections are
// not the Feed's, so that live reading never waits for it, and its requests are bounded: at most
// maxReplayFetches fetches of stored records at a time in this process, and as many that wait at the end
// of a log, so that followers do not take the places of those who have something to read. A replay
// holds neither place while emit runs.
type Replayer struct {
	topics  *Topics
	offsets *Offsets
	pool    *wirePool
	stored  chan struct{}
	tail    chan struct{}
}

var _ bridge.Replayer = (*Replayer)(nil)

const (
	maxReplayFetches = 8
	// replayWait is how long a broker may wait at the end of a log: short, as others may wait for
	// the place.
	replayWait = 100 * time.Millisecond
	// brokenTries is how often a broken batch is fetched again before a replay gives up.
	brokenTries = 3
)

// NewReplayer returns a Replayer that needs topics to run. Close it at the end.
func NewReplayer(client *Client, topics *Topics, offsets *Offsets) *Replayer {
	return &Replayer{
		topics:  topics,
		offsets: offsets,
		pool:    &wirePool{client: client},
		stored:  make(chan struct{}, maxReplayFetches),
		tail:    make(chan struct{}, maxReplayFetches),
	}
}

// Close closes the idle connections; replays that are under way end with their contexts.
func (r *Replayer) Close() { r.pool.close() }

// Replay reads a range. See bridge.Replayer. A batch that stays broken is a *BatchError. A leader or
// broker that is away is waited for until ctx ends.
//
// Topics are named by id where brokers know them (since 3.1), so that one that was created again is not taken
// for its predecessor. Of brokers before 2.7 no leader epochs are told: they do not tell a coordinator of a
// truncation behind which the log has grown again, and a replay that noticed it alone would wait for ever.
func (r *Replayer) Replay(ctx context.Context, what bridge.ReplayRange, emit func(bridge.Fetched) error) error {
	tp, from, to := what.TP, what.From, what.To
	var p parser
	maxBytes := int32(fetchPartitionBytes)
	end := bridge.Offset(-1) // the last stable offset, once an answer has told it
	broken := 0
	for next := from; to < 0 || next < to; {
		if what.Before != nil {
			if err := what.Before(ctx); err != nil {
				return err
			}
		}
		got, err := r.fetch(ctx, fetchAsk{
			tp: tp, topic: what.Topic, offset: next, last: bridge.NoLeaderEpoch, maxBytes: maxBytes,
		}, next == end)
		if err != nil {
			return err
		}
		end = got.stable
		out, err := p.parseRecords(tp, got.raw, next, got.aborted)
		switch {
		case err == nil && out.partial && out.next == next:
			if out.needed > maxFrame/2 || maxBytes >= maxFrame/2 {
				return &BatchError{tp, next, fmt.Errorf("%w: %d bytes", ErrBatchTooLarge, out.needed)}
			}
			maxBytes = min(max(int32(out.needed), 2*maxBytes), maxFrame/2)
			continue
		case err != nil && out.next == next:
			if broken++; broken == brokenTries {
				return err
			}
			if err := sleep(ctx, readBackoff(broken)); err != nil {
				return err
			}
			continue
		case out.next == next:
			continue // nothing new
		}
		broken, maxBytes = 0, fetchPartitionBytes
		f := bridge.Fetched{TP: tp, From: next, Next: out.next, Records: out.records, LogStart: got.logStart, End: got.stable, Leader: out.leader}
		next = out.next
		if to >= 0 && f.Next > to {
			f.Next = to
			f.Records = f.Records[:sort.Search(len(f.Records), func(i int) bool { return f.Records[i].Offset >= to })]
			if out.first >= to { // it ends in a hole before what was read
				f.Leader = bridge.NoLeaderEpoch
			}
		}
		if !got.epochs {
			f.Leader = bridge.NoLeaderEpoch
		}
		if err := emit(f); err != nil {
			if errors.Is(err, bridge.ErrStop) {
				return nil
			}
			return err
		}
	}
	return ctx.Err()
}

// fetch fetches from the leader, whichever that is, until there is an answer.
func (r *Replayer) fetch(ctx context.Context, ask fetchAsk, atEnd bool) (fetchGot, error) {
	tp := ask.tp
	places := r.stored
	if atEnd {
		places = r.tail
	}
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return fetchGot{}, ctx.Err()
	}
	defer func() { <-places }()
	var got fetchGot
	err := retryLeader(ctx, r.topics, tp, func(addr string, epoch int32) error {
		ask.epoch = epoch
		err := r.pool.with(ctx, addr, func(w *wire) error {
			all, err := w.fetch(ctx, replayWait, ask.maxBytes, []fetchAsk{ask})
			if err != nil {
				return err
			}
			if len(all) != 1 || all[0].tp != tp {
				return errNoAnswer
			}
			got = all[0]
			if got.code == int16(kafka.OffsetOutOfRange) {
				return nil
			}
			if got.code != 0 {
				return kafkaError(got.code)
			}
			return nil
		})
		if errors.Is(err, kafka.UnknownTopicID) || errors.Is(err, kafka.InconsistentTopicID) {
			// A broker that has just started may not know the topic yet.
			if id, ierr := r.topics.TopicID(ctx, tp.Topic); ierr == nil && !id.IsZero() && id != ask.topic {
				return bridge.ErrAnotherTopic
			}
		}
		return err
	})
	if err == nil && got.code == int16(kafka.OffsetOutOfRange) {
		err = r.outOfRange(ctx, tp, ask.offset)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return got, err
}

// outOfRange is the error for an offset that Kafka has refused.
func (r *Replayer) outOfRange(ctx context.Context, tp bridge.TopicPartition, at bridge.Offset) error {
	lo, err := r.offsets.Earliest(ctx, tp)
	if err != nil {
		return err
	}
	hi, err := r.offsets.logEnd(ctx, tp)
	if err != nil {
		return err
	}
	return &bridge.OffsetOutOfRangeError{TP: tp, At: at, LogStart: lo, LogEnd: hi}
}

// sleep waits for d, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
