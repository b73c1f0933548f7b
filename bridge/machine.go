package bridge

import (
	"errors"
	"fmt"
)

var _ StateMachine = (*Bridge)(nil)

// MalformedEntryError is what Apply returns for an entry that it could not read; nothing was applied.
type MalformedEntryError struct{ Err error }

func (e *MalformedEntryError) Error() string { return "malformed Raft entry: " + e.Err.Error() }
func (e *MalformedEntryError) Unwrap() error { return e.Err }

// Apply implements StateMachine: it stamps the records of an entry and puts them into the cache, or takes in
// revocations. The result is a []opResult, one for each operation, or *MalformedEntryError.
func (b *Bridge) Apply(group GroupID, term Term, index uint64, entry []byte) any {
	ops, err := decodeEntry(entry)
	if err != nil {
		b.log.Error().Err(err).Uint16("group", uint16(group)).Uint64("index", index).Msg("entry left out")
		return &MalformedEntryError{err}
	}
	results := make([]opResult, len(ops))
	for i, o := range ops {
		if o, ok := o.(*revokeOp); ok {
			results[i] = b.applyRevoke(group, o)
			continue
		}
		tp := opTP(o)
		_, starts := o.(*startOp)
		p := b.partition(group, tp, starts)
		if p == nil {
			results[i] = opResult{TP: tp, Refused: true}
			continue
		}
		results[i] = p.apply(term, o)
		b.observe(p, o, results[i])
	}
	return results
}

func opTP(o op) TopicPartition {
	switch o := o.(type) {
	case *startOp:
		return o.TP
	case *batchOp:
		return o.TP
	case *resetOp:
		return o.TP
	case *noteOp:
		return o.TP
	case *recallOp:
		return o.TP
	}
	panic(fmt.Sprintf("bridge: operation of unknown type %T", o))
}

// observe counts and logs what an operation did here.
func (b *Bridge) observe(p *partition, o op, r opResult) {
	switch o := o.(type) {
	case *batchOp:
		if !r.Refused {
			b.cfg.Metrics.Ingested(p.tp.Topic, o.Records)
		}
		if r.Repeats > 0 {
			b.log.Info().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).Int("records", r.Repeats).
				Msg("repeats of a publish left out")
		}
	case *startOp:
		if !r.Refused {
			b.log.Info().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).Int64("offset", int64(r.Next)).
				Msg("partition started")
			b.partitionsChanged(p)
		}
	case *resetOp:
		if !r.Refused {
			b.log.Warn().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).Int64("expected", int64(o.Expect)).
				Int64("offset", int64(o.First)).Str("reason", o.Reason).Msg("records lost in Kafka: new epoch")
		}
	case *recallOp:
		if !r.Refused {
			b.log.Info().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).Int("ids", len(o.Mids)).
				Int("repeats", len(o.Dropped)).Msg("message ids of an earlier life taken from Kafka")
			b.partitionsChanged(p)
		}
	case *noteOp:
		if view, _ := b.Topic(p.tp.Topic); !r.Refused && o.Scattered && !view.Scattered {
			b.cfg.Metrics.Scattered(p.tp.Topic)
			b.log.Warn().Str("topic", p.tp.Topic).Int32("partition", p.tp.Partition).
				Msg("keys of the topic may be in several partitions, because it grew or a producer does not partition by murmur2: vectors of its keys hold all partitions now")
		}
		if !r.Refused {
			b.partitionsChanged(p)
		}
	}
}

// Snapshot implements StateMachine.
func (b *Bridge) Snapshot(group GroupID) ([]byte, error) {
	parts := b.groupPartitions(group)
	ledgers := make(map[TopicPartition]*ledger, len(parts))
	for _, p := range parts {
		if p.ledger.started() { // the group's own goroutine is here: nobody changes it
			ledgers[p.tp] = &p.ledger
		}
	}
	if group != RevocationGroup {
		return encodeSnapshot(ledgers, nil), nil
	}
	b.revoked.mu.RLock()
	defer b.revoked.mu.RUnlock()
	return encodeSnapshot(ledgers, b.revoked.set), nil
}

// Restore implements StateMachine. Partitions that the snapshot brings to a starting node are filled
// from Kafka; on a running node that had fallen behind they start empty at their heads.
func (b *Bridge) Restore(group GroupID, snapshot []byte) error {
	ledgers, revoked, err := decodeSnapshot(snapshot)
	if err == nil && group != RevocationGroup && len(revoked) > 0 {
		err = errors.New("it has revocations, which are kept elsewhere")
	}
	if err != nil {
		return fmt.Errorf("restore group %d: %w", group, err)
	}
	if group == RevocationGroup {
		b.restoreRevocations(revoked)
	}
	fill := b.starting.Load()
	for tp, l := range ledgers {
		p := b.partition(group, tp, true)
		p.restore(l, fill)
		b.partitionsChanged(p)
	}
	return nil
}
