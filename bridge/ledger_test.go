package bridge

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var ledgerTP = TopicPartition{"t", 3}

func at(e Epoch, s Seqno) Position { return Position{Epoch: e, Seqno: s} }

// ledgerBytes is the snapshot of one ledger.
func ledgerBytes(l *ledger) []byte {
	return encodeSnapshot(map[TopicPartition]*ledger{ledgerTP: l}, nil)
}

func restored(t interface{ Fatalf(string, ...any) }, b []byte) *ledger {
	ledgers, _, err := decodeSnapshot(b)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	return ledgers[ledgerTP]
}

// midRecord is a record with the headers of a publish.
func midRecord(o Offset, user, mid string) Record {
	r := Record{Offset: o, Timestamp: int64(o) * 10, Key: []byte("k"), Value: fmt.Appendf(nil, "v%d", o)}
	if mid != "" {
		r.Headers = append(r.Headers, Header{HeaderMid, []byte(mid)})
	}
	if user != "" {
		r.Headers = append(r.Headers, Header{HeaderUser, []byte(user)})
	}
	return r
}

// ledgerRun drives two ledgers and their twin through the same random operations. The second ledger is
// now and then replaced by what its snapshot restores to.
type ledgerRun struct {
	t     *rapid.T
	a, b  *ledger
	w     *twin
	term  Term
	fresh int // how many ids have been used once
	// leader is Kafka's leader epoch of the next batch.
	leader LeaderEpoch
}

func (r *ledgerRun) draw(lo, hi int, what string) int { return rapid.IntRange(lo, hi).Draw(r.t, what) }

// batch is a run of offsets around next: most often it follows on, else it overlaps, repeats or leaves
// a hole that must not be taken. Not every offset in it holds a record.
func (r *ledgerRun) batch() {
	if r.draw(0, 5, "new term") == 0 {
		r.term++
	}
	shift := 0
	switch r.draw(0, 6, "where") {
	case 0:
		shift = -r.draw(1, 12, "back")
	case 1:
		shift = r.draw(1, 3, "ahead")
	}
	op := batchOp{TP: ledgerTP, From: max(0, r.w.next+Offset(shift))}
	n := r.draw(0, 8, "offsets")
	if r.draw(0, 30, "burst") == 0 {
		n = midWindowSize + 50 // everything falls out of the window
	}
	op.Next = op.From + Offset(n)
	switch r.draw(0, 6, "leader") {
	case 0:
		r.leader += LeaderEpoch(r.draw(1, 2, "leaders"))
		op.Leader = r.leader
	case 1:
		op.Leader = NoLeaderEpoch
	default:
		op.Leader = r.leader
	}
	for o := op.From; o < op.Next; o++ {
		switch {
		case n > 20:
			r.fresh++
			op.Records = append(op.Records, midRecord(o, "", fmt.Sprint("fresh", r.fresh)))
		case r.draw(0, 3, "hole") > 0:
			user := []string{"", "u", "v"}[r.draw(0, 2, "user")]
			mid := []string{"", "", "m1", "m2", "m3"}[r.draw(0, 4, "mid")]
			op.Records = append(op.Records, midRecord(o, user, mid))
		}
	}
	next := r.w.next
	records, positions, repeats, ok := r.w.batch(r.term, op)
	for _, l := range []*ledger{r.a, r.b} {
		before := ledgerBytes(l)
		s, lok := l.batch(r.term, op)
		if lok != ok {
			r.t.Fatalf("batch [%d,%d) at next %d: accepted %v", op.From, op.Next, next, lok)
		}
		if !ok || op.Next <= next {
			if !bytes.Equal(before, ledgerBytes(l)) {
				r.t.Fatalf("batch [%d,%d) at next %d changed the ledger", op.From, op.Next, next)
			}
			if len(s.Records) != 0 {
				r.t.Fatalf("batch [%d,%d) at next %d gave records", op.From, op.Next, next)
			}
			continue
		}
		if len(records)+len(s.Records) > 0 && !reflect.DeepEqual(records, s.Records) ||
			len(positions)+len(s.Positions) > 0 && !reflect.DeepEqual(positions, s.Positions) ||
			s.Repeats != repeats || s.Head != r.w.head() {
			r.t.Fatalf("batch [%d,%d): got %+v, want %v %v, %d repeats, head %v", op.From, op.Next, s, records, positions, repeats, r.w.head())
		}
	}
}

// reset truncates back, jumps forward or begins again at 0; sometimes it comes too late.
func (r *ledgerRun) reset() {
	op := resetOp{TP: ledgerTP, Topic: r.w.topic, Expect: r.w.next, Reason: ReasonTruncated}
	switch r.draw(0, 3, "reset") {
	case 0:
		op.First = max(0, r.w.next-Offset(r.draw(0, 25, "back")))
	case 1:
		op.First = r.w.next + Offset(r.draw(0, 20, "forward"))
	case 2:
		op.Topic[0]++
		op.First = Offset(r.draw(0, 10, "first of another topic"))
	case 3:
		op.Expect += Offset(r.draw(1, 2, "late"))
	}
	if r.draw(0, 1, "new term") == 0 {
		r.term++
	}
	r.leader++
	want := r.w.reset(r.term, op)
	for _, l := range []*ledger{r.a, r.b} {
		if l.reset(r.term, op) != want {
			r.t.Fatalf("reset %+v: want %v", op, want)
		}
	}
}

