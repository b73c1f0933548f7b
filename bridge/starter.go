package bridge

import (
	"context"
	"errors"
	"sync"
	"time"
)

// retryStart is the pause after Kafka or Raft refused something a partition needs to begin.
const retryStart = 250 * time.Millisecond

// A starter finds out where partitions begin, which may mean asking Kafka, without holding up those
// that are being read.
type starter struct {
	l    *lead
	wg   sync.WaitGroup
	mu   sync.Mutex
	busy map[TopicPartition]bool
	// known are partitions that were taken up from commits: whether the commits know their new epoch by now.
	known map[TopicPartition]bool

	commits commitsOfMany
}

// start has a partition read: at once when its ledger is there, after agreeing on its beginning when
// it is not.
func (s *starter) start(tp TopicPartition, m TopicMeta) {
	s.mu.Lock()
	busy := s.busy[tp]
	s.mu.Unlock()
	if busy {
		return
	}
	if p := s.l.b.started(tp); p != nil {
		var topic TopicID
		takenUp := false
		p.view(func(led *ledger) { topic, takenUp = led.topic, led.takenUp() })
		s.mu.Lock()
		known := s.known[tp]
		s.mu.Unlock()
		if topic == m.ID || topic.IsZero() || m.ID.IsZero() {
			if takenUp && !known {
				s.awaitCommit(p)
				return
			}
			s.l.read(tp, m.ID)
			return
		}
	}
	s.background(tp, func(ctx context.Context) error { return s.begin(ctx, tp, m) })
}

// commitPatience is how long a partition that was taken up from commits waits for a commit of its own. The
// members of the dead cluster count as the consumer group's until their sessions time out, and nobody can
// commit before: some ten seconds. Where nobody may commit at all, it must be read all the same.
const commitPatience = time.Minute

// errNotCommitted: the consumer group's commits do not know the epoch yet that a rebirth has opened.
var errNotCommitted = errors.New("waiting for the consumer group to commit the new epoch, so that its positions survive another loss of all disks")

// awaitCommit holds a partition back that was taken up from commits, until its message ids are read back from
// Kafka and the commits know the epoch in which its records will be given positions. Were all disks lost again
// before, the next life would find the commits of the one before this one, and give the same records other
// positions.
func (s *starter) awaitCommit(p *partition) {
	begun := time.Now()
	back := newRecall(s.l, p)
	s.mu.Lock()
	s.known[p.tp] = false
	s.mu.Unlock()
	s.background(p.tp, func(ctx context.Context) error {
		from, known, err := s.committed(ctx, p)
		if !known && !back.done {
			switch {
			case err != nil && time.Since(begun) <= commitPatience:
				return err
			case err != nil:
				p.view(func(led *ledger) { from = led.next() })
			}
			if err := back.run(ctx, from); err != nil {
				return err
			}
			begun = time.Now() // nobody could commit before
		}
		switch {
		case known:
		case time.Since(begun) > commitPatience:
			s.l.b.log.Warn().Err(err).Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).
				Msg("read on without a commit: should all disks be lost again before there is one, the positions given out until then will not be known")
		case err != nil:
			return err
		default:
			return errNotCommitted
		}
		s.l.midsKnown(p)
		s.mu.Lock()
		s.known[p.tp] = true
		s.mu.Unlock()
		return nil
	})
}

// committed asks for the commit of a partition that was taken up from one: its offset, the partition's next if
// there is none any more, and whether it knows the epoch that the next record will open.
func (s *starter) committed(ctx context.Context, p *partition) (at Offset, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var want Epoch
	p.view(func(led *ledger) { want, at = led.upcoming(), led.next() })
	c, ok, err := s.commits.of(p.tp, func() (map[TopicPartition]CommitOffset, error) {
		return s.l.b.cfg.Committed.Committed(ctx, s.unknown())
	})
	if err != nil || !ok {
		return at, false, err
	}
	o, ours, err := parseMetadata(c.Metadata, c.Offset)
	return min(at, c.Offset), err == nil && ours && o.Epochs.last().Epoch >= want, nil
}

// unknown returns the partitions whose new epoch the commits do not know yet.
func (s *starter) unknown() (out []TopicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, known := range s.known {
		if !known {
			out = append(out, tp)
		}
	}
	return out
}

