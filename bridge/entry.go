package bridge

import (
	"encoding/binary"
	"fmt"
)

// A Raft entry is a format byte and a run of operations:
//
//	entry   = format(1) op…
//	op      = kind(1) body
//	start   = tp topicID(16) partitions atStart scattered(1) first epochs leaders  kind 1
//	batch   = tp from next leader count record…                 kind 2
//	reset   = tp topicID(16) expect first reason                kind 3
//	note    = tp partitions scattered(1)                        kind 4
//	recall  = tp next count (id(16) offset−previous)… count (offset−previous)…  kind 5
//	revoke  = time revocations                                  kind 6, in group 0 (revocations_codec.go)
//	record  = offset−previous timestamp−previous key value headers
//	headers = count (name value)…
//
// Numbers are varints; byte strings are length+1 and bytes, 0 standing for null. Records share the
// entry's memory when decoded.
//
// Builds before there was recall leave out an entry that holds one, as they do with every operation that they
// do not know; so a recall has an entry of its own. They do no worse than they always did: after the loss of all
// disks their window of message ids is empty. That is why the format is the same.
const entryFormat = 1

// EntryFormat and SnapshotFormat are what this build writes and reads: nodes tell each other.
const (
	EntryFormat    = entryFormat
	SnapshotFormat = snapshotFormat
)

const (
	kindStart byte = 1 + iota
	kindBatch
	kindReset
	kindNote
	kindRecall
	// kindRevoke is not known to builds of wire version 2 and before, which leave such an entry out and would
	// go on with another state. So none is proposed while one of them is there (replication/version.go).
	kindRevoke
)

// An op is one operation of an entry: *startOp, *batchOp, *resetOp, *noteOp, *recallOp or *revokeOp.
type op interface{ appendTo(b []byte) []byte }

// newEntry begins an entry, with room for size bytes.
func newEntry(size int) []byte { return append(make([]byte, 0, size), entryFormat) }

func (o *startOp) appendTo(b []byte) []byte {
	b = appendTP(append(b, kindStart), o.TP)
	b = append(b, o.Topic[:]...)
	b = binary.AppendUvarint(b, uint64(o.Partitions))
	b = binary.AppendUvarint(b, uint64(o.AtStart))
	b = appendBool(b, o.Scattered)
	b = binary.AppendVarint(b, int64(o.First))
	return appendLeaders(appendEpochs(b, o.Epochs), o.Leaders)
}

func (o *batchOp) appendTo(b []byte) []byte {
	b = appendTP(append(b, kindBatch), o.TP)
	b = binary.AppendVarint(b, int64(o.From))
	b = binary.AppendVarint(b, int64(o.Next))
	b = binary.AppendVarint(b, int64(o.Leader))
	b = binary.AppendUvarint(b, uint64(len(o.Records)))
	off, ts := o.From, int64(0)
	for i := range o.Records {
		r := &o.Records[i]
		b = binary.AppendUvarint(b, uint64(r.Offset-off))
		b = binary.AppendVarint(b, r.Timestamp-ts)
		off, ts = r.Offset, r.Timestamp
		b = appendBytes(appendBytes(b, r.Key), r.Value)
		b = binary.AppendUvarint(b, uint64(len(r.Headers)))
		for _, h := range r.Headers {
			b = appendBytes(appendString(b, h.Key), h.Value)
		}
	}
	return b
}

func (o *resetOp) appendTo(b []byte) []byte {
	b = appendTP(append(b, kindReset), o.TP)
	b = append(b, o.Topic[:]...)
	b = binary.AppendVarint(b, int64(o.Expect))
	b = binary.AppendVarint(b, int64(o.First))
	return appendString(b, o.Reason)
}

func (o *noteOp) appendTo(b []byte) []byte {
	b = appendTP(append(b, kindNote), o.TP)
	b = binary.AppendUvarint(b, uint64(o.Partitions))
	return appendBool(b, o.Scattered)
}

