package bridge

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// StartPolicy says where a partition begins that the cluster has never read (TIDEWIRE_KAFKA_START).
// The zero value is latest.
type StartPolicy struct {
	Earliest bool
	Age      time.Duration // when positive: the first record that is at most this old
}

// ParseStart reads "earliest", "latest" or an age such as "10m".
func ParseStart(s string) (StartPolicy, error) {
	switch s {
	case "latest":
		return StartPolicy{}, nil
	case "earliest":
		return StartPolicy{Earliest: true}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return StartPolicy{Age: d}, nil
	}
	return StartPolicy{}, fmt.Errorf("%q is neither earliest, latest nor an age such as 10m", s)
}

func (s StartPolicy) String() string {
	switch {
	case s.Earliest:
		return "earliest"
	case s.Age > 0:
		return s.Age.String()
	}
	return "latest"
}

// begin decides where a partition starts whose ledger is empty: where the group's commits say that an
// earlier life of the cluster had come to, else at its first record if it is new, else by the policy.
func (b *Bridge) begin(ctx context.Context, tp TopicPartition, m TopicMeta) (*startOp, error) {
	tps := make([]TopicPartition, m.Partitions)
	for i := range tps {
		tps[i] = TopicPartition{tp.Topic, int32(i)}
	}
	commits, err := b.cfg.Committed.Committed(ctx, tps)
	if err != nil {
		return nil, fmt.Errorf("ask for the committed offset of %v: %w", tp, err)
	}
	o := &startOp{TP: tp, Topic: m.ID, Partitions: m.Partitions, AtStart: m.Partitions}
	if c, ok := commits[tp]; ok {
		old, ours, err := parseMetadata(c.Metadata, c.Offset)
		switch {
		case err != nil:
			b.log.Warn().Err(err).Str("topic", tp.Topic).Int32("partition", tp.Partition).
				Msg("commit metadata unreadable: epochs begin anew at the committed offset")
			o.First = c.Offset
			return o, nil
		case ours:
			old.TP, old.Partitions = tp, m.Partitions
			taken, err := b.takeUp(ctx, &old, m)
			if err == nil {
				taken.Epochs = afterRebirth(taken.Epochs, b.cfg.Now())
			}
			return taken, err
		default:
			o.First = c.Offset
			return o, nil
		}
	}
	switch {
	case b.isNew(tp, m, commits) || b.cfg.Start.Earliest:
		o.First, err = b.cfg.Offsets.Earliest(ctx, tp)
	case b.cfg.Start.Age > 0:
		o.First, err = b.cfg.Offsets.AtTime(ctx, tp, time.Now().Add(-b.cfg.Start.Age))
	default:
		o.First, err = b.cfg.Offsets.Latest(ctx, tp)
	}
	if err != nil {
		return nil, fmt.Errorf("ask Kafka where %v begins: %w", tp, err)
	}
	return o, nil
}

// takeUp completes the beginning of a partition that an earlier life of the cluster has read. Its commits
// lag behind what it gave out by a second or so: a record behind the commit was either given a position
// in the last epoch by the same arithmetic, or none, or (when a coordinator moved in that second) one in
// a later epoch, which stays unknown because the next epoch is far from it (afterRebirth). So the last epoch is
// extended to what Kafka holds, and positions in it mean what they meant. Behind a change of leader in
// Kafka its log may have been truncated, and offsets may name other records than those that were given
// out; so the extension ends with the leader epoch in which the commit was made.
func (b *Bridge) takeUp(ctx context.Context, o *startOp, m TopicMeta) (*startOp, error) {
	if o.Topic != m.ID && !o.Topic.IsZero() && !m.ID.IsZero() {
		return o, nil // created again: nothing of what Kafka holds was given out; it is reset at once
	}
	end, err := b.cfg.Offsets.Latest(ctx, o.TP)
	if err != nil {
		return nil, fmt.Errorf("ask for the end of %v: %w", o.TP, err)
	}
	if last := o.Leaders.last(); last != NoLeaderEpoch {
		leader, until, err := b.cfg.Offsets.EpochEnd(ctx, o.TP, last)
		switch {
		case err != nil:
			return nil, fmt.Errorf("ask for the end of leader epoch %d of %v: %w", last, o.TP, err)
		case leader != last: // the reading will find where the log was truncated
			return o, nil
		}
		end = min(end, until)
	}
	if e := o.Epochs.last(); end > e.End {
		e.End, o.First = end, end
	}
	return o, nil
}

// rebirthLeap is by how much the epoch rises after epochs were taken from the group's commits. The
// cluster may have opened epochs that its last commit does not know; positions in those must stay
// unknown and not come to mean other records. There is a commit each second, so the leap is far.
const rebirthLeap = 1000

// afterRebirth ends the epochs of an earlier life with an empty one whose number comes from the clock, in
// unix microseconds (below 2^53 until 2255). A cluster that loses every disk twice within seconds finds the
// same commits twice; with a leap alone both lives would open the same epochs, and a position would name two
// records. A clock that stands behind the first life's leaves the leap.
func afterRebirth(epochs epochList, now time.Time) epochList {
	clock, last := Epoch(max(now.UnixMicro(), 0)), epochs.last()
	if clock <= last.Epoch {
		return epochs
	}
	epochs = slices.Clone(epochs[max(0, len(epochs)-maxEpochs+1):])
	return append(epochs, epochRange{Epoch: clock, First: last.End, End: last.End})
}

// isNew says whether a partition came into being while the cluster was watching: then its first
// record counts, whatever the policy is for what was there before. The ledgers and the commits of the
// topic's other partitions remember how many there were when they began; the commits, because this node
// may not have learned yet what the other groups agreed on.
func (b *Bridge) isNew(tp TopicPartition, m TopicMeta, commits map[TopicPartition]CommitOffset) bool {
	if !m.Initial {
		return true
	}
	for _, p := range b.topicPartitions(tp.Topic) {
		grown := false
		p.view(func(l *ledger) { grown = l.started() && l.atStart <= tp.Partition })
		if grown {
			return true
		}
	}
	for _, c := range commits {
		if o, ours, err := parseMetadata(c.Metadata, c.Offset); err == nil && ours && o.AtStart <= tp.Partition {
			return true
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return tp.Partition >= b.atFirst[tp.Topic]
}
