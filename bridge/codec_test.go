package bridge

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sampleOps() []op {
	tp := TopicPartition{"orders", 7}
	return []op{
		&startOp{TP: tp, Topic: TopicID{1, 2, 3}, Partitions: 12, First: 100},
		&startOp{TP: tp, Partitions: 1, First: 9, AtStart: 3, Scattered: true, Epochs: epochList{{3, 0, 4}, {1004, 4, 9}}, Leaders: leaderList{{0, 0}, {7, 4}}},
		&batchOp{TP: tp, From: 100, Next: 110, Leader: 5, Records: []Record{
			{Offset: 100, Timestamp: 1700000000000},
			{Offset: 101, Timestamp: 1700000000001, Key: []byte{}, Value: []byte{}},
			{Offset: 105, Timestamp: 5, Key: []byte("k"), Value: []byte("v"), Headers: []Header{
				{"h", nil}, {"h", []byte{}}, {"", []byte("x")},
			}},
			{Offset: 109, Timestamp: -1, Key: []byte{0xff}, Value: []byte("long enough to matter")},
		}},
		&batchOp{TP: tp, From: 110, Next: 120, Leader: NoLeaderEpoch},
		&batchOp{TP: TopicPartition{"", 0}},
		&resetOp{TP: tp, Topic: TopicID{9}, Expect: 120, First: 3, Reason: ReasonTruncated},
		&noteOp{TP: tp, Partitions: 13, Scattered: true},
		&noteOp{TP: tp, Partitions: 13},
		&recallOp{TP: tp, Next: 120, Mids: []midEntry{{midKey{1}, 0}, {midKey{2}, 118}, {midKey{255}, 119}}, Dropped: []Offset{7, 119}},
		&recallOp{TP: tp, Next: 0},
		&revokeOp{Now: 1_700_000_000_000, Revocations: sampleRevocations().list()},
		&revokeOp{Now: maxUnixMs},
	}
}

func encodeOps(ops []op) []byte {
	b := newEntry(0)
	for _, o := range ops {
		b = o.appendTo(b)
	}
	return b
}

func TestEntryRoundTrip(t *testing.T) {
	ops := sampleOps()
	got, err := decodeEntry(encodeOps(ops))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, ops) {
		t.Fatalf("got %+v\nwant %+v", got, ops)
	}
	if got, err := decodeEntry(newEntry(0)); err != nil || len(got) != 0 {
		t.Fatalf("entry without operations: %v %v", got, err)
	}
	rapid.Check(t, func(t *rapid.T) {
		o := &batchOp{TP: ledgerTP, From: Offset(rapid.Int64Range(0, 1<<61).Draw(t, "from"))}
		bytesOrNil := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 20))
		at := o.From
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			at += Offset(rapid.Int64Range(0, 1<<40).Draw(t, "hole"))
			r := Record{Offset: at, Timestamp: rapid.Int64().Draw(t, "ts"), Key: bytesOrNil.Draw(t, "key"), Value: bytesOrNil.Draw(t, "value")}
			for range rapid.IntRange(0, 3).Draw(t, "headers") {
				r.Headers = append(r.Headers, Header{rapid.String().Draw(t, "name"), bytesOrNil.Draw(t, "header")})
			}
			o.Records = append(o.Records, r)
			at++
		}
		o.Next = at + Offset(rapid.Int64Range(0, 9).Draw(t, "tail"))
		got, err := decodeEntry(encodeOps([]op{o}))
		if err != nil || !reflect.DeepEqual(got, []op{o}) {
			t.Fatalf("%v: got %+v, want %+v", err, got, o)
		}
	})
}

