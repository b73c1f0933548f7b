package verify

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// judgeOrder checks that in every partition positions rise with the offsets of what Kafka holds.
func (t *truth) judgeOrder(r *Report) {
	for _, p := range sortedPartitions(t.lines) {
		l := t.lines[p]
		var held []*entry
		for _, e := range l.order {
			if e.gone == "" {
				held = append(held, e)
			}
		}
		slices.SortFunc(held, func(a, b *entry) int { return cmp.Compare(a.offset, b.offset) })
		for i := 1; i < len(held); i++ {
			if a, b := held[i-1], held[i]; !b.pos.After(a.pos) {
				r.breach(1, Breach{Kind: Disagree, Partition: p.String(), Detail: fmt.Sprintf(
					"positions run against offsets: %s is %v at offset %d, %s is %v at offset %d", a.id, a.pos, a.offset, b.id, b.pos, b.offset)})
			}
		}
	}
}

// stream is one subscriber's history, being walked.
type stream struct {
	h       *History
	t       *truth
	s       *Subscriber
	r       *Report
	topic   string
	cursors map[int32]*cursor
	given   map[*entry]int  // how often each record was delivered
	told    map[*entry]bool // it was said to be lost, before the stream came to its place
	strange map[string]bool // breaches about what is in no order, once an id
	node    string
	began   bool // it has had a subscription
	skipped []skip
}

// cursor is the subscriber's place in one partition: what it has been given or told of.
type cursor struct {
	line *line
	mine []*entry // the records of its subject, by position
	next int      // the first of mine after pos
	pos  Pos
	// A partition that was in no vector yet: then all that was written after the subscription is due.
	unset bool
	since int64 // unix ms
}

// skip is a record that the stream went past.
type skip struct {
	e    *entry
	part Partition
	kind Kind // what it is a breach of, if it does not come after all
	at   time.Duration
	node string
	how  string
}

func judgeStream(h *History, t *truth, s *Subscriber, r *Report) {
	w := &stream{h: h, t: t, s: s, r: r, topic: topicOf(s.Subject), cursors: map[int32]*cursor{}, given: map[*entry]int{}, told: map[*entry]bool{}, strange: map[string]bool{}}
	for p, l := range t.lines {
		if p.Topic != w.topic {
			continue
		}
		c := &cursor{line: l, unset: true, since: 1<<63 - 1}
		for _, e := range l.order {
			if matches(s.Subject, e.subject) {
				c.mine = append(c.mine, e)
			}
		}
		w.cursors[p.Index] = c
	}
	for i := range s.Events {
		w.event(&s.Events[i])
	}
	if !w.began {
		if h.Settled && !s.Left {
			w.breach(1, NeverThere, nil, nil, "no subscription to "+s.Subject+" was made")
		}
		return
	}
	if h.Settled && !s.Left {
		for _, c := range w.sorted() {
			for _, e := range c.mine[c.next:] {
				if e.gone == "" && c.due(e) {
					w.skipped = append(w.skipped, skip{e, c.line.part, Lost, h.End, w.node, "had not come at the end"})
					if w.given[e] == 0 {
						r.Pending++
					}
				}
			}
		}
	}
	w.tellSkipped()
}

func (w *stream) sorted() []*cursor {
	var list []*cursor
	for _, c := range w.cursors {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *cursor) int { return cmp.Compare(a.line.part.Index, b.line.part.Index) })
	return list
}

func (w *stream) breach(n int, k Kind, e *Event, c *cursor, detail string) {
	b := Breach{Kind: k, Subscriber: w.s.Name, Detail: detail}
	if w.node != "" {
		b.Detail += ", on " + w.node
	}
	if e != nil {
		b.Time = e.Time
	}
	if c != nil {
		b.Partition = c.line.part.String()
	}
	w.r.breach(n, b)
}

func (w *stream) event(e *Event) {
	switch e.Kind {
	case Connect:
		w.node = e.Node
	case Subbed:
		w.subbed(e)
	case Gap:
		w.gap(e)
	case Msg:
		w.msg(e)
	case Violation:
		w.breach(1, WrongAnswer, e, nil, e.Message)
	}
}

// due says whether a record that the subscriber has not got is owed to it by its place alone.
func (c *cursor) due(e *entry) bool { return !c.unset || e.ts > c.since }

// advance moves the place to pos. What lies between was skipped: of is what that is a breach of, by
// whether Kafka still has it; "" is none.
func (w *stream) advance(c *cursor, pos Pos, e *Event, held, gone Kind, how string) {
	for ; c.next < len(c.mine) && !c.mine[c.next].pos.After(pos); c.next++ {
		m := c.mine[c.next]
		if m.pos == pos && e.Kind == Msg || !c.due(m) || w.given[m] > 0 {
			continue
		}
		switch {
		case m.gone != "" && w.told[m]:
			w.r.Declared++
		case m.gone == "" && held != "":
			w.skipped = append(w.skipped, skip{m, c.line.part, held, e.Time, w.node, how})
		case m.gone != "" && gone != "":
			w.skipped = append(w.skipped, skip{m, c.line.part, gone, e.Time, w.node, how})
		case m.gone != "" && held == FalseLoss:
			w.r.Declared++
		}
	}
	if pos.After(c.pos) {
		c.pos = pos
	}
	c.unset = false
}

