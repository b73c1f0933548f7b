package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// learnPositions works out the position of every record from those that were told, reports where these
// contradict each other, and gives the rest the one that follows.
func (t *truth) learnPositions(h *History, r *Report) {
	told := func(p Partition, id string, pos Pos, by string, at time.Duration) {
		l := t.lines[p]
		if l == nil {
			return
		}
		for _, e := range l.byID[id] {
			if e.seen == nil {
				e.seen = map[Pos]*witness{}
			}
			w := e.seen[pos]
			if w == nil {
				w = &witness{by: by, first: at}
				e.seen[pos] = w
			}
			w.times++
			w.first = min(w.first, at)
		}
	}
	vectors := map[Partition]map[uint64]start{}
	vector := func(topic string, v []Place, e *Event) {
		for _, at := range v {
			p := Partition{topic, at.Partition}
			if vectors[p] == nil {
				vectors[p] = map[uint64]start{}
			}
			s, known := vectors[p][at.Epoch]
			if fresh := e.Kind == Subbed && (e.Detail == nil || !e.Resumed); fresh && (!s.fresh || at.Seqno > s.seqno) {
				vectors[p][at.Epoch] = start{true, at.Seqno, h.Began.Add(e.Time).UnixMilli()}
			} else if !known {
				vectors[p][at.Epoch] = start{}
			}
		}
	}
	for i := range h.Subscribers {
		s := &h.Subscribers[i]
		topic, node := topicOf(s.Subject), ""
		for j := range s.Events {
			switch e := &s.Events[j]; e.Kind {
			case Connect:
				node = e.Node
			case Msg:
				told(Partition{topic, e.Partition}, e.ID, e.Pos, node, e.Time)
			case Subbed, Gap:
				if e.Detail != nil {
					vector(topic, e.At, e)
				}
			}
		}
	}
	for _, p := range h.Publishes {
		for _, a := range p.Attempts {
			if a.Outcome == Acked && a.Pos != (Pos{}) {
				told(Partition{p.Topic, a.Partition}, p.ID, a.Pos, "an ack of "+a.Node, a.Answered)
			}
		}
	}
	for _, p := range sortedPartitions(t.lines) {
		l := t.lines[p]
		l.learnBases()
		l.settlePositions(r)
		l.guessBases(vectors[p])
		l.placeRest()
	}
}

// learnBases takes for each epoch the base that most of the told positions agree on. A message that is
// there twice has no vote.
func (l *line) learnBases() {
	votes := map[uint64]map[int64]int{}
	for _, list := range l.byID {
		if len(list) != 1 {
			continue
		}
		for pos, w := range list[0].seen {
			v := votes[pos.Epoch]
			if v == nil {
				v = map[int64]int{}
				votes[pos.Epoch] = v
			}
			v[list[0].offset-int64(pos.Seqno)] += w.times
		}
	}
	for epoch, v := range votes {
		best, most := int64(0), 0
		for base, n := range v {
			if n > most || n == most && base < best {
				best, most = base, n
			}
		}
		l.base[epoch] = best
	}
}

// settlePositions gives the records that were delivered their position, and reports those that were told
// two, or one that does not fit the rest of the epoch.
func (l *line) settlePositions(r *Report) {
	holder := map[Pos]*entry{}
	for _, id := range sortedKeys(l.byID) {
		l.settle(l.byID[id], holder, r)
	}
}

// settle does it for one message, of which list has all that is known to have been in Kafka.
func (l *line) settle(list []*entry, holder map[Pos]*entry, r *Report) {
	id, seen := list[0].id, list[0].seen
	told := sortedPositions(seen)
	// Of several records of a message the position says which one it is; the last is where it came to stay.
	stays, last := list[0], Pos{}
	for _, pos := range told {
		if e := l.at(id, l.offset(pos)); e != nil {
			stays, last = e, pos
		}
	}
	for _, pos := range told {
		w := seen[pos]
		_, known := l.base[pos.Epoch]
		e := l.at(id, l.offset(pos))
		switch {
		case e == nil && known:
			e = l.earlier(stays, pos, last)
		case e == nil:
			e = list[0]
			l.base[pos.Epoch] = e.offset - int64(pos.Seqno)
		}
		if e == nil {
			r.breach(1, Breach{Kind: Disagree, Partition: l.part.String(),
				Detail: fmt.Sprintf("%s gives %s, at offset %d, position %v; the rest of that epoch says sequence number %d", or(w.by, "a node"), id, list[0].offset, pos, list[0].offset-l.base[pos.Epoch])})
			continue
		}
		if e.placed && e.pos != pos { // the same offset in two epochs, of which the earlier may be gone
			if old := l.earlier(e, e.pos, pos); old != nil {
				old.pos, old.placed = e.pos, true
				holder[e.pos], e.placed = old, false
			}
		}
		if other := holder[pos]; other != nil && other != e {
			r.breach(1, Breach{Kind: Disagree, Partition: l.part.String(),
				Detail: fmt.Sprintf("position %v is %s and %s", pos, other.id, id)})
			continue
		}
		holder[pos] = e
		if !e.placed {
			e.pos, e.placed = pos, true
			continue
		}
		before := e.seen[e.pos]
		r.breach(1, Breach{Kind: Disagree, Partition: l.part.String(),
			Detail: fmt.Sprintf("%s, at offset %d, is %v on %s and %v on %s", id, e.offset, e.pos, or(before.by, "a node"), pos, or(w.by, "a node"))})
		if w.times > before.times {
			e.pos = pos
		}
	}
}