// commitsOfMany is one answer for all who ask within a moment: a cluster that is born again may wait for the
// commits of thousands of partitions, of a group coordinator that has just lost all its members.
type commitsOfMany struct {
	mu     sync.Mutex
	asked  time.Time
	answer map[TopicPartition]CommitOffset
	err    error
}

func (c *commitsOfMany) of(tp TopicPartition, ask func() (map[TopicPartition]CommitOffset, error)) (CommitOffset, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.asked) > retryStart*9/10 {
		c.answer, c.err = ask()
		c.asked = time.Now()
	}
	o, ok := c.answer[tp]
	return o, ok, c.err
}

// errTopicStale: topic discovery has yet to find that a topic was created again.
var errTopicStale = errors.New("the topic was created again, its description is still the old one")

// recover opens a new epoch where Kafka's log no longer has the ledger's next offset.
func (s *starter) recover(o outOfRange) {
	s.background(o.tp, func(ctx context.Context) error {
		m, ok := s.l.b.topicMeta(o.tp.Topic)
		p := s.l.b.started(o.tp)
		if p == nil || !ok {
			return nil
		}
		// The log of a topic that was created again looks like a truncated one, but all of it is new.
		if ids := s.l.b.cfg.TopicIDs; ids != nil && !m.ID.IsZero() {
			ask, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			switch id, err := ids.TopicID(ask, o.tp.Topic); {
			case err != nil:
				return err
			case !id.IsZero() && id != m.ID:
				return errTopicStale
			}
		}
		reset := &resetOp{TP: o.tp, Topic: m.ID}
		var topic TopicID
		parts := Offset(0)
		p.view(func(led *ledger) {
			reset.Expect, topic = led.next(), led.topic
			parts = led.leaders.parts(o.leader, o.leaderEnd, led.next())
		})
		switch {
		case topic != m.ID && !topic.IsZero() && !m.ID.IsZero():
			return nil // start sees to it
		case o.diverged && parts >= reset.Expect:
			return nil // the ledger has not come to where the log parts
		case o.diverged:
			reset.First, reset.Reason = parts, ReasonTruncated
		case reset.Expect < o.logStart:
			reset.First, reset.Reason = o.logStart, ReasonEvicted
		case reset.Expect > o.logEnd:
			reset.First, reset.Reason = o.logEnd, ReasonTruncated
		default:
			return nil // Kafka has it again
		}
		_, err := s.l.proposeOps(reset).Wait()
		return err
	})
}

// background runs f until it succeeds, and then has the coordinator look at the partition again.
func (s *starter) background(tp TopicPartition, f func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[tp] {
		return
	}
	s.busy[tp] = true
	s.wg.Go(func() {
		logged := ""
		for {
			err := f(s.l.ctx)
			if err == nil || s.l.ctx.Err() != nil {
				break
			}
			if err.Error() != logged && !errors.Is(err, ErrNotCoordinator) {
				logged = err.Error()
				s.l.b.log.Warn().Err(err).Str("topic", tp.Topic).Int32("partition", tp.Partition).
					Msg("cannot begin to read yet")
			}
			pause(s.l.ctx, retryStart)
			if m, ok := s.l.b.topicMeta(tp.Topic); !ok || tp.Partition >= m.Partitions {
				break // gone meanwhile
			}
		}
		s.mu.Lock()
		delete(s.busy, tp)
		s.mu.Unlock()
		s.l.look()
	})
}

// begin agrees on where a partition starts, or on its new beginning when Kafka has another topic under
// the name.
func (s *starter) begin(ctx context.Context, tp TopicPartition, m TopicMeta) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p := s.l.b.started(tp)
	if p == nil {
		o, err := s.l.b.begin(ctx, tp, m)
		if err != nil {
			return err
		}
		_, err = s.l.proposeOps(o).Wait()
		return err
	}
	first, err := s.l.b.cfg.Offsets.Earliest(ctx, tp)
	if err != nil {
		return err
	}
	reset := &resetOp{TP: tp, Topic: m.ID, First: first, Reason: ReasonTruncated}
	p.view(func(led *ledger) { reset.Expect = led.next() })
	_, err = s.l.proposeOps(reset).Wait()
	return err
}
