package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// truth is what a history says was in Kafka, with the positions that the cluster gave it. The streams of
// subscribers are held against it.
type truth struct {
	lines map[Partition]*line
	fate  map[string]Write // by ID: what became of what was written straight to Kafka
}

// line is the one order of a partition's records.
type line struct {
	part     Partition
	byID     map[string][]*entry
	order    []*entry // by position: what subscribers must be given or told of
	removals []Removal
	// base is, by epoch, the offset of its sequence number 0, so that seqno = offset - base for all of an
	// epoch's records. It is learned from what was delivered.
	base  map[uint64]int64
	vague bool // Kafka no longer has records of which nobody knows why
}

// entry is a record in Kafka at some time of the run.
type entry struct {
	id, subject string
	offset      int64
	ts          int64
	pos         Pos
	placed      bool          // pos is known
	gone        RemovalKind   // empty: Kafka has it at the end
	lostBy      bool          // gone, and nobody knows why
	second      bool          // of a publish that Kafka took twice: subscribers must not get it
	damaged     bool          // in Kafka already
	due         time.Duration // when it was known to be in Kafka; negative: not known
	mid, user   string
	prev        *entry // the one before it with its subject
	seen        map[Pos]*witness
}

// witness is who told a position of a record.
type witness struct {
	by    string
	times int
}

func learn(h *History, r *Report) *truth {
	t := &truth{lines: map[Partition]*line{}, fate: map[string]Write{}}
	for _, rm := range h.Removed {
		l := t.line(rm.Partition)
		l.removals = append(l.removals, rm)
	}
	for _, k := range h.Kafka {
		t.line(k.Partition).add(&entry{id: k.ID, subject: k.Subject, offset: k.Offset, ts: k.TS, mid: k.Mid, user: k.User, damaged: k.Damaged, due: -1})
	}
	r.Records = len(h.Kafka)
	t.learnWrites(h, r)
	t.learnPublishes(h)
	for _, l := range t.lines {
		for _, list := range l.byID {
			for _, e := range list {
				if e.gone != "" {
					r.Removed++
				}
			}
		}
		l.markSeconds(r)
	}
	t.learnPositions(h, r)
	return t
}

func (t *truth) line(p Partition) *line {
	l := t.lines[p]
	if l == nil {
		l = &line{part: p, byID: map[string][]*entry{}, base: map[uint64]int64{}}
		t.lines[p] = l
	}
	return l
}

func (l *line) add(e *entry) { l.byID[e.id] = append(l.byID[e.id], e) }

// at returns the entry of an id at an offset.
func (l *line) at(id string, offset int64) *entry {
	for _, e := range l.byID[id] {
		if e.offset == offset {
			return e
		}
	}
	return nil
}

// removal returns how an offset was removed, empty if it was not.
func (l *line) removal(offset int64) RemovalKind {
	for _, rm := range l.removals {
		if rm.covers(offset) {
			return rm.Kind
		}
	}
	return ""
}

// learnWrites takes in what the producers know: when their records were in Kafka, and which are there no
// more.
func (t *truth) learnWrites(h *History, r *Report) {
	unexplained := 0
	for _, w := range h.Written {
		t.fate[w.ID] = w
		if w.Outcome == Aborted {
			r.Aborted++
		}
		if w.Outcome != Committed || w.Offset < 0 {
			continue
		}
		l := t.line(w.Partition)
		e := l.at(w.ID, w.Offset)
		if e == nil {
			e = &entry{id: w.ID, subject: w.Subject, offset: w.Offset, ts: h.Began.Add(w.At).UnixMilli(), gone: l.removal(w.Offset)}
			if e.gone == "" {
				e.gone, e.lostBy, l.vague = Truncated, true, true
				unexplained++
			}
			l.add(e)
		}
		e.due = w.At
	}
	if unexplained > 0 {
		r.note("%d records that Kafka had acknowledged to a producer of its own are not in Kafka, and nothing said that they were removed", unexplained)
	}
}

