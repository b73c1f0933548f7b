package cache

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

// Appending has two halves. The first, under the mutation lock alone, encodes frames into the unused
// part of the last segment, or into new ones, and links the entries; nobody can see that part yet.
// The second, under the write lock, publishes: it swaps in the longer slices and turns the heads of
// the chains. So a reader waits for the second half only, a few nanoseconds a record.

// builder is the work space of the first half.
type builder struct {
	tail    segment    // private copy of the published last segment
	work    []*segment // &tail if there was one, then new segments
	pending keyIndex   // newest entry of each key among those not yet published
	null    uint64     // like Log.nullLast, among those not yet published
	newKeys int        // how many of them the log's index does not know
	start   Index      // index of the first entry of the batch
	next    Index      // index of the next entry
	hints   hints
}

// hints are the sizes a new segment begins with: those of the last one, so that a busy log fills its
// segments without copying and a quiet one holds little.
type hints struct{ arena, keys, entries int }

const (
	minArena = 512
	// pendingKeep is the size of builder.pending that a log keeps between batches, in slots.
	pendingKeep = 256
)

func (b *builder) bytes() int64 { return b.pending.bytes() + int64(cap(b.work))*8 }

func (b *builder) last() *segment {
	if len(b.work) == 0 {
		return nil
	}
	return b.work[len(b.work)-1]
}

// begin opens the builder on what is published. The caller holds mu.
func (l *Log) begin() *builder {
	b := &l.build
	b.work = b.work[:0]
	b.start, b.next = l.end, l.end
	b.null, b.newKeys = 0, 0
	b.pending.clear(pendingKeep) // not empty only after a panic in Encode
	if n := len(l.segs); n > 0 {
		b.tail = *l.segs[n-1]
		b.work = append(b.work, &b.tail)
	}
	return b
}

// roll seals the last segment and opens another.
func (b *builder) roll(arrived int64) *segment {
	if s := b.last(); s != nil {
		b.hints = hints{len(s.arena), len(s.keys), len(s.entries)}
		s.clip()
	}
	s := &segment{base: b.next, first: arrived, newest: arrived}
	b.work = append(b.work, s)
	return s
}

// segmentFor returns the last segment, or a new one when that is full or too old.
func (l *Log) segmentFor(arrived int64) *segment {
	s, b := l.build.last(), &l.build
	limit := l.store.cfg.SegmentBytes
	switch {
	case s == nil,
		arrived-s.first > l.store.rollAfter,
		len(s.arena) >= limit, len(s.keys) >= limit, len(s.entries) >= limit/int(entrySize):
		return b.roll(arrived)
	}
	return s
}

// Append adds a batch. One goroutine at a time may append to a log; the batch's Encode is called from
// it, once a record, in order, and readers are not held up meanwhile. The batch and what it refers to
// are not kept. Records must rise in position and be after Head: anything else is a fault in the
// caller and panics before anything has changed.
//
// When it returns the batch is readable and the store is within its budget.
func (l *Log) Append(batch Batch) {
	if first, fresh, ok := l.append(batch); ok {
		l.changed(first, fresh)
	}
}

// AppendGap adds a gap: readers that pass it learn that records are lost and go on from its position,
// which becomes Head. It must not be before the present Head.
func (l *Log) AppendGap(g Gap) {
	if first, fresh, ok := l.appendGap(g); ok {
		l.changed(first, fresh)
	}
}

// changed tells the listener and restores the budget after entries from index `first` on were added.
func (l *Log) changed(first Index, fresh bool) {
	l.store.notify(l)
	if fresh {
		l.store.enqueue(l)
	}
	l.store.evictFor(l, first)
}

func (l *Log) mustRise(records []Record) {
	last := l.head
	for i := range records {
		if !records[i].Pos.After(last) {
			panic(fmt.Sprintf("cache: record at %v is not after %v in %s/%d", records[i].Pos, last, l.topic, l.partition))
		}
		last = records[i].Pos
	}
}

// arrival turns a batch's time into milliseconds that never fall within a log.
func (l *Log) arrival(t time.Time) int64 {
	now := l.store.now()
	at := now
	if !t.IsZero() {
		at = min(now, t.UnixMilli())
	}
	l.arrived = max(l.arrived, at)
	return l.arrived
}