// reborn takes the ledgers up again from the metadata of the group's commits.
func (r *ledgerRun) reborn() {
	m := r.a.metadata()
	if len(m) > maxMetadata {
		r.t.Fatalf("metadata of %d bytes", len(m))
	}
	op, ours, err := parseMetadata(m, r.w.next)
	if err != nil || !ours {
		r.t.Fatalf("parse metadata: ours %v, %v", ours, err)
	}
	told := len(r.a.epochs)
	if r.a.takenUp() { // twice in a row: the commits tell of the epoch that nothing was read in
		r.w.open(0, r.w.next)
		told++
	}
	if told <= 64 && len(op.Epochs) != told {
		r.t.Fatalf("metadata holds %d of %d epochs", len(op.Epochs), told)
	}
	r.w.reborn(op.Epochs[0].Epoch, 4)
	extended := r.draw(0, 5, "given out after the commit")
	r.w.extend(extended)
	op.TP, op.Partitions = ledgerTP, 4
	op.Epochs.last().End += Offset(extended)
	op.First = r.w.next
	r.a, r.b = new(ledger), new(ledger)
	for _, l := range []*ledger{r.a, r.b} {
		if !l.start(r.term, op) {
			r.t.Fatalf("start from metadata refused")
		}
		if l.topic != r.w.topic {
			r.t.Fatalf("topic id %v from metadata, want %v", l.topic, r.w.topic)
		}
	}
}

// recall brings ids of an earlier life, most often when the ledger may take them.
func (r *ledgerRun) recall() {
	if r.w.term != 0 && r.draw(0, 3, "in vain") > 0 {
		r.reborn()
	}
	rec := &recallOp{TP: ledgerTP, Next: r.w.next}
	if r.draw(0, 5, "elsewhere") == 0 {
		rec.Next += Offset(r.draw(1, 2, "ahead"))
	}
	var mids []twinMid
	n := min(Offset(r.draw(0, 6, "ids")), rec.Next)
	for o := rec.Next - n; o < rec.Next; o++ {
		m := midRecord(o, "u", fmt.Sprint("m", o%5)) // some come twice
		id, _ := twinID(m)
		if slices.ContainsFunc(mids, func(w twinMid) bool { return w.id == id }) {
			rec.Dropped = append(rec.Dropped, o)
			continue
		}
		k, _ := midOf(m.Headers)
		mids, rec.Mids = append(mids, twinMid{id, o}), append(rec.Mids, midEntry{k, o})
	}
	ops, err := decodeEntry(encodeOps([]op{rec}))
	if err != nil {
		r.t.Fatalf("recall: %v", err)
	}
	want := r.w.recall(rec.Next, mids, rec.Dropped)
	for _, l := range []*ledger{r.a, r.b} {
		if l.recall(*ops[0].(*recallOp)) != want {
			r.t.Fatalf("recall at %d, the ledger at %d: want %v", rec.Next, l.next(), want)
		}
	}
}

// terms opens epochs until the oldest fall out of the list.
func (r *ledgerRun) terms() {
	for range r.draw(1, maxEpochs+20, "terms") {
		r.term++
		op := batchOp{TP: ledgerTP, From: r.w.next, Next: r.w.next + 1, Leader: r.leader, Records: []Record{midRecord(r.w.next, "", "")}}
		r.w.batch(r.term, op)
		r.a.batch(r.term, op)
		r.b.batch(r.term, op)
	}
}

