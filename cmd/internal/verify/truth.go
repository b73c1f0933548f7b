package verify

import (
	"cmp"
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
	order    []*entry  // by position: what subscribers must be given or told of
	removals []Removal // in the order in which they began
	// base is, by epoch, the offset of its sequence number 0, so that seqno = offset - base for all of an
	// epoch's records. It is learned from what was delivered.
	base    map[uint64]int64
	guessed map[uint64]bool // the epochs whose base is worked out from vectors, which may name what is no record
	vague   bool            // Kafka no longer has records of which nobody knows why
}

// entry is a record in Kafka at some time of the run.
type entry struct {
	id, subject string
	offset      int64
	ts          int64
	pos         Pos
	placed      bool          // pos is known
	guessed     bool          // pos is, by a base that was guessed, or was given by an epoch of which nothing is known
	gone        RemovalKind   // empty: Kafka has it at the end
	by          *Removal      // what took it, if it is gone; nil: nobody knows
	earlier     bool          // nothing but its positions tells of it, see line.earlier
	second      bool          // of a publish that Kafka took twice: subscribers must not get it
	damaged     bool          // in Kafka already
	due         time.Duration // when it was first known to be in Kafka; negative: not known
	acked       time.Duration // when Kafka last said that it is; negative: never
	mid, user   string
	prev        *entry // the one before it with its subject
	seen        map[Pos]*witness
}

// witness is who told a position of a record, and when it was first told by anybody.
type witness struct {
	by    string
	times int
	first time.Duration
}

func learn(h *History, r *Report) *truth {
	t := &truth{lines: map[Partition]*line{}, fate: map[string]Write{}}
	for _, rm := range h.Removed {
		l := t.line(rm.Partition)
		l.removals = append(l.removals, rm)
	}
	for _, l := range t.lines {
		slices.SortStableFunc(l.removals, func(a, b Removal) int { return cmp.Compare(a.Began, b.Began) })
	}
	for _, k := range h.Kafka {
		t.line(k.Partition).add(&entry{id: k.ID, subject: k.Subject, offset: k.Offset, ts: k.TS, mid: k.Mid, user: k.User, damaged: k.Damaged, due: -1, acked: -1})
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

// removal returns what took out of Kafka what was at an offset at some time; nil if nothing did. That is the first
// that was not over by then: one that was could take only what had the offset before. A transaction that is
// known to be committed only after the removal of its records still has that one.
func (l *line) removal(offset int64, at time.Duration) (by *Removal) {
	for i := range l.removals {
		rm := &l.removals[i]
		switch {
		case !rm.covers(offset):
		case !rm.over(at):
			return rm
		default:
			by = rm
		}
	}
	return by
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
			e = &entry{id: w.ID, subject: w.Subject, offset: w.Offset, ts: h.Began.Add(w.At).UnixMilli(), by: l.removal(w.Offset, w.At)}
			if e.by != nil {
				e.gone = e.by.Kind
			} else {
				e.gone, l.vague = Truncated, true
				unexplained++
			}
			l.add(e)
		}
		e.due, e.acked = w.At, w.At
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
				by, sent := l.removal(a.Offset, a.Answered), a.Sent
				if a.Duplicate {
					sent = p.Attempts[0].Sent
				}
				if by == nil || by.over(sent) { // what is sent after a removal is not taken by it
					continue
				}
				e = &entry{id: p.ID, subject: p.Subject, offset: a.Offset, ts: h.Began.Add(a.Answered).UnixMilli(), gone: by.Kind, by: by, mid: p.Mid, user: p.User, due: -1, acked: -1}
				l.add(e)
			}
			if e.due < 0 || a.Answered < e.due {
				e.due = a.Answered
			}
			e.acked = max(e.acked, a.Answered)
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

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// offset translates a position into an offset, as far as its epoch is known.
func (l *line) offset(p Pos) int64 {
	if base, ok := l.base[p.Epoch]; ok {
		return base + int64(p.Seqno)
	}
	return -1
}
