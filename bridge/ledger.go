package bridge

import "slices"

// A ledger is the replicated state of one partition: which offset it takes next, and which epochs
// there have been. It is a deterministic core: the same operations in the same order give the same
// state on every node. It reads no clock, starts nothing and calls nobody.
//
// Invariants, kept by every operation:
//
//  1. next is the End of the last epoch.
//  2. Epochs rise strictly: by one, and after an adoption from commits by rebirthLeap.
//  3. A record is stamped at most once: an offset below next is dropped.
//  4. No offset is left out: a batch that begins beyond next is refused whole.
type ledger struct {
	topic  TopicID
	epochs epochList
	// term is the Raft term in which the epoch in force was opened; a batch of a later term opens
	// the next one. Zero after the ledger was taken up from commits, until the first batch.
	term Term
	// leaders are Kafka's leader epochs of what was read last.
	leaders leaderList
	// partitions is how many partitions the topic had when that was last noted, atStart how many when
	// this one was first read: those beyond came while the cluster watched.
	partitions int32
	atStart    int32
	// scattered: a record was found where murmur2 would not have put its key, or the topic grew.
	scattered bool
	mids      midWindow
	// dropped are the offsets of records that were left out as repeats of a publish, rising; a
	// reader of Kafka must leave them out too. Bounded like the window.
	dropped []Offset
}

// maxDropped bounds the list of repeats that a ledger keeps. A repeat reaches Kafka only when a
// coordinator dies between Kafka's acknowledgement and the client's, so this spans many failovers.
const maxDropped = 1024

// startOp begins a partition that the cluster has not read, or one whose epochs were taken from the
// group's commits (epochs not empty; next is their last End).
type startOp struct {
	TP         TopicPartition
	Topic      TopicID
	Partitions int32 // of the topic now
	AtStart    int32 // of the topic when the partition was first read
	Scattered  bool
	First      Offset
	Epochs     epochList
	Leaders    leaderList
}

// batchOp brings the records of [From, Next).
type batchOp struct {
	TP      TopicPartition
	From    Offset
	Next    Offset
	Leader  LeaderEpoch // Kafka's, of all of it
	Records []Record
}

// resetOp opens a new epoch at First because Kafka no longer holds the ledger's next offset, or holds
// another topic under the name. It is refused unless the ledger still expects Expect.
type resetOp struct {
	TP     TopicPartition
	Topic  TopicID
	Expect Offset
	First  Offset
	Reason string
}

// noteOp records what the coordinator learned about the topic.
type noteOp struct {
	TP         TopicPartition
	Partitions int32
	Scattered  bool
}

// recallOp brings the message ids of records before Next that an earlier life of the cluster wrote or read. It is
// refused unless the ledger was taken up from commits, ends at Next and has read nothing since.
type recallOp struct {
	TP   TopicPartition
	Next Offset
	Mids []midEntry // at most midWindowSize, offsets rising, all before Next
	// Dropped are records among them that repeat one of the ids; at most maxDropped, rising, before Next.
	Dropped []Offset
}

// stamped is what a batch became: the records that clients see, each with its position.
type stamped struct {
	Records   []Record
	Positions []Position
	Head      Position
	// Repeats is how many records were left out as repeats of a publish.
	Repeats int
}

func (l *ledger) started() bool { return len(l.epochs) > 0 }

// takenUp says that the ledger was taken up from commits and that nothing was read since: the next record, in
// whatever term it comes, opens the epoch upcoming.
func (l *ledger) takenUp() bool { return l.started() && l.term == 0 }

// upcoming is the epoch that the next opening will open.
func (l *ledger) upcoming() Epoch {
	if l.term == 0 {
		return l.epochs.last().Epoch + rebirthLeap
	}
	return l.epochs.last().Epoch + 1
}
func (l *ledger) next() Offset  { return l.epochs.last().End }
func (l *ledger) first() Offset { return l.epochs[0].First }

// head is the position of all that was read.
func (l *ledger) head() Position {
	e := l.told().last()
	return Position{Epoch: e.Epoch, Seqno: Seqno(e.End - e.First)}
}

// before returns the place just before offset o, as readers are told it.
func (l *ledger) before(o Offset) Position { return l.told().before(o) }

// told are the epochs that positions are given out in. The one that a rebirth appends is not among them before
// the first record: the commits do not know it yet, and a client that was told its beginning would be unknown
// to the life after another loss of all disks. The end of the epoch before it means the same.
func (l *ledger) told() epochList {
	told := l.epochs
	for n := len(told); l.term == 0 && n > 1 && told[n-1].First == told[n-1].End && told[n-2].End == told[n-1].First; n-- {
		told = told[:n-1]
	}
	return told
}