// An entry that is cut anywhere but between operations is an error and is never applied in part.
func TestEntryCutShort(t *testing.T) {
	whole := newEntry(0)
	ends := map[int]bool{len(whole): true}
	for _, o := range sampleOps() {
		whole = o.appendTo(whole)
		ends[len(whole)] = true
	}
	for n := range whole {
		_, err := decodeEntry(whole[:n])
		if ends[n] != (err == nil) {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
		if n > 0 && err != nil && !errors.Is(err, errShort) {
			t.Errorf("cut at %d: %v is not errShort", n, err)
		}
	}
}

func TestEntryRefused(t *testing.T) {
	tp := appendTP(nil, ledgerTP)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f} // 2^63-1 as uvarint
	for name, b := range map[string][]byte{
		"empty":                    {},
		"other format":             {2},
		"unknown operation":        {entryFormat, 99},
		"topic longer than input":  join([]byte{entryFormat, kindBatch}, huge),
		"negative from":            join([]byte{entryFormat, kindBatch}, tp, []byte{1, 0, 0}),
		"next before from":         join([]byte{entryFormat, kindBatch}, tp, []byte{4, 2, 0}),
		"count beyond input":       join([]byte{entryFormat, kindBatch}, tp, []byte{0, 2, 1}, huge),
		"record beyond next":       join([]byte{entryFormat, kindBatch}, tp, []byte{0, 2, 1, 1, 1, 0, 0, 0, 0}),
		"two at one offset":        join([]byte{entryFormat, kindBatch}, tp, []byte{0, 4, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}),
		"headers beyond input":     join([]byte{entryFormat, kindBatch}, tp, []byte{0, 2, 1, 1, 0, 0, 0, 0}, huge),
		"epoch's end overflows":    join([]byte{entryFormat}, (&startOp{TP: ledgerTP, Epochs: epochList{{1, 1 << 62, -1 << 63}}}).appendTo(nil)),
		"leader epoch below -1":    join([]byte{entryFormat, kindBatch}, tp, []byte{0, 2, 3, 0}),
		"leader epochs fall":       join([]byte{entryFormat}, (&startOp{TP: ledgerTP, Leaders: leaderList{{2, 1}, {1, 3}}}).appendTo(nil)),
		"leader epochs' offsets":   join([]byte{entryFormat}, (&startOp{TP: ledgerTP, Leaders: leaderList{{1, 1}, {2, 1}}}).appendTo(nil)),
		"epochs fall":              join([]byte{entryFormat}, (&startOp{TP: ledgerTP, Epochs: epochList{{2, 0, 1}, {2, 1, 1}}}).appendTo(nil)),
		"epoch out of reason":      join([]byte{entryFormat}, (&startOp{TP: ledgerTP, Epochs: epochList{{1 << 60, 0, 1}}}).appendTo(nil)),
		"id behind next":           encodeOps([]op{&recallOp{TP: ledgerTP, Next: 5, Mids: []midEntry{{Offset: 5}}}}),
		"ids at one offset":        encodeOps([]op{&recallOp{TP: ledgerTP, Next: 5, Mids: []midEntry{{Offset: 3}, {Offset: 3}}}}),
		"ids' offsets fall":        encodeOps([]op{&recallOp{TP: ledgerTP, Next: 5, Mids: []midEntry{{Offset: 3}, {Offset: 2}}}}),
		"repeat behind next":       encodeOps([]op{&recallOp{TP: ledgerTP, Next: 5, Dropped: []Offset{1, 5}}}),
		"ids beyond the window":    encodeOps([]op{recallOfMany(midWindowSize+1, 0)}),
		"repeats beyond bounds":    encodeOps([]op{recallOfMany(0, maxDropped+1)}),
		"revocation by nothing":    join([]byte{entryFormat}, (&revokeOp{Revocations: []Revocation{{By: 3, Value: "x"}}}).appendTo(nil)),
		"revocation of nobody":     join([]byte{entryFormat}, (&revokeOp{Revocations: []Revocation{{By: BySubject}}}).appendTo(nil)),
		"revocation of too much":   join([]byte{entryFormat}, (&revokeOp{Revocations: []Revocation{{By: BySubject, Value: strings.Repeat("x", MaxRevocationValue+1)}}}).appendTo(nil)),
		"revocation not in UTF-8":  join([]byte{entryFormat}, (&revokeOp{Revocations: []Revocation{{By: BySubject, Value: "\xff"}}}).appendTo(nil)),
		"revocation for ever":      join([]byte{entryFormat}, (&revokeOp{Revocations: []Revocation{{By: BySubject, Value: "x", At: 1, Until: maxUnixMs + 1}}}).appendTo(nil)),
		"revoked at no time":       join([]byte{entryFormat, kindRevoke}, huge, []byte{0}),
		"revocations beyond input": join([]byte{entryFormat, kindRevoke, 0}, huge),
		"partition over 31 bits":   join([]byte{entryFormat, kindNote, 1, 't'}, huge, []byte{1, 0}),
	} {
		if ops, err := decodeEntry(b); err == nil {
			t.Errorf("%s: taken as %+v", name, ops)
		}
	}
}

// recallOfMany is a recall of so many ids and repeats.
func recallOfMany(mids, dropped int) *recallOp {
	o := &recallOp{TP: ledgerTP, Next: 1 << 40}
	for i := range mids {
		o.Mids = append(o.Mids, midEntry{midKey{byte(i), byte(i >> 8)}, Offset(i) << 20})
	}
	for i := range dropped {
		o.Dropped = append(o.Dropped, Offset(i)<<20)
	}
	return o
}

// The largest recall is far from the size where an entry is closed.
func TestRecallFitsAnEntry(t *testing.T) {
	b := encodeOps([]op{recallOfMany(midWindowSize, maxDropped)})
	if _, err := decodeEntry(b); err != nil || len(b) > maxEntryBytes/2 {
		t.Errorf("%d bytes: %v", len(b), err)
	}
}

