package bridge

import "testing"

// Publishing while a topic was deleted and created again: the new topic's offset 0 was below the old
// ledger's next, so the publish was answered as replicated, with the old topic's position for it.
func TestALandingInANewLogIsNotTakenForAnOldOne(t *testing.T) {
	var l ledger
	tp := TopicPartition{"t", 0}
	l.start(1, startOp{TP: tp, First: 0})
	l.batch(1, batchOp{TP: tp, From: 0, Next: 20})
	p := &partition{tp: tp, ledger: l}

	usual := departure(p)
	usual.offset = 20
	again := departure(p) // the topic was created again meanwhile
	again.offset = 3
	for _, step := range []struct {
		what         string
		do           func()
		usual, again bool
	}{
		{"as written", func() {}, false, false},
		{"read on in the old log", func() { p.ledger.batch(1, batchOp{TP: tp, From: 20, Next: 21}) }, true, false},
		{"another coordinator", func() { p.ledger.batch(2, batchOp{TP: tp, From: 21, Next: 22}) }, true, false},
		{"reset", func() { p.ledger.reset(2, resetOp{TP: tp, Expect: 22, First: 0, Reason: ReasonTruncated}) }, false, false},
		{"read to before it", func() { p.ledger.batch(2, batchOp{TP: tp, From: 0, Next: 3}) }, false, false},
		{"read past it", func() { p.ledger.batch(2, batchOp{TP: tp, From: 3, Next: 4}) }, false, true},
	} {
		step.do()
		if got := usual.in(&p.ledger); got != step.usual {
			t.Errorf("%s: the record of the old log is taken: %v", step.what, got)
		}
		if got := again.in(&p.ledger); got != step.again {
			t.Errorf("%s: the record of the new log is taken: %v", step.what, got)
		}
	}
}