// tellSkipped reports what was skipped and did not come later; what did was out of order, and told as that.
// A loss that was declared of a record that Kafka has is told in any case.
func (w *stream) tellSkipped() {
	for i := 0; i < len(w.skipped); {
		first := w.skipped[i]
		var ids []string
		n := 0
		for ; i < len(w.skipped); i++ {
			s := w.skipped[i]
			if s.kind != first.kind || s.part != first.part || s.at != first.at {
				break
			}
			if s.kind != FalseLoss && w.given[s.e] > 0 {
				continue
			}
			if n++; n <= 3 {
				ids = append(ids, fmt.Sprintf("%s %v offset %d", s.e.id, s.e.pos, s.e.offset))
			}
		}
		if n == 0 {
			continue
		}
		more := ""
		if n > len(ids) {
			more = fmt.Sprintf(" and %d more", n-len(ids))
		}
		w.node = first.node
		w.r.breach(n, Breach{Kind: first.kind, Subscriber: w.s.Name, Partition: first.part.String(), Time: first.at,
			Detail: fmt.Sprintf("%v%s %s, on %s", ids, more, first.how, or(first.node, "no node"))})
	}
}

func (w *stream) subbed(e *Event) {
	d := e.Detail
	if d == nil {
		d = &Detail{}
	}
	if !w.began || !d.Resumed {
		w.began = true
		now := w.h.Began.Add(e.Time).UnixMilli()
		for _, c := range w.cursors {
			c.pos, c.next, c.unset, c.since = Pos{}, 0, true, now
		}
		for _, at := range d.At {
			if c := w.cursors[at.Partition]; c != nil {
				w.advance(c, at.Pos, e, "", "", "")
			}
		}
		return
	}
	w.r.Resumes++
	held, gone, how := Lost, Undeclared, "left out by a resume that was said to be complete"
	if !d.Recovered {
		held, gone, how = FalseLoss, "", "said to be lost by a resume ("+d.Reason+"), and in Kafka"
		w.justify(e, d)
	}
	for _, at := range d.At {
		if c := w.cursors[at.Partition]; c != nil {
			w.advance(c, at.Pos, e, held, gone, how)
		}
	}
	for _, lost := range d.Lost {
		if c := w.cursors[lost.Partition]; c != nil && !d.Recovered {
			w.tell(c, func(m *entry) bool { return !lost.From.After(m.pos) && !m.pos.After(lost.To) })
		}
	}
}

// tell notes which of the records that are gone were said to be: a loss is told when the node knows of it, and
// that may be before the subscriber has what came before.
func (w *stream) tell(c *cursor, which func(m *entry) bool) {
	for _, m := range c.mine[c.next:] {
		if m.gone != "" && which(m) {
			w.told[m] = true
		}
	}
}

func (w *stream) gap(e *Event) {
	d := e.Detail
	if d == nil {
		d = &Detail{}
	}
	w.justify(e, d)
	for _, at := range d.At {
		if c := w.cursors[at.Partition]; c != nil {
			w.advance(c, at.Pos, e, FalseLoss, "", "said to be lost by a gap ("+d.Reason+"), and in Kafka")
			if now := w.h.Began.Add(e.Time).UnixMilli(); d.Reason == string(Truncated) { // of what there was by then
				w.tell(c, func(m *entry) bool {
					return m.gone != Deleted && m.ts <= now && (m.by == nil || m.by.Began <= e.Time) // nobody knows of what is to come
				})
			}
		}
	}
}

// justify reports a declaration of a loss that nothing that happened in Kafka explains.
func (w *stream) justify(e *Event, d *Detail) {
	for _, lost := range d.Lost {
		c := w.cursors[lost.Partition]
		if c == nil || !w.removedAfter(c, Pos{}, e.Time) {
			w.breach(1, FalseLoss, e, c, fmt.Sprintf("%v to %v of partition %d said to be lost (%s), and nothing was removed there", lost.From, lost.To, lost.Partition, d.Reason))
			continue
		}
		if d.Reason == string(Truncated) {
			continue // some of what lies between may still be there, and may come
		}
		for _, m := range c.mine {
			if m.gone == "" && !lost.From.After(m.pos) && !m.pos.After(lost.To) {
				w.breach(1, FalseLoss, e, c, fmt.Sprintf("%s %v said to be lost (%s), and in Kafka", m.id, m.pos, d.Reason))
			}
		}
	}
	if len(d.Lost) > 0 {
		return
	}
	for _, at := range d.At {
		if c := w.cursors[at.Partition]; c != nil && w.removedAfter(c, c.pos, e.Time) {
			return
		}
	}
	w.breach(1, FalseLoss, e, nil, "a loss was declared ("+d.Reason+"), and nothing that the subscriber had not got was removed")
}