// start applies op; it reports false when the ledger has been started already.
func (l *ledger) start(term Term, op startOp) bool {
	if l.started() {
		return false
	}
	l.topic, l.partitions, l.atStart, l.scattered, l.leaders = op.Topic, op.Partitions, op.AtStart, op.Scattered, op.Leaders
	if len(op.Epochs) > 0 {
		l.epochs = slices.Clone(op.Epochs) // term stays zero: the next batch opens an epoch
		return true
	}
	l.term = term
	l.epochs = epochList{{Epoch: 1, First: op.First, End: op.First}}
	return true
}

// batch stamps the records of op that are new. ok is false when the batch begins beyond next: then
// nothing has changed and the coordinator must read again from next.
func (l *ledger) batch(term Term, op batchOp) (s stamped, ok bool) {
	if !l.started() || op.From > l.next() {
		return stamped{}, false
	}
	if op.Next <= l.next() {
		s.Head = l.head()
		return s, true
	}
	records := op.Records
	for len(records) > 0 && records[0].Offset < l.next() {
		records = records[1:]
	}
	if term != l.term {
		l.open(term, l.next())
	}
	l.leaders = l.leaders.read(op.Leader, l.next())
	e := l.epochs.last()
	e.End = op.Next
	s.Positions = make([]Position, 0, len(records))
	s.Records = records
	for i, r := range records {
		if l.repeats(r) {
			if s.Repeats == 0 {
				s.Records = slices.Clone(records[:i])
			}
			s.Repeats++
			continue
		}
		if s.Repeats > 0 {
			s.Records = append(s.Records, r)
		}
		s.Positions = append(s.Positions, Position{Epoch: e.Epoch, Seqno: Seqno(r.Offset-e.First) + 1})
	}
	s.Head = l.head()
	return s, true
}

// reset applies op; it reports false when the ledger has moved on since the coordinator looked.
func (l *ledger) reset(term Term, op resetOp) bool {
	if !l.started() || l.next() != op.Expect {
		return false
	}
	// Offsets may name other records from here on: what was known by offset is void. A publish whose
	// record is gone from Kafka may be written again.
	another := op.Topic != l.topic && !op.Topic.IsZero() && !l.topic.IsZero()
	gone := func(o Offset) bool { return another || o >= op.First }
	l.dropped = slices.DeleteFunc(l.dropped, gone)
	l.mids.forget(gone)
	if another || op.First > l.next() { // nothing of what was read adjoins it
		l.leaders = nil
	} else {
		l.leaders = l.leaders.truncate(op.First)
	}
	l.open(term, op.First)
	l.topic = op.Topic
	return true
}

// note applies op; it reports whether something changed.
func (l *ledger) note(op noteOp) bool {
	if !l.started() || (l.partitions == op.Partitions && (l.scattered || !op.Scattered)) {
		return false
	}
	l.partitions = op.Partitions
	l.scattered = l.scattered || op.Scattered
	return true
}

// repeats takes a record's message id into the window, or, when the window has it already, the record among
// the dropped ones; then it reports true.
func (l *ledger) repeats(r Record) bool {
	k, has := midOf(r.Headers)
	if !has {
		return false
	}
	if _, seen := l.mids.find(k); seen {
		l.drop(r.Offset)
		return true
	}
	l.mids.add(k, r.Offset)
	return false
}

// recall applies op; it reports false when the ledger needs no ids brought, or ends elsewhere. What an earlier
// recall brought is replaced: the one that comes later, by another coordinator, knows as much.
func (l *ledger) recall(op recallOp) bool {
	if !l.takenUp() || l.next() != op.Next {
		return false
	}
	l.mids, l.dropped = midWindow{}, slices.Clone(op.Dropped)
	for _, m := range op.Mids {
		if _, seen := l.mids.find(m.Key); !seen {
			l.mids.add(m.Key, m.Offset)
		}
	}
	return true
}

// open begins the next epoch at first.
func (l *ledger) open(term Term, first Offset) {
	l.epochs = append(l.epochs, epochRange{Epoch: l.upcoming(), First: first, End: first})
	l.term = term
	if len(l.epochs) > maxEpochs {
		l.epochs = slices.Clone(l.epochs[len(l.epochs)-maxEpochs:])
	}
}

func (l *ledger) drop(o Offset) {
	l.dropped = append(l.dropped, o)
	if len(l.dropped) > maxDropped {
		l.dropped = slices.Clone(l.dropped[len(l.dropped)-maxDropped:])
	}
}

// isDropped says whether the record at o was left out as a repeat.
func (l *ledger) isDropped(o Offset) bool {
	if len(l.dropped) == 0 {
		return false
	}
	return slices.Contains(l.dropped, o)
}
