package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// recallBefore is how many offsets before the last commit of an earlier life its message ids are looked
	// for. A window has fewer ids, but other producers' records lie between them, and clients repeat what was
	// written some seconds before the end.
	recallBefore = 8 * midWindowSize
	// recallBehind is how many offsets behind that commit. The earlier life wrote on for a second or so, others
	// perhaps for hours, and all of that would be read before anything is delivered.
	recallBehind = 1 << 17
	// recallTry bounds one attempt; the next one goes on where it ended.
	recallTry = 30 * time.Second
	// recallPatience is how long a batch is tried again that Kafka has and that cannot be read.
	recallPatience = time.Minute
)

// A recall reads from Kafka the message ids of records that an earlier life of the cluster read or wrote, which
// lost all its disks: a client may repeat those publishes to this one. The ledger that was taken up from the
// commits begins behind them.
//
// The coordinator puts them into the ledger before anything else is read and before it takes a publish with an id. It
// is done once in a life of the cluster: a partition is committed only after it (Commits), and a coordinator that
// finds such a commit knows that one before it has done it. One that dies before that leaves it to the next.
//
// Partitions that begin without a commit have no recall: no earlier life has read them that could be known.
type recall struct {
	l    *lead
	p    *partition
	done bool

	begun bool
	at    Offset // up to here all ids are in seen
	seen  ledger // takes ids and repeats as a ledger that reads does
	stuck time.Time
}

func newRecall(l *lead, p *partition) *recall { return &recall{l: l, p: p} }

// run reads back what is around the commit and has it agreed on. After an error it is to be called again.
func (r *recall) run(ctx context.Context, commit Offset) error {
	if m, ok := r.l.b.topicMeta(r.p.tp.Topic); ok && m.Publish {
		if err := r.read(ctx, commit); err != nil {
			return fmt.Errorf("read back the message ids of %v: %w", r.p.tp, err)
		}
		o := &recallOp{TP: r.p.tp, Mids: r.seen.mids.entries(), Dropped: r.seen.dropped}
		r.p.view(func(led *ledger) { o.Next = led.next() })
		if len(o.Mids) > 0 {
			if _, err := r.l.proposeOps(o).Wait(); err != nil { // refused: the ledger needs none any more
				return err
			}
		}
	}
	r.done = true
	r.l.midsKnown(r.p)
	return nil
}

// read goes on reading to the ledger's beginning in this life, as far as that is near the commit.
func (r *recall) read(ctx context.Context, commit Offset) error {
	ctx, cancel := context.WithTimeout(ctx, recallTry)
	defer cancel()
	var next Offset
	var leaders leaderList
	r.p.view(func(led *ledger) { next, leaders = led.next(), led.leaders })
	end, err := r.l.b.cfg.Offsets.Latest(ctx, r.p.tp) // a log that was truncated may end before next
	if err != nil {
		return err
	}
	if !r.begun { // with the commit that is known when Kafka can be read
		r.begun, r.at = true, max(commit-recallBefore, 0)
	}
	end = min(end, next, commit+recallBehind)
	if r.at >= end {
		return nil
	}
	err = r.l.b.cfg.Replayer.Replay(ctx, r.p.replayRange(r.at, end), func(f Fetched) error {
		r.stuck = time.Time{}
		if !leaders.holds(f, next) {
			// From here on it is another log than the ledger knows, whose records the reading will bring,
			// with other positions.
			r.at = end
			return ErrStop
		}
		for _, rec := range f.Records {
			r.seen.repeats(rec)
		}
		if r.at = f.Next; r.at >= end {
			return ErrStop
		}
		return nil
	})
	var out *OffsetOutOfRangeError
	switch {
	case err == nil:
	case errors.As(err, &out) && r.at < out.LogStart:
		r.at = out.LogStart
	case errors.As(err, &out), errors.Is(err, ErrAnotherTopic):
		return nil // its end, or the next topic's, will be found by the reading
	case ctx.Err() != nil:
		return ctx.Err()
	case r.stuck.IsZero():
		r.stuck = time.Now()
		return err
	case time.Since(r.stuck) > recallPatience:
		r.l.b.log.Warn().Err(err).Str("topic", r.p.tp.Topic).Int32("partition", r.p.tp.Partition).Int64("offset", int64(r.at)).
			Msg("message ids from here on could not be read back: a publish from before the loss of all disks that is repeated now may be written twice")
		return nil
	}
	if err != nil || r.at < end {
		return errRecallGoesOn
	}
	return nil
}

// errRecallGoesOn: an attempt has come to its end, not to that of the recall.
var errRecallGoesOn = errors.New("more is to be read")

// midsKnown says that a partition which was taken up from commits has its message ids again.
func (l *lead) midsKnown(p *partition) {
	l.mu.Lock()
	l.recalled[p.tp] = true
	l.mu.Unlock()
	p.mu.Lock()
	p.signal() // publishes wait for it
	p.mu.Unlock()
}

// knowsMids says whether the ledger of a partition of the group knows the message ids of what lies before it.
// What has read on was recalled before.
func (l *lead) knowsMids(tp TopicPartition, led *ledger) bool {
	if !led.takenUp() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recalled[tp]
}