// A count in the input never makes the decoder allocate more than a few times the input's size.
func TestEntryAllocationBounded(t *testing.T) {
	body := make([]byte, 1<<16)
	claim := append(newEntry(0), kindBatch)
	claim = appendTP(claim, ledgerTP)
	claim = append(claim, 0, 2, 1, 0xff, 0xff, 0xff, 0xff, 0x0f)
	claim = append(claim, body...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		if _, err := decodeEntry(claim); err == nil {
			t.Fatal("taken")
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / 10; got > 64<<10 {
		t.Fatalf("%d bytes allocated for a count that cannot be", got)
	}
}

func sampleLedgers(partitions, mids int) map[TopicPartition]*ledger {
	m := make(map[TopicPartition]*ledger)
	for p := range int32(partitions) {
		l := new(ledger)
		l.start(3, startOp{Topic: TopicID{1, byte(p)}, Partitions: int32(partitions), AtStart: int32(partitions), First: 1000})
		for i := range mids {
			o := l.next()
			l.batch(3, batchOp{From: o, Next: o + 2, Records: []Record{midRecord(o, "u", fmt.Sprint(i%(mids-1)))}})
		}
		for term := Term(4); term < 7; term++ {
			l.batch(term, batchOp{From: l.next(), Next: l.next() + 1000, Leader: LeaderEpoch(term)})
		}
		l.note(noteOp{Partitions: int32(partitions), Scattered: p%2 == 0})
		m[TopicPartition{"prices", p}] = l
	}
	return m
}

func TestSnapshotRoundTripAndSize(t *testing.T) {
	for _, mids := range []int{0, 30} {
		m := sampleLedgers(12, mids)
		b := encodeSnapshot(m, nil)
		if mids == 0 && len(b) >= 4<<10 {
			t.Errorf("12 partitions take %d bytes", len(b))
		}
		got, _, err := decodeSnapshot(b)
		if err != nil || len(got) != 12 {
			t.Fatalf("%d ledgers, %v", len(got), err)
		}
		if !bytes.Equal(encodeSnapshot(got, nil), b) {
			t.Fatal("the restored state encodes otherwise")
		}
		for tp, l := range m {
			g := got[tp]
			if g.topic != l.topic || g.term != l.term || g.partitions != l.partitions || g.atStart != l.atStart || !reflect.DeepEqual(g.leaders, l.leaders) || g.scattered != l.scattered ||
				!reflect.DeepEqual(g.epochs, l.epochs) || !reflect.DeepEqual(g.dropped, l.dropped) ||
				!reflect.DeepEqual(g.mids.entries(), l.mids.entries()) {
				t.Fatalf("%v: got %+v, want %+v", tp, g, l)
			}
		}
		step := max(1, len(b)/3000)
		for n := 0; n < len(b); n += step {
			if _, _, err := decodeSnapshot(b[:n]); err == nil {
				t.Fatalf("cut at %d of %d is taken", n, len(b))
			}
		}
		if _, _, err := decodeSnapshot(append(b, 0)); err == nil {
			t.Fatal("a byte too many is taken")
		}
	}
	if got, _, err := decodeSnapshot(encodeSnapshot(nil, nil)); err != nil || len(got) != 0 {
		t.Fatalf("empty group: %v %v", got, err)
	}
	if _, _, err := decodeSnapshot([]byte{3, 0}); err == nil || !strings.Contains(err.Error(), "format 3") {
		t.Fatalf("other format: %v", err)
	}
}

func TestMetadataRoundTrip(t *testing.T) {
	l := sampleLedgers(1, 0)[TopicPartition{"prices", 0}]
	s := l.metadata()
	o, ours, err := parseMetadata(s, l.next())
	want := startOp{Topic: l.topic, AtStart: 1, Scattered: true, First: l.next(), Epochs: l.epochs, Leaders: l.leaders}
	if err != nil || !ours || !reflect.DeepEqual(o, want) {
		t.Fatalf("got %+v %v %v, want %+v", o, ours, err, want)
	}
	if _, ours, err := parseMetadata(s, l.next()+1); err == nil || ours {
		t.Fatal("metadata of another offset is taken")
	}
	for n := range s {
		if _, ours, _ := parseMetadata(s[:n], l.next()); ours {
			t.Fatalf("cut at %d of %d is taken", n, len(s))
		}
	}
	for _, foreign := range []string{"", "x", "tw2:AAAA", "{}"} {
		if _, ours, err := parseMetadata(foreign, 3); ours || err != nil {
			t.Errorf("%q: ours %v, %v", foreign, ours, err)
		}
	}
	if _, ours, err := parseMetadata("tw1:***", 3); ours || err == nil {
		t.Error("malformed base64 is taken")
	}
}

// The newest epochs that fit Kafka's limit travel, however long the ledger has lived.
func TestMetadataOfALongLifeFits(t *testing.T) {
	l := new(ledger)
	l.start(1, startOp{First: 1 << 60})
	for term := Term(2); term < 2*maxEpochs; term++ {
		l.batch(term, batchOp{From: l.next(), Next: l.next() + 1<<40})
	}
	s := l.metadata()
	o, ours, err := parseMetadata(s, l.next())
	epochs := o.Epochs
	if len(s) > maxMetadata || err != nil || !ours {
		t.Fatalf("%d bytes, ours %v, %v", len(s), ours, err)
	}
	if len(s) < maxMetadata/2 || !reflect.DeepEqual(epochs, l.epochs[len(l.epochs)-len(epochs):]) {
		t.Fatalf("%d of %d epochs in %d bytes", len(epochs), len(l.epochs), len(s))
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(encodeOps(sampleOps()))
	for _, o := range sampleOps() {
		f.Add(encodeOps([]op{o}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := decodeEntry(encodeOps(ops))
		if err != nil || !reflect.DeepEqual(again, ops) {
			t.Fatalf("%v: %+v encodes to %+v", err, ops, again)
		}
		l := new(ledger) // what can be decoded can be applied
		for i, o := range ops {
			term := Term(i)
			switch o := o.(type) {
			case *startOp:
				l.start(term, *o)
			case *batchOp:
				if s, ok := l.batch(term, *o); ok {
					mustRiseTo(t, s)
				}
			case *resetOp:
				l.reset(term, *o)
			case *noteOp:
				l.note(*o)
			case *recallOp:
				l.recall(*o)
			case *revokeOp:
				mustRevoke(t, o)
			}
			if l.started() {
				checkLedger(t, l)
			}
		}
	})
}

func mustRiseTo(t *testing.T, s stamped) {
	last := Position{}
	for _, p := range s.Positions {
		if !p.After(last) {
			t.Fatalf("positions do not rise: %v", s.Positions)
		}
		last = p
	}
	if last.After(s.Head) || len(s.Positions) != len(s.Records) {
		t.Fatalf("%d records with %d positions up to %v, head %v", len(s.Records), len(s.Positions), last, s.Head)
	}
}

// checkLedger asks a ledger made of foreign bytes everything it can be asked.
func checkLedger(t *testing.T, l *ledger) {
	for i, e := range l.epochs {
		if e.First < 0 || e.End < e.First || e.Epoch == 0 || i > 0 && e.Epoch <= l.epochs[i-1].Epoch {
			t.Fatalf("epochs %v", l.epochs)
		}
		l.epochs.resolve(at(e.Epoch, 0))
		l.epochs.resolve(at(e.Epoch, 1<<63+1))
		l.epochs.before(e.End)
		l.epochs.position(e.First)
	}
	l.epochs.resolve(Position{})
	l.epochs.resolve(at(1<<63+l.epochs[0].Epoch, 3))
	if len(l.epochs) > maxEpochs || len(l.dropped) > maxDropped || len(l.mids.ring) > midWindowSize {
		t.Fatal("a bound is broken")
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add(encodeSnapshot(nil, nil))
	f.Add(encodeSnapshot(sampleLedgers(1, 0), nil))
	f.Add(encodeSnapshot(sampleLedgers(3, 5), nil))
	f.Add(encodeSnapshot(sampleLedgers(1, 0), sampleRevocations()))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, revoked, err := decodeSnapshot(b)
		if err != nil {
			return
		}
		for _, l := range m {
			checkLedger(t, l)
		}
		if len(revoked) > MaxRevocations {
			t.Fatalf("%d revocations", len(revoked))
		}
		for _, r := range revoked.list() {
			if err := r.Validate(); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
		}
		again, also, err := decodeSnapshot(encodeSnapshot(m, revoked))
		if err != nil || !maps.Equal(also, revoked) || !bytes.Equal(encodeSnapshot(again, also), encodeSnapshot(m, revoked)) {
			t.Fatalf("does not encode to itself: %v", err)
		}
	})
}

func FuzzMetadata(f *testing.F) {
	for _, l := range sampleLedgers(2, 0) {
		f.Add(l.metadata(), int64(l.next()))
	}
	f.Add("tw1:", int64(0))
	f.Add("tw1:"+base64.RawURLEncoding.EncodeToString(make([]byte, 20)), int64(0))
	f.Fuzz(func(t *testing.T, s string, offset int64) {
		o, ours, err := parseMetadata(s, Offset(offset))
		if !ours || err != nil {
			return
		}
		l := new(ledger)
		l.start(1, o)
		checkLedger(t, l)
		if l.next() != Offset(offset) {
			t.Fatalf("next %d, committed %d", l.next(), offset)
		}
		if m := l.metadata(); len(m) > maxMetadata {
			t.Fatalf("%d bytes", len(m))
		}
	})
}