// append reports the index of the first new entry, whether the log was empty before and is not any
// more, and whether anything was done: a log that was dropped takes nothing.
func (l *Log) append(batch Batch) (first Index, fresh, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return 0, false, false
	}
	l.mustRise(batch.Records)
	b := l.begin()
	if len(batch.Records) > 0 {
		arrived := l.arrival(batch.Arrived)
		l.boundEntries(len(batch.Records))
		for i := range batch.Records {
			l.add(&batch.Records[i], i, arrived, batch.Encode)
		}
	}
	head := batch.Head
	if n := len(batch.Records); n > 0 && batch.Records[n-1].Pos.After(head) {
		head = batch.Records[n-1].Pos
	}
	return b.start, l.publish(head, nil), true
}

// boundEntries keeps the distance between any two entries within the 32 bits of a chain link.
func (l *Log) boundEntries(n int) {
	for len(l.segs) > 0 && uint64(l.end-l.start)+uint64(n) > math.MaxUint32 {
		l.store.evicted.Add(l.dropSegment())
		l.begin()
	}
}

// add encodes and links one record behind what the builder has.
func (l *Log) add(r *Record, i int, arrived int64, encode func([]byte, int, Position, bool) []byte) {
	b := &l.build
	hash := l.hash(r.Key)
	s := l.segmentFor(arrived)
	prev, prevPos, hasPrev, known := l.previous(r.Key, hash)

	limit := l.store.cfg.SegmentBytes
	if cap(s.arena) == 0 {
		s.arena = withRoom(s.arena, min(limit, max(minArena, b.hints.arena)), limit)
	}
	free := s.arena[len(s.arena):]
	frame := encode(free, i, prevPos, hasPrev)
	if len(s.arena)+len(frame) > limit && len(s.arena) > 0 {
		s = b.roll(arrived)
		s.arena = withRoom(s.arena, max(len(frame), min(limit, b.hints.arena)), limit)
	}
	if inPlace := cap(s.arena)-len(s.arena) >= len(frame) && len(frame) > 0 &&
		&frame[0] == &s.arena[:len(s.arena)+1][len(s.arena)]; inPlace {
		s.arena = s.arena[:len(s.arena)+len(frame)]
	} else {
		s.arena = append(withRoom(s.arena, len(frame), limit), frame...)
	}
	if len(s.arena) > maxArena {
		panic(fmt.Sprintf("cache: frame of %d bytes in %s/%d", len(frame), l.topic, l.partition))
	}

	e := entry{
		epoch: r.Pos.Epoch, seqno: r.Pos.Seqno, timestamp: r.Timestamp,
		end: uint32(len(s.arena)), arrived: uint32(arrived - s.first), hash: hash,
	}
	if hasPrev {
		e.prev = uint32(b.next - prev)
	}
	e.key = l.storeKey(s, r.Key, prev, hasPrev)
	b.push(s, e, arrived)

	at := b.next - 1
	switch {
	case r.Key == nil:
		b.null = uint64(at) + 1
	case known:
		b.pending.move(hash, prev, at)
	default:
		b.pending = b.pending.grown(1)
		b.pending.insert(hash, at)
		if !hasPrev {
			b.newKeys++
		}
	}
}

// push adds a finished entry to the segment.
func (b *builder) push(s *segment, e entry, arrived int64) {
	if cap(s.entries) == 0 {
		s.entries = withRoom(s.entries, max(4, b.hints.entries), 0)
	}
	s.entries = append(withRoom(s.entries, 1, math.MaxInt), e)
	s.newest = arrived
	b.next++
}

// previous finds the entry before with the same key, among the unpublished (known) or the published.
func (l *Log) previous(key []byte, hash uint32) (i Index, pos Position, ok, known bool) {
	b := &l.build
	if key == nil {
		if b.null != 0 {
			i = Index(b.null - 1)
			return i, locate(b.work, i).pos(i), true, true
		}
	} else if i, ok = b.pending.find(b.work, key, hash); ok {
		return i, locate(b.work, i).pos(i), true, true
	}
	if i, ok = l.newest(key, hash); ok {
		pos = locate(l.segs, i).pos(i)
	}
	return i, pos, ok, false
}

