package bridge

import (
	"fmt"
	"maps"
	"slices"
)

// A twin is a ledger as one would write it without thinking of memory: it keeps every offset that was
// ever given a position, in order, and answers by walking through that history.
type twin struct {
	started    bool
	topic      TopicID
	term       Term
	partitions int32
	epoch      Epoch   // in force
	oldest     Epoch   // the first that the ledger still knows
	opened     []Epoch // since that one
	first      Offset  // of the epoch in force
	next       Offset
	history    []event
	mids       []twinMid // oldest first
	dropped    []Offset
	leaders    map[Offset]LeaderEpoch // of what was read without a break
	leader     LeaderEpoch            // of what was read last
}

type twinMid struct {
	id  string
	off Offset
}

// An event is an offset that got a position, or, with open set, the beginning of an epoch at off when
// the one before had ended at end.
type event struct {
	open bool
	pos  Position
	off  Offset
	end  Offset
	rec  bool // a record that clients see
}

func (w *twin) start(term Term, op startOp) bool {
	if w.started {
		return false
	}
	w.started, w.topic, w.partitions, w.term = true, op.Topic, op.Partitions, term
	w.epoch, w.oldest, w.first, w.next = 1, 1, op.First, op.First
	w.opened, w.leaders, w.leader = []Epoch{1}, make(map[Offset]LeaderEpoch), NoLeaderEpoch
	w.history = []event{{open: true, pos: Position{Epoch: 1}, off: op.First, end: op.First}}
	return true
}

// reborn is what remains when a cluster takes up its ledger from commit metadata that holds the epochs
// from oldest on.
func (w *twin) reborn(oldest Epoch, partitions int32) {
	w.term, w.oldest, w.partitions, w.mids, w.dropped = 0, oldest, partitions, nil, nil
	for w.opened[0] < oldest {
		w.opened = w.opened[1:]
	}
}

// extend gives n offsets more positions in the epoch in force.
func (w *twin) extend(n int) {
	for range n {
		w.history = append(w.history, event{pos: Position{Epoch: w.epoch, Seqno: Seqno(w.next - w.first + 1)}, off: w.next, rec: true})
		w.leaders[w.next] = w.leader
		w.next++
	}
}

// leaderList is what the ledger should remember of the leader epochs.
func (w *twin) leaderList() (l leaderList) {
	for _, o := range slices.Sorted(maps.Keys(w.leaders)) {
		if e := w.leaders[o]; e >= 0 && e != l.last() {
			l = append(l, leaderStart{e, o})
		}
	}
	return l
}

func (w *twin) open(term Term, first Offset) {
	if w.epoch++; w.term == 0 {
		w.epoch += rebirthLeap - 1
	}
	w.history = append(w.history, event{open: true, pos: Position{Epoch: w.epoch}, off: first, end: w.next})
	w.term, w.first, w.next = term, first, first
	w.opened = lastOf(append(w.opened, w.epoch), maxEpochs)
	w.oldest = w.opened[0]
}

func (w *twin) batch(term Term, op batchOp) (records []Record, positions []Position, repeats int, ok bool) {
	if !w.started || op.From > w.next {
		return nil, nil, 0, false
	}
	if op.Next <= w.next {
		return nil, nil, 0, true
	}
	if term != w.term {
		w.open(term, w.next)
	}
	if op.Leader >= 0 {
		w.leader = op.Leader
	}
	for o := w.next; o < op.Next; o++ {
		w.leaders[o] = w.leader
	}
	if l := w.leaderList(); len(l) > maxLeaders {
		maps.DeleteFunc(w.leaders, func(o Offset, _ LeaderEpoch) bool { return o < l[len(l)-maxLeaders].First })
	}
	byOffset := make(map[Offset]Record)
	for _, r := range op.Records {
		byOffset[r.Offset] = r
	}
	for o := w.next; o < op.Next; o++ {
		pos := Position{Epoch: w.epoch, Seqno: Seqno(o - w.first + 1)}
		r, isRecord := byOffset[o]
		if isRecord {
			if id, has := twinID(r); has {
				if slices.ContainsFunc(w.mids, func(m twinMid) bool { return m.id == id }) {
					isRecord = false
					repeats++
					w.dropped = append(w.dropped, o)
				} else {
					w.mids = append(w.mids, twinMid{id, o})
				}
			}
			w.mids = lastOf(w.mids, midWindowSize)
			w.dropped = lastOf(w.dropped, maxDropped)
		}
		if isRecord {
			records, positions = append(records, r), append(positions, pos)
		}
		w.history = append(w.history, event{pos: pos, off: o, rec: isRecord})
	}
	w.next = op.Next
	return records, positions, repeats, true
}

