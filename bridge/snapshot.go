package bridge

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// The first byte of a group's snapshot is its format. Format 1: count, then for each partition by
// name its ledger: tp, topic id, partitions, partitions at its start, scattered, term, epochs, leader epochs,
// message ids, dropped offsets. Format 2: the same, then the revocations (revocations_codec.go).
//
// A group that has no revocations is written in format 1, as builds that know of none write and read it. Nodes that have
// some do not go together with those builds (replication/version.go), so that these never get the other.
const (
	snapshotFormat      = 1
	snapshotRevocations = 2
)

// encodeSnapshot returns the snapshot of a group. Its size is a few dozen bytes a partition, and up to
// 24 bytes for each message id that the partition remembers; a revocation takes what its texts take and some 15 bytes.
func encodeSnapshot(ledgers map[TopicPartition]*ledger, revoked revocationSet) []byte {
	if len(revoked) == 0 {
		return encodeLedgers([]byte{snapshotFormat}, ledgers)
	}
	return appendRevocations(encodeLedgers([]byte{snapshotRevocations}, ledgers), revoked.list())
}

func encodeLedgers(b []byte, ledgers map[TopicPartition]*ledger) []byte {
	tps := make([]TopicPartition, 0, len(ledgers))
	for tp := range ledgers {
		tps = append(tps, tp)
	}
	slices.SortFunc(tps, compareTP) // the same state gives the same bytes
	b = binary.AppendUvarint(b, uint64(len(tps)))
	for _, tp := range tps {
		b = ledgers[tp].appendTo(appendTP(b, tp))
	}
	return b
}

func compareTP(a, b TopicPartition) int {
	if c := strings.Compare(a.Topic, b.Topic); c != 0 {
		return c
	}
	return int(a.Partition) - int(b.Partition)
}

func (l *ledger) appendTo(b []byte) []byte {
	b = append(b, l.topic[:]...)
	b = binary.AppendUvarint(b, uint64(l.partitions))
	b = binary.AppendUvarint(b, uint64(l.atStart))
	b = appendBool(b, l.scattered)
	b = binary.AppendUvarint(b, uint64(l.term))
	b = appendLeaders(appendEpochs(b, l.epochs), l.leaders)
	mids := l.mids.entries()
	b = binary.AppendUvarint(b, uint64(len(mids)))
	for _, m := range mids {
		b = append(b, m.Key[:]...)
		b = binary.AppendVarint(b, int64(m.Offset))
	}
	b = binary.AppendUvarint(b, uint64(len(l.dropped)))
	for _, o := range l.dropped {
		b = binary.AppendVarint(b, int64(o))
	}
	return b
}

// decodeSnapshot reads what encodeSnapshot wrote.
func decodeSnapshot(b []byte) (map[TopicPartition]*ledger, revocationSet, error) {
	r := &reader{b: b}
	format := r.byte()
	if r.err == nil && format != snapshotFormat && format != snapshotRevocations {
		return nil, nil, fmt.Errorf("snapshot of format %d: this build reads formats %d and %d", format, snapshotFormat, snapshotRevocations)
	}
	const minLedger = 24
	n := r.count(minLedger)
	ledgers := make(map[TopicPartition]*ledger)
	for range n {
		tp := r.tp()
		l := r.ledger()
		if r.err != nil {
			break
		}
		if _, twice := ledgers[tp]; twice {
			return nil, nil, fmt.Errorf("snapshot: %v is there twice", tp)
		}
		ledgers[tp] = l
	}
	var revoked revocationSet
	if format == snapshotRevocations {
		revoked = r.revocationSet()
	}
	if err := r.done("snapshot"); err != nil {
		return nil, nil, err
	}
	return ledgers, revoked, nil
}

func (r *reader) ledger() *ledger {
	l := &ledger{topic: r.topicID(), partitions: r.int32(), atStart: r.int32(), scattered: r.bool(),
		term: Term(r.uvarint()), epochs: r.epochs(), leaders: r.leaders()}
	if len(l.epochs) == 0 {
		r.fail()
	}
	mids := r.count(17)
	if mids > midWindowSize {
		r.fail()
	}
	for range mids {
		var k midKey
		copy(k[:], r.take(uint64(len(k))))
		o := r.offset()
		if r.err != nil {
			return nil
		}
		if _, twice := l.mids.find(k); twice {
			r.fail()
			return nil
		}
		l.mids.add(k, o)
	}
	dropped := r.count(1)
	if dropped > maxDropped {
		r.fail()
		return nil
	}
	for range dropped {
		l.dropped = append(l.dropped, r.offset())
	}
	return l
}