// storeKey returns where the segment keeps the key: where the previous entry has it, when that is in
// the same segment, else at its end.
func (l *Log) storeKey(s *segment, key []byte, prev Index, hasPrev bool) uint32 {
	if key == nil {
		return keyNull
	}
	if hasPrev && prev >= s.base {
		return s.at(prev).key
	}
	need := len(key) + binary.MaxVarintLen32
	if cap(s.keys) == 0 {
		s.keys = withRoom(s.keys, max(need, l.build.hints.keys), l.store.cfg.SegmentBytes)
	}
	s.keys = withRoom(s.keys, need, math.MaxInt)
	at := uint32(len(s.keys))
	s.keys = binary.AppendUvarint(s.keys, uint64(len(key)))
	s.keys = append(s.keys, key...)
	return at
}

func (l *Log) appendGap(g Gap) (first Index, fresh, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped {
		return 0, false, false
	}
	if l.head.After(g.At) {
		panic(fmt.Sprintf("cache: gap at %v before head %v of %s/%d", g.At, l.head, l.topic, l.partition))
	}
	g.Reason = strings.Clone(g.Reason)
	b := l.begin()
	arrived := l.arrival(time.Time{})
	l.boundEntries(1)
	s := l.segmentFor(arrived)
	b.push(s, entry{
		epoch: g.At.Epoch, seqno: g.At.Seqno, end: uint32(len(s.arena)),
		arrived: uint32(arrived - s.first), key: keyGap,
	}, arrived)
	return b.start, l.publish(g.At, &g), true
}

// publish makes what the builder holds visible. It reports whether the log was empty before and is
// not any more.
func (l *Log) publish(head Position, gap *Gap) (fresh bool) {
	b := &l.build
	index := l.index.grown(b.newKeys)
	work := b.work
	wasEmpty := len(l.segs) == 0

	if len(work) > 0 && work[0] == &b.tail {
		l.segBytes += b.tail.bytes() - l.segs[len(l.segs)-1].bytes()
		work = work[1:]
	}
	for _, s := range work {
		l.segBytes += s.bytes()
	}

	l.rw.Lock()
	l.index = index
	if !wasEmpty {
		*l.segs[len(l.segs)-1] = b.tail
	}
	l.segs = append(l.segs, work...)
	l.end = b.next
	if head.After(l.head) {
		l.head = head
	}
	if gap != nil {
		l.gaps = append(l.gaps, gapEntry{b.start, gap})
	} else if b.start < b.next {
		l.link(b.start, b.next)
	}
	l.rw.Unlock()

	l.store.records.Add(int64(b.next - b.start))
	if gap != nil {
		l.store.records.Add(-1)
	}
	clear(b.work)
	b.work = b.work[:0]
	b.tail = segment{}
	b.pending.clear(pendingKeep)
	l.account()
	return wasEmpty && len(l.segs) > 0
}

// link puts the records [from, to) at the head of their chains.
func (l *Log) link(from, to Index) {
	s := locate(l.segs, from)
	for i := from; i < to; i++ {
		if i == s.end() {
			s = locate(l.segs, i)
		}
		e := s.at(i)
		prev := i - Index(e.prev)
		if e.prev != 0 {
			locate(l.segs, prev).at(prev).next = e.prev
		}
		switch {
		case e.key == keyNull:
			l.nullLast = uint64(i) + 1
		case e.prev != 0:
			l.index.move(e.hash, prev, i)
		default:
			l.index.insert(e.hash, i)
		}
	}
}

// Reset forgets all entries: they are of no use any more, and the next record follows on head. Readers
// that had not read everything see Behind.
func (l *Log) Reset(head Position) {
	l.mu.Lock()
	if l.dropped {
		l.mu.Unlock()
		return
	}
	l.reset(head)
	l.mu.Unlock()
	l.store.notify(l)
}

func (l *Log) reset(head Position) {
	gone := l.records()
	l.rw.Lock()
	l.segs, l.gaps, l.index, l.nullLast = nil, nil, keyIndex{}, 0
	l.start, l.segBytes = l.end, 0
	l.base, l.head = head, head
	l.rw.Unlock()
	l.arrived = 0
	l.store.records.Add(-gone)
	l.account()
}