func (o *recallOp) appendTo(b []byte) []byte {
	b = appendTP(append(b, kindRecall), o.TP)
	b = binary.AppendVarint(b, int64(o.Next))
	b = binary.AppendUvarint(b, uint64(len(o.Mids)))
	previous := Offset(0)
	for _, m := range o.Mids {
		b = append(b, m.Key[:]...)
		b = binary.AppendUvarint(b, uint64(m.Offset-previous))
		previous = m.Offset
	}
	b = binary.AppendUvarint(b, uint64(len(o.Dropped)))
	previous = 0
	for _, at := range o.Dropped {
		b = binary.AppendUvarint(b, uint64(at-previous))
		previous = at
	}
	return b
}

// decodeEntry returns the operations of an entry, or an error when any of them is malformed: an entry
// is applied whole or not at all.
func decodeEntry(b []byte) ([]op, error) {
	r := &reader{b: b}
	if f := r.byte(); r.err == nil && f != entryFormat {
		return nil, fmt.Errorf("entry of format %d: this build reads format %d", f, entryFormat)
	}
	var ops []op
	for r.err == nil && len(r.b) > 0 {
		switch kind := r.byte(); kind {
		case kindStart:
			ops = append(ops, &startOp{TP: r.tp(), Topic: r.topicID(), Partitions: r.int32(), AtStart: r.int32(),
				Scattered: r.bool(), First: r.offset(), Epochs: r.epochs(), Leaders: r.leaders()})
		case kindBatch:
			ops = append(ops, r.batch())
		case kindReset:
			ops = append(ops, &resetOp{TP: r.tp(), Topic: r.topicID(), Expect: r.offset(), First: r.offset(), Reason: r.string()})
		case kindNote:
			ops = append(ops, &noteOp{TP: r.tp(), Partitions: r.int32(), Scattered: r.bool()})
		case kindRecall:
			ops = append(ops, r.recall())
		case kindRevoke:
			ops = append(ops, r.revoke())
		default:
			if r.err == nil {
				return nil, fmt.Errorf("entry: unknown operation %d", kind)
			}
		}
	}
	return ops, r.done("entry")
}

// minRecord is the least a record takes in an entry; it bounds what a count may claim.
const minRecord = 5

func (r *reader) batch() *batchOp {
	o := &batchOp{TP: r.tp(), From: r.offset(), Next: r.offset(), Leader: r.leader()}
	n := r.count(minRecord)
	if n > 0 {
		o.Records = make([]Record, 0, n)
	}
	off, ts := o.From, int64(0)
	for i := range n {
		delta := r.uvarint()
		if delta > 1<<62 || (i > 0 && delta == 0) {
			r.fail()
		}
		off += Offset(delta)
		ts += r.varint()
		rec := Record{Offset: off, Timestamp: ts, Key: r.bytes(), Value: r.bytes()}
		if h := r.count(2); h > 0 {
			rec.Headers = make([]Header, 0, h)
			for range h {
				rec.Headers = append(rec.Headers, Header{Key: r.string(), Value: r.bytes()})
			}
		}
		if off < o.From || off >= o.Next {
			r.fail() // also catches a sum that overflowed
		}
		if r.err != nil {
			return o
		}
		o.Records = append(o.Records, rec)
	}
	if o.Next < o.From {
		r.fail()
	}
	return o
}

func (r *reader) recall() *recallOp {
	o := &recallOp{TP: r.tp(), Next: r.offset()}
	mids := r.count(len(midKey{}) + 1)
	if mids > midWindowSize {
		r.fail()
		return o
	}
	previous := Offset(0)
	for i := range mids {
		var m midEntry
		copy(m.Key[:], r.take(uint64(len(m.Key))))
		m.Offset = r.rising(previous, o.Next, i == 0)
		if r.err != nil {
			return o
		}
		o.Mids, previous = append(o.Mids, m), m.Offset
	}
	dropped := r.count(1)
	if dropped > maxDropped {
		r.fail()
		return o
	}
	previous = 0
	for i := range dropped {
		at := r.rising(previous, o.Next, i == 0)
		if r.err != nil {
			return o
		}
		o.Dropped, previous = append(o.Dropped, at), at
	}
	return o
}

// rising reads an offset before end, as its distance from the one before it in a list.
func (r *reader) rising(previous, end Offset, first bool) Offset {
	delta := r.uvarint()
	if delta > 1<<62 || (delta == 0 && !first) {
		r.fail()
		return 0
	}
	at := previous + Offset(delta)
	if at < previous || at >= end {
		r.fail()
	}
	return at
}