// earlier makes an entry for a message that stood at another place, was, when it was first told, in what was
// truncated or belonged to the topic before: its producer had no answer and sent it again, which Kafka took for a
// first time, as it had lost the first. Where it stays it has position last, zero if nobody was told that.
//
// It returns nil if that cannot have been: positions are for ever, and two of one record are a breach. A message
// has one such place, for once it is acknowledged it is not sent again; in an earlier epoch, told before the
// removal was over; and where it stays it came to be after the removal began.
func (l *line) earlier(stays *entry, was, last Pos) *entry {
	if last != (Pos{}) && was.Epoch >= last.Epoch {
		return nil
	}
	for _, e := range l.byID[stays.id] {
		if e.earlier {
			return nil
		}
	}
	offset := l.offset(was)
	for i := range l.removals {
		rm := &l.removals[i]
		if rm.Kind == Deleted || !rm.covers(offset) || rm == stays.by || rm.over(stays.seen[was].first) ||
			stays.acked >= 0 && stays.acked < rm.Began || last != (Pos{}) && stays.seen[last].first < rm.Began {
			continue
		}
		e := &entry{id: stays.id, subject: stays.subject, offset: offset, ts: stays.ts, gone: rm.Kind, by: rm, earlier: true,
			mid: stays.mid, user: stays.user, due: -1, acked: -1, seen: stays.seen}
		l.add(e)
		return e
	}
	return nil
}

func sortedPositions(m map[Pos]*witness) []Pos {
	var list []Pos
	for p := range m {
		list = append(list, p)
	}
	slices.SortFunc(list, comparePos)
	return list
}

func comparePos(a, b Pos) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seqno, b.Seqno))
}

// start is the vector of a fresh subscription that went farthest into an epoch, and when it was told.
type start struct {
	fresh bool // there was one
	seqno uint64
	at    int64 // unix ms
}

// replaced says whether Kafka may have given the offset of a position to another record.
func (l *line) replaced(pos Pos) bool {
	_, known := l.base[pos.Epoch]
	for _, rm := range l.removals {
		if rm.Kind != Deleted && (!known || rm.covers(l.offset(pos))) {
			return true
		}
	}
	return l.vague
}

// guessBases gives a base to the epochs of which vectors tell, but no record was delivered. Such an epoch
// begins no earlier than after what was delivered in those before it, except where Kafka went back; and a
// fresh subscription in it has what was in Kafka before it was made behind itself.
func (l *line) guessBases(epochs map[uint64]start) {
	for epoch, first := range epochs {
		if _, known := l.base[epoch]; known || epoch == 0 {
			continue
		}
		end := int64(-1)
		for _, list := range l.byID {
			for _, e := range list {
				if e.placed && e.pos.Epoch < epoch {
					end = max(end, e.offset)
				}
			}
		}
		for _, rm := range l.removals {
			if rm.Kind != Deleted {
				end = min(end, rm.From-1)
			}
		}
		base := end
		for _, list := range l.byID {
			for _, e := range list {
				if first.fresh && e.gone == "" && e.ts <= first.at {
					base = max(base, e.offset-int64(first.seqno))
				}
			}
		}
		l.base[epoch] = base
		if l.guessed == nil {
			l.guessed = map[uint64]bool{}
		}
		l.guessed[epoch] = true
	}
}

// placeRest gives the records that nobody was given the position that they must have had, and puts all in
// order. Those that Kafka lost in a way that gives their offsets to others are left out if nobody saw them:
// the cluster may never have.
func (l *line) placeRest() {
	var epochs []uint64
	for e := range l.base {
		epochs = append(epochs, e)
	}
	slices.Sort(epochs)
	for _, list := range l.byID {
		for _, e := range list {
			if !e.placed && (e.gone == "" || e.gone == Deleted) {
				e.pos, e.placed = Pos{0, uint64(e.offset) + 1}, true
				for _, epoch := range epochs { // the newest that begins at or before it
					if base := l.base[epoch]; base < e.offset {
						e.pos = Pos{epoch, uint64(e.offset - base)}
					}
				}
				e.guessed = l.guessed[e.pos.Epoch] || e.pos.Epoch == 0 && len(epochs) > 0 && epochs[0] > 1
			}
			if e.placed && !e.second {
				l.order = append(l.order, e)
			}
		}
	}
	slices.SortFunc(l.order, func(a, b *entry) int { return cmp.Or(comparePos(a.pos, b.pos), cmp.Compare(a.offset, b.offset)) })
	last := map[string]*entry{}
	for _, e := range l.order {
		e.prev = last[e.subject]
		last[e.subject] = e
	}
}
