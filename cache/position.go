package cache

import "cmp"

// Epoch numbers the reigns over one partition, from 1. Zero stands before every record.
type Epoch uint64

// Seqno counts the offsets of one epoch from 1. Zero stands before the epoch's first record, so that
// a place at which nothing has been delivered yet can be written down.
type Seqno uint64

// Position names one record of one partition: epochs first, then sequence numbers. As a place in a
// stream it reads "everything up to and including here". The zero Position is before every record.
type Position struct {
	Epoch Epoch
	Seqno Seqno
}

// Compare returns a negative number when p is before q, zero when they are the same, and a positive
// number when p is after q.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Epoch, q.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(p.Seqno, q.Seqno)
}

// After says whether p is later than q.
func (p Position) After(q Position) bool { return p.Compare(q) > 0 }