// removedAfter says whether anything of the partition after a position had been removed from Kafka by some time.
// Offsets that were given to other records may have been after any.
func (w *stream) removedAfter(c *cursor, pos Pos, now time.Duration) bool {
	for _, rm := range c.line.removals {
		if rm.Began <= now && (rm.Kind != Deleted || rm.To == 0 || rm.To > c.line.offset(pos)+1) {
			return true
		}
	}
	return c.line.vague
}

func (w *stream) msg(e *Event) {
	w.r.Delivered++
	c := w.cursors[e.Partition]
	if c == nil || len(c.line.byID[e.ID]) == 0 {
		w.unknown(e, c)
		return
	}
	m := c.pick(e)
	switch {
	case e.Damaged && !m.damaged:
		w.breach(1, Damaged, e, c, fmt.Sprintf("the value of %s is not what was written", e.ID))
	case e.Subject != m.subject:
		w.breach(1, Damaged, e, c, fmt.Sprintf("%s is of %s and came as %s", e.ID, m.subject, e.Subject))
	case !matches(w.s.Subject, m.subject):
		w.breach(1, WrongAnswer, e, c, fmt.Sprintf("%s of %s came to a subscriber of %s", e.ID, m.subject, w.s.Subject))
	}
	w.given[m]++
	if n := w.given[m]; n > 1 {
		w.breach(1, Repeated, e, c, fmt.Sprintf("%s %v came %d times", e.ID, e.Pos, n))
		return
	}
	if m.second {
		w.breach(1, Doubled, e, c, fmt.Sprintf("%s %v, the second record of one message, came", e.ID, e.Pos))
		return
	}
	if !m.placed {
		return
	}
	if !c.unset && !m.pos.After(c.pos) {
		w.breach(1, OutOfOrder, e, c, fmt.Sprintf("%s %v came after %v", e.ID, m.pos, c.pos))
		return
	}
	w.checkPrev(e, c, m)
	w.advance(c, m.pos, e, Lost, Undeclared, fmt.Sprintf("did not come before %s %v", e.ID, m.pos))
}

// pick returns the incarnation of a message that an event is about.
func (c *cursor) pick(e *Event) *entry {
	list := c.line.byID[e.ID]
	for _, m := range list {
		if m.placed && m.pos == e.Pos {
			return m
		}
	}
	return list[0]
}

// unknown is a record that Kafka neither has nor had as far as anyone knows.
func (w *stream) unknown(e *Event, c *cursor) {
	fate, written := w.t.fate[e.ID]
	switch {
	case w.strange[e.ID]:
	case e.Damaged && !written:
		w.breach(1, Damaged, e, c, fmt.Sprintf("the record at %v of partition %d has lost its identity", e.Pos, e.Partition))
	case fate.Outcome == Aborted:
		w.breach(1, Phantom, e, c, fmt.Sprintf("%s %v is of an aborted transaction", e.ID, e.Pos))
	case c != nil && c.line.replaced(e.Pos) && (!written || fate.Outcome == Unknown):
		// It may have been in the part of the log that Kafka threw away.
	default:
		w.breach(1, Phantom, e, c, fmt.Sprintf("%s %v is not in partition %d in Kafka", e.ID, e.Pos, e.Partition))
	}
	w.strange[e.ID] = true
}

// checkPrev holds what a record says of its predecessor against the truth: a client believes it.
func (w *stream) checkPrev(e *Event, c *cursor, m *entry) {
	if e.Prev == (Pos{}) {
		return
	}
	sure := m.prev // the last before it whose position is known
	for sure != nil && sure.guessed {
		sure = sure.prev
	}
	switch {
	case !m.pos.After(e.Prev):
		w.breach(1, Disagree, e, c, fmt.Sprintf("%s %v names %v as the one before it", e.ID, m.pos, e.Prev))
	case sure != nil && sure.gone == "" && sure.pos.After(e.Prev):
		w.breach(1, Disagree, e, c, fmt.Sprintf("%s %v names %v as the one before it, and that is not before %s %v", e.ID, m.pos, e.Prev, sure.id, sure.pos))
	case sure != m.prev:
		// What is in between was in Kafka before this run, or nobody was told of it.
	case len(c.line.removals) == 0 && !c.line.vague && (m.prev == nil || e.Prev.After(m.prev.pos)):
		w.breach(1, Disagree, e, c, fmt.Sprintf("%s %v names %v as the one before it, and its subject has no record there", e.ID, m.pos, e.Prev))
	}
}