// learnPublishes does the same for acknowledged publishes. One that is not in Kafka, and was not removed, is
// left to judgePublishes.
func (t *truth) learnPublishes(h *History) {
	for _, p := range h.Publishes {
		for _, a := range p.Attempts {
			if a.Outcome != Acked {
				continue
			}
			l := t.line(Partition{p.Topic, a.Partition})
			e := l.at(p.ID, a.Offset)
			if e == nil {
				gone := l.removal(a.Offset)
				if gone == "" {
					continue
				}
				e = &entry{id: p.ID, subject: p.Subject, offset: a.Offset, ts: h.Began.Add(a.Answered).UnixMilli(), gone: gone, mid: p.Mid, user: p.User, due: -1}
				l.add(e)
			}
			if e.due < 0 || a.Answered < e.due {
				e.due = a.Answered
			}
		}
	}
}

// markSeconds finds the messages that Kafka took twice. What an unclean election took away does not count
// as a first: the cluster forgets it too.
func (l *line) markSeconds(r *Report) {
	var list []*entry
	for _, es := range l.byID {
		for _, e := range es {
			if e.mid != "" && (e.gone == "" || e.gone == Deleted) {
				list = append(list, e)
			}
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.offset, b.offset) })
	type author struct{ user, mid string }
	had := map[author]bool{}
	for _, e := range list {
		a := author{e.user, e.mid}
		e.second = had[a]
		had[a] = true
		if e.second {
			r.TwiceInKafka++
		}
	}
}

// learnPositions works out the position of every record from those that were told, reports where these
// contradict each other, and gives the rest the one that follows.
func (t *truth) learnPositions(h *History, r *Report) {
	told := func(p Partition, id string, pos Pos, by string) {
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
				w = &witness{by: by}
				e.seen[pos] = w
			}
			w.times++
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
				told(Partition{topic, e.Partition}, e.ID, e.Pos, node)
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
				told(Partition{p.Topic, a.Partition}, p.ID, a.Pos, "an ack of "+a.Node)
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

func sortedPartitions(m map[Partition]*line) []Partition {
	var ps []Partition
	for p := range m {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Index, b.Index))
	})
	return ps
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
		list := l.byID[id]
		for _, pos := range sortedPositions(list[0].seen) {
			w := list[0].seen[pos]
			// Of several incarnations of a message the position says which one it is.
			var e *entry
			for _, c := range list {
				if base, ok := l.base[pos.Epoch]; ok && c.offset-int64(pos.Seqno) == base {
					e = c
				}
			}
			_, known := l.base[pos.Epoch]
			if e == nil && known {
				if e = l.earlier(list[0], pos); e != nil {
					list = l.byID[id]
				}
			}
			if e == nil && !known {
				e = list[0]
				l.base[pos.Epoch] = e.offset - int64(pos.Seqno)
			}
			if e == nil {
				r.breach(1, Breach{Kind: Disagree, Partition: l.part.String(),
					Detail: fmt.Sprintf("%s gives %s, at offset %d, position %v; the rest of that epoch says sequence number %d", or(w.by, "a node"), id, list[0].offset, pos, list[0].offset-l.base[pos.Epoch])})
				continue
			}
			if e.placed && e.pos != pos && l.replaced(e.offset) != "" && pos.Epoch > e.pos.Epoch {
				// The same offset twice: the earlier one is gone.
				old := l.earlier(e, e.pos)
				old.pos, old.placed = e.pos, true
				holder[e.pos], e.placed = old, false
				list = l.byID[id]
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
}

// earlier makes an entry for a message that stood elsewhere, in what was truncated or belonged to the topic before,
// when it was told that position: its producer had no answer and sent it again, which Kafka took for a first
// time, as it had lost the first. It returns nil if the position is not such a place.
func (l *line) earlier(of *entry, pos Pos) *entry {
	offset := l.base[pos.Epoch] + int64(pos.Seqno)
	kind := l.replaced(offset)
	if kind == "" {
		return nil
	}
	e := &entry{id: of.id, subject: of.subject, offset: offset, ts: of.ts, gone: kind, mid: of.mid, user: of.user, due: -1, seen: of.seen}
	l.add(e)
	return e
}

// replaced returns how an offset was removed, if it may have been given again.
func (l *line) replaced(offset int64) RemovalKind {
	if kind := l.removal(offset); kind != Deleted {
		return kind
	}
	return ""
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
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

// offset translates a position into an offset, as far as its epoch is known.
func (l *line) offset(p Pos) int64 {
	if base, ok := l.base[p.Epoch]; ok {
		return base + int64(p.Seqno)
	}
	return -1
}
