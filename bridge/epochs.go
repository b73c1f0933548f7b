package bridge

import (
	"cmp"
	"slices"
)

// An epochRange is one reign over a partition: the records that were given positions in it are the
// offsets [First, End), the record at offset o having Seqno o-First+1.
type epochRange struct {
	Epoch Epoch
	First Offset
	// End is one past the last offset that got a position in this epoch. For the epoch in force it
	// is the ledger's next offset. A later epoch's First is usually this End; it is smaller where
	// Kafka truncated the log and larger where retention passed the cluster by.
	End Offset
}

// maxEpochs bounds the list a ledger keeps. One is added at each failover that is followed by a
// record; older ones fall out, and a position in them reads as evicted.
const maxEpochs = 256

// epochList is the history of a partition's epochs, oldest first, and the arithmetic between
// positions and offsets. Epochs rise strictly by list order. It is never empty in a started ledger.
type epochList []epochRange

func (l epochList) last() *epochRange { return &l[len(l)-1] }

// at returns the epoch to which an offset that Kafka holds now belongs: the newest one that begins
// at or before it, because a truncation gave its offsets to the epoch after it. nil when the offset
// is before the first epoch.
func (l epochList) at(o Offset) *epochRange {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].First <= o {
			return &l[i]
		}
	}
	return nil
}

// position returns the position of the record at offset o. ok is false when no epoch covers it.
func (l epochList) position(o Offset) (Position, bool) {
	e := l.at(o)
	if e == nil {
		return Position{}, false
	}
	return Position{Epoch: e.Epoch, Seqno: Seqno(o-e.First) + 1}, true
}

// before returns the place just before offset o: "everything up to o-1". Of the positions that mean
// this it is the highest: the one in the epoch of the record at o.
func (l epochList) before(o Offset) Position {
	e := l.at(o)
	if e == nil {
		return Position{}
	}
	return Position{Epoch: e.Epoch, Seqno: Seqno(o - e.First)}
}

// given returns the first and the last position among the offsets [from, to) that were given one; ok is
// false when none was. Offsets that retention took before the cluster read them have none.
func (l epochList) given(from, to Offset) (first, last Position, ok bool) {
	for from < to {
		e := l.at(from)
		if e != nil && from < e.End {
			first, ok = Position{Epoch: e.Epoch, Seqno: Seqno(from-e.First) + 1}, true
			break
		}
		onward := to
		for i := range l {
			if l[i].First > from {
				onward = min(onward, l[i].First)
			}
		}
		from = onward
	}
	for o := to - 1; ok && o >= from; {
		e := l.at(o)
		if o < e.End {
			return first, Position{Epoch: e.Epoch, Seqno: Seqno(o-e.First) + 1}, true
		}
		o = max(e.End, e.First) - 1
	}
	return first, last, ok
}

// onward says where a reader that has everything up to a position goes on.
type onward struct {
	Next Offset // the first offset it has not got
	// Truncated is set when records after its position were given out and are gone from Kafka since
	// because Kafka truncated or re-created the partition: the first and the last of them. Some
	// between the two may still be there.
	Truncated        bool
	LostFrom, LostTo Position
	// Evicted is set when its position's epoch has fallen out of the list, or when retention took the
	// records right after it before the cluster read them: nothing is known of what is missing. A
	// reader that has yet to come to such a place learns of it from Kafka's first offset.
	Evicted bool
}

// resolve translates a position into the offset to go on from. ok is false for a position that was
// never given out.
func (l epochList) resolve(p Position) (o onward, ok bool) {
	i, known := slices.BinarySearchFunc(l, p.Epoch, func(r epochRange, e Epoch) int { return cmp.Compare(r.Epoch, e) })
	switch {
	case p.Epoch == 0 && p.Seqno > 0:
		return onward{}, false
	case p.Epoch < l[0].Epoch: // before everything, or fallen out of the list
		i, o.Next, o.Evicted = 0, l[0].First, l[0].Epoch > 1
	case !known: // not yet, or lost with a life of the cluster that its commits do not tell of
		return onward{}, false
	default:
		if p.Seqno > Seqno(l[i].End-l[i].First) {
			return onward{}, false
		}
		o.Next = l[i].First + Offset(p.Seqno)
	}
	for j := i + 1; j < len(l); j++ {
		end, first := l[j-1].End, l[j].First
		switch {
		case first < end: // what was given out of [first, end) is gone
			if from, to, known := l[:j].given(max(o.Next, first), end); known {
				if !o.Truncated || o.LostFrom.After(from) {
					o.LostFrom = from
				}
				if !o.Truncated || to.After(o.LostTo) {
					o.LostTo = to
				}
				o.Truncated = true
			}
			o.Next = min(o.Next, first)
		case first > end && o.Next >= end:
			o.Next, o.Evicted = first, true
		}
	}
	return o, true
}
