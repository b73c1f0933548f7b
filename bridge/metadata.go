package bridge

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// The epochs of a partition travel as the metadata of the consumer group's commits, so that a cluster
// that lost every disk takes them up again. It is "tw1:" and, in base64: topic id, partitions at its start,
// scattered, leader epochs, epochs, each as in a snapshot.
const metadataPrefix = "tw1:"

// maxMetadata is Kafka's default limit (offset.metadata.max.bytes).
const maxMetadata = 4096

// metadata returns the commit metadata of the ledger: its newest epochs, as many as fit. Of a ledger that was
// taken up it tells also the epoch, empty yet, that the first record will open: the next life must know it.
func (l *ledger) metadata() string {
	head := binary.AppendUvarint(slices.Clone(l.topic[:]), uint64(l.atStart))
	head = appendLeaders(appendBool(head, l.scattered), l.leaders)
	epochs := l.epochs
	if l.takenUp() {
		epochs = append(slices.Clip(epochs), epochRange{Epoch: l.upcoming(), First: l.next(), End: l.next()})
		epochs = epochs[max(0, len(epochs)-maxEpochs):] // no more are decoded
	}
	for {
		s := metadataPrefix + base64.RawURLEncoding.EncodeToString(appendEpochs(slices.Clip(head), epochs))
		if len(s) <= maxMetadata || len(epochs) == 1 {
			return s
		}
		epochs = epochs[(len(epochs)+7)/8:]
	}
}

// parseMetadata reads commit metadata for a commit at offset into the operation that takes it up, which lacks
// the partition and the topic's size. ok is false when there are no epochs of
// ours in it (another program's commit, say); an error when they are malformed or do not end at offset.
func parseMetadata(s string, offset Offset) (o startOp, ok bool, err error) {
	text, ok := strings.CutPrefix(s, metadataPrefix)
	if !ok {
		return startOp{}, false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return startOp{}, false, fmt.Errorf("commit metadata: %w", err)
	}
	r := &reader{b: b}
	o = startOp{Topic: r.topicID(), AtStart: r.int32(), Scattered: r.bool(), Leaders: r.leaders(), Epochs: r.epochs(), First: offset}
	if err := r.done("commit metadata"); err != nil {
		return startOp{}, false, err
	}
	if len(o.Epochs) == 0 || o.Epochs.last().End != offset {
		return startOp{}, false, fmt.Errorf("commit metadata: its epochs do not end at the committed offset %d", offset)
	}
	return o, true, nil
}