func (r *ledgerRun) check() {
	for _, l := range []*ledger{r.a, r.b} {
		if l.next() != r.w.next || l.head() != r.w.head() || l.next() != l.epochs.last().End {
			r.t.Fatalf("next %d head %v, want %d %v", l.next(), l.head(), r.w.next, r.w.head())
		}
		if len(l.epochs) > maxEpochs || l.epochs[0].Epoch != r.w.oldest {
			r.t.Fatalf("%d epochs from %d on, want from %d", len(l.epochs), l.epochs[0].Epoch, r.w.oldest)
		}
		for i := range l.epochs {
			if i > 0 && l.epochs[i].Epoch <= l.epochs[i-1].Epoch || l.epochs[i].End < l.epochs[i].First {
				r.t.Fatalf("epochs do not rise: %v", l.epochs)
			}
		}
		if len(l.dropped)+len(r.w.dropped) > 0 && !slices.Equal(l.dropped, r.w.dropped) {
			r.t.Fatalf("dropped %v, want %v", l.dropped, r.w.dropped)
		}
		if want := r.w.leaderList(); len(l.leaders)+len(want) > 0 && !slices.Equal(l.leaders, want) {
			r.t.Fatalf("leader epochs %v, want %v", l.leaders, want)
		}
		mids := l.mids.entries()
		if len(mids) != len(r.w.mids) || len(l.mids.index) != len(mids) {
			r.t.Fatalf("%d mids (%d in the index), want %d", len(mids), len(l.mids.index), len(r.w.mids))
		}
		for i, m := range mids {
			if o, ok := l.mids.find(m.Key); !ok || o != m.Offset || o != r.w.mids[i].off {
				r.t.Fatalf("mid %d at %d, found at %d (%v), want %d", i, m.Offset, o, ok, r.w.mids[i].off)
			}
		}
	}
	if !bytes.Equal(ledgerBytes(r.a), ledgerBytes(r.b)) {
		r.t.Fatalf("the same operations gave different states")
	}
	switch r.draw(0, 5, "look") {
	case 0:
		r.b = restored(r.t, ledgerBytes(r.b))
	case 1:
		r.checkPositions()
	}
}

// checkPositions compares the arithmetic with the history, both ways.
func (r *ledgerRun) checkPositions() {
	l := r.a
	var old []Record
	var want []Record
	alive := r.w.alive()
	for o, e := range alive {
		if e.pos.Epoch < r.w.oldest {
			continue
		}
		old = append(old, Record{Offset: o})
		if e.rec || !slices.Contains(r.w.dropped, o) {
			want = append(want, Record{Offset: o})
		}
		pos, ok := l.epochs.position(o)
		if !ok || pos != e.pos {
			r.t.Fatalf("offset %d has position %v (%v), want %v", o, pos, ok, e.pos)
		}
		before := l.epochs.before(o)
		if before != at(e.pos.Epoch, e.pos.Seqno-1) {
			r.t.Fatalf("before %d is %v, the record is at %v", o, before, e.pos)
		}
		if on, ok := l.epochs.resolve(before); !ok || on.Next != o {
			r.t.Fatalf("from before %d on at %+v (%v)", o, on, ok)
		}
	}
	if b := l.before(r.w.next); b != r.w.head() {
		r.t.Fatalf("before next is %v, the head is %v", b, r.w.head())
	}
	s := l.stampOld(old, r.w.next)
	if len(s.Records) != len(want) {
		r.t.Fatalf("%d old records stamped, want %d", len(s.Records), len(want))
	}
	for i, rec := range s.Records {
		if s.Positions[i] != alive[rec.Offset].pos {
			r.t.Fatalf("old record %d stamped %v, want %v", rec.Offset, s.Positions[i], alive[rec.Offset].pos)
		}
	}
}

// checkResolve asks for one position.
func (r *ledgerRun) checkResolve(p Position) {
	got, ok := r.a.epochs.resolve(p)
	want, wantOK := r.w.resolve(p)
	if ok != wantOK || ok && got != want {
		r.t.Fatalf("resolve %v: %+v %v, want %+v %v\nepochs %v", p, got, ok, want, wantOK, r.a.epochs)
	}
}

func TestLedgerAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &ledgerRun{t: t, a: new(ledger), b: new(ledger), w: new(twin), term: 1}
		if _, ok := r.a.batch(1, batchOp{Next: 1}); ok || r.a.reset(1, resetOp{}) || r.a.note(noteOp{Partitions: 1}) {
			t.Fatalf("a ledger that has not been started took an operation")
		}
		start := startOp{TP: ledgerTP, Partitions: 4, First: Offset(r.draw(0, 50, "first"))}
		r.w.start(1, start)
		r.a.start(1, start)
		r.b.start(1, start)
		if r.a.start(2, start) {
			t.Fatalf("started twice")
		}
		long := r.draw(0, 20, "long life") == 0
		for range r.draw(1, 25, "steps") {
			switch k := r.draw(0, 13, "op"); {
			case k <= 7:
				r.batch()
			case k <= 10:
				r.reset()
			case k == 11:
				r.reborn()
			case k == 12:
				r.recall()
			case long:
				r.terms()
			}
			r.check()
		}
		r.checkPositions()
		// Every position that was ever given out (some of them, of a long life), and some that never were.
		step := 1 + len(r.w.history)/50
		for i := 0; i < len(r.w.history); i += step {
			r.checkResolve(r.w.history[i].pos)
		}
		r.checkResolve(Position{})
		r.checkResolve(at(0, 1))
		for range 20 {
			r.checkResolve(at(Epoch(r.draw(0, int(r.w.epoch)+1, "epoch")), Seqno(r.draw(0, 60, "seqno"))))
		}
		for _, e := range r.a.epochs { // just past the end of each epoch
			r.checkResolve(at(e.Epoch, Seqno(e.End-e.First)+1))
			r.checkResolve(at(e.Epoch, 1<<63))
		}
	})
}
