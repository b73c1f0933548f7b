package bridge

import "time"

// This file is the way of what was fetched through Raft: packed into entries, proposed, and settled in
// order.

// A proposal is one entry on its way through Raft, and the Fetched it completes or the partition it makes
// a note of.
type proposal struct {
	future Future
	parts  []proposed
	noted  *TopicPartition
}

type proposed struct {
	tp   TopicPartition
	run  uint64
	last bool // the Fetched ends with this piece: give it back
}

const (
	// maxEntryBytes is where an entry is closed; one record alone may exceed it.
	maxEntryBytes = 256 << 10
	// entrySlack is room for what stands around a batch's records.
	entrySlack = 512
	// maxProposals bounds what settle has not seen the end of.
	maxProposals = 64
)

// propose packs what was fetched into entries, as many records to one as fit, and proposes them.
func (l *lead) propose() {
	l.mu.Lock()
	fetched := l.fetched
	l.fetched = nil
	l.mu.Unlock()
	// An entry gets the room that is needed, once: to grow into it would copy what was fetched several times over.
	room := 0
	for i := range fetched {
		room += opSize(fetched[i].Records)
	}
	var entry []byte
	var parts []proposed
	flush := func() {
		if len(parts) == 0 {
			return
		}
		room -= len(entry)
		l.queue <- proposal{future: l.b.cfg.Replicator.Propose(l.group, entry), parts: parts} // settle always takes
		entry, parts = nil, nil
	}
	for _, f := range fetched {
		r := l.reads[f.TP]
		if r == nil || r.run != f.run {
			l.b.feed.Done(f.TP, f.run)
			continue
		}
		if p := l.b.started(f.TP); p != nil {
			l.checkKeys(p, f.Records)
		}
		for from, rest := f.From, f.Records; ; {
			n := fits(rest, maxEntryBytes-len(entry))
			if n == 0 && len(rest) > 0 {
				if len(parts) > 0 {
					flush()
					continue
				}
				n = 1
			}
			o := &batchOp{TP: f.TP, From: from, Next: f.Next, Leader: f.Leader, Records: rest[:n]}
			if n < len(rest) {
				o.Next = rest[n-1].Offset + 1
			}
			if entry == nil {
				entry = newEntry(min(room, maxEntryBytes) + entrySlack)
			}
			entry = o.appendTo(entry)
			rest, from = rest[n:], o.Next
			parts = append(parts, proposed{f.TP, f.run, len(rest) == 0})
			if len(rest) == 0 {
				break
			}
		}
	}
	flush()
}

// fits returns how many of the records take at most size bytes in an entry.
func fits(records []Record, size int) int {
	for i := range records {
		if size -= recordSize(&records[i]); size < 0 {
			return i
		}
	}
	return len(records)
}

// opSize is what a batch takes in an entry, at most if its topic's name is short.
func opSize(records []Record) int {
	size := entrySlack
	for i := range records {
		size += recordSize(&records[i])
	}
	return size
}

// recordSize is what a record takes in an entry, at most.
func recordSize(r *Record) int {
	size := len(r.Key) + len(r.Value) + 40
	for _, h := range r.Headers {
		size += len(h.Key) + len(h.Value) + 10
	}
	return size
}

// checkKeys looks for a key outside its murmur2 partition; the ledger of a topic that has one says so
// before the record does.
func (l *lead) checkKeys(p *partition, records []Record) {
	var known bool
	var partitions int32
	p.view(func(led *ledger) { known, partitions = led.scattered, led.partitions })
	if known || l.b.cfg.AnyPartitioner || partitions < 1 {
		return
	}
	for i := range records {
		if k := records[i].Key; k != nil && PartitionFor(k, partitions) != p.tp.Partition {
			l.note(&noteOp{TP: p.tp, Partitions: partitions, Scattered: true})
			return
		}
	}
}

// settle waits for the proposals in order, gives Fetched back, and has partitions read again whose
// proposals failed or did not fit.
func (l *lead) settle() {
	for p := range l.queue {
		res, err := p.future.Wait()
		results, _ := res.([]opResult)
		if p.noted != nil {
			l.mu.Lock()
			delete(l.noting, *p.noted)
			l.mu.Unlock()
			l.look()
		}
		for i, part := range p.parts {
			again := err != nil || i >= len(results) || results[i].Refused
			if part.last {
				l.b.feed.Done(part.tp, part.run)
			}
			if again {
				l.mu.Lock()
				l.restart[part.tp] = part.run
				l.mu.Unlock()
			}
			if i < len(results) && !again {
				l.pub.reached(part.tp)
			}
		}
		if err != nil {
			// The role ends in a moment if leadership is gone; if it is not (a transfer that failed,
			// say), this keeps the new attempt from spinning.
			pause(l.ctx, 20*time.Millisecond)
			l.poke()
			continue
		}
		l.mu.Lock()
		again := len(l.restart) > 0
		l.mu.Unlock()
		if again {
			l.poke()
		}
	}
}
