package bridge

import (
	"context"
	"fmt"
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
	o := &startOp{TP: tp, Topic: m.ID, Partitions: m.Partitions}
	commits, err := b.cfg.Committed.Committed(ctx, []TopicPartition{tp})
	if err != nil {
		return nil, fmt.Errorf("ask for the committed offset of %v: %w", tp, err)
	}
	if c, ok := commits[tp]; ok {
		topic, epochs, ours, err := parseMetadata(c.Metadata, c.Offset)
		switch {
		case err != nil:
			b.log.Warn().Err(err).Str("topic", tp.Topic).Int32("partition", tp.Partition).
				Msg("commit metadata unreadable: epochs begin anew at the committed offset")
			o.First = c.Offset
			return o, nil
		case ours:
			o.Topic, o.Epochs, o.First = topic, epochs, c.Offset
			return o, nil
		default:
			o.First = c.Offset
			return o, nil
		}
	}
	switch {
	case b.isNew(tp, m) || b.cfg.Start.Earliest:
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

// isNew says whether a partition came into being while the cluster was watching: then its first
// record counts, whatever the policy is for what was there before.
func (b *Bridge) isNew(tp TopicPartition, m TopicMeta) bool {
	if !m.Initial {
		return true
	}
	for _, p := range b.topicPartitions(tp.Topic) {
		grown := false
		p.view(func(l *ledger) { grown = l.started() && l.partitions <= tp.Partition })
		if grown {
			return true
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return tp.Partition >= b.atFirst[tp.Topic]
}