func (w *twin) recall(next Offset, mids []twinMid, dropped []Offset) bool {
	if !w.started || w.term != 0 || w.next != next {
		return false
	}
	w.mids, w.dropped = mids, slices.Clone(dropped)
	for i, e := range w.history {
		if !e.open && slices.Contains(dropped, e.off) {
			w.history[i].rec = false
		}
	}
	return true
}

func lastOf[T any](s []T, n int) []T { return s[max(0, len(s)-n):] }

func twinID(r Record) (string, bool) {
	var user, mid string
	for _, h := range r.Headers {
		switch h.Key {
		case HeaderMid:
			mid = string(h.Value)
		case HeaderUser:
			user = string(h.Value)
		}
	}
	return fmt.Sprintf("%q %q", user, mid), mid != ""
}

func (w *twin) reset(term Term, op resetOp) bool {
	if !w.started || w.next != op.Expect {
		return false
	}
	another := op.Topic != w.topic && w.topic != TopicID{} && op.Topic != TopicID{}
	maps.DeleteFunc(w.leaders, func(o Offset, _ LeaderEpoch) bool { return another || op.First > w.next || o >= op.First })
	w.leader = NoLeaderEpoch
	if l := w.leaderList(); len(l) > 0 {
		w.leader = l.last()
	}
	w.open(term, op.First)
	w.topic = op.Topic
	w.dropped = slices.DeleteFunc(slices.Clone(w.dropped), func(o Offset) bool { return another || o >= op.First })
	w.mids = slices.DeleteFunc(slices.Clone(w.mids), func(m twinMid) bool { return another || m.off >= op.First })
	return true
}

// head is where readers are told that the log ends: not in an epoch that was taken from commits and has no
// record, when the one before it ends there too.
func (w *twin) head() Position {
	last := len(w.history) - 1
	for e := w.history[last]; w.term == 0 && e.open && last > 0 && e.off == e.end && e.pos.Epoch > w.oldest; e = w.history[last] {
		last--
	}
	return w.history[last].pos
}

// alive returns what each offset names now: the newest event of an offset that no later opening took.
func (w *twin) alive() map[Offset]event {
	m := make(map[Offset]event)
	for _, e := range w.history {
		if !e.open {
			m[e.off] = e
			continue
		}
		for o := range m {
			if o >= e.off {
				delete(m, o)
			}
		}
	}
	return m
}

// resolve walks through the history with a reader who stopped at p.
func (w *twin) resolve(p Position) (o onward, ok bool) {
	history := w.history
	at := slices.IndexFunc(history, func(e event) bool { return e.pos == p })
	if p.Epoch < w.oldest {
		if p.Epoch == 0 && p.Seqno != 0 {
			return onward{}, false
		}
		o.Evicted = w.oldest > 1
		at = slices.IndexFunc(history, func(e event) bool { return e.pos == Position{Epoch: w.oldest} })
	}
	if at < 0 {
		return onward{}, false
	}
	missed := make(map[Offset]Position) // given out after p and still in Kafka
	var lost []Position
	next := history[at].off
	if !history[at].open {
		next++
	}
	for _, e := range history[at+1:] {
		if !e.open {
			missed[e.off] = e.pos
			next = e.off + 1
			continue
		}
		for off, pos := range missed {
			if off >= e.off {
				lost = append(lost, pos)
				delete(missed, off)
			}
		}
		if e.off > e.end && len(missed) == 0 {
			o.Evicted = true
		}
		next = e.off
	}
	o.Next = next
	for off := range missed {
		o.Next = min(o.Next, off)
	}
	if len(lost) > 0 {
		o.Truncated = true
		o.LostFrom = slices.MinFunc(lost, Position.Compare)
		o.LostTo = slices.MaxFunc(lost, Position.Compare)
	}
	return o, true
}
