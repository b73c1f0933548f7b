package bridge

import "slices"

// Commits returns what the consumer group is to commit: for each partition that this node
// coordinates the ledger's next offset, with its epochs as metadata.
func (b *Bridge) Commits() []CommitOffset {
	var out []CommitOffset
	for _, p := range b.led() {
		lead := b.lead(p.group)
		p.view(func(l *ledger) {
			// A commit of a ledger that was taken up says that the message ids are in it again: who finds it
			// does not look for them.
			if l.started() && lead != nil && lead.knowsMids(p.tp, l) {
				out = append(out, CommitOffset{TP: p.tp, Offset: l.next(), Metadata: l.metadata()})
			}
		})
	}
	return out
}

// led returns the partitions of the groups that this node leads.
func (b *Bridge) led() []*partition {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []*partition
	for tp, p := range b.parts {
		if m := b.topics[tp.Topic]; b.leads[p.group] != nil && m.Exposed && tp.Partition < m.Partitions {
			out = append(out, p)
		}
	}
	return out
}

// Coordinator returns the node that coordinates a partition, as far as this node knows.
func (b *Bridge) Coordinator(tp TopicPartition) (NodeID, bool) {
	return b.cfg.Replicator.Leader(b.groupOf(tp))
}

// PartitionStatuses returns the state of every partition that has been started, by name.
func (b *Bridge) PartitionStatuses() []PartitionStatus {
	b.mu.RLock()
	parts := make([]*partition, 0, len(b.parts))
	for _, p := range b.parts {
		parts = append(parts, p)
	}
	b.mu.RUnlock()
	slices.SortFunc(parts, func(x, y *partition) int { return compareTP(x.tp, y.tp) })
	out := make([]PartitionStatus, 0, len(parts))
	for _, p := range parts {
		s := PartitionStatus{Topic: p.tp.Topic, Partition: p.tp.Partition, Group: p.group, Lag: -1}
		s.Coordinator, _ = b.Coordinator(p.tp)
		ok := false
		p.view(func(l *ledger) {
			if ok = l.started(); ok {
				head := l.head()
				s.Epoch, s.Seqno, s.Next = head.Epoch, head.Seqno, l.next()
			}
		})
		if !ok {
			continue
		}
		if l := b.lead(p.group); l != nil {
			l.mu.Lock()
			if lag, known := l.lag[p.tp]; known {
				s.Lag = lag
			}
			l.mu.Unlock()
		}
		out = append(out, s)
	}
	return out
}
