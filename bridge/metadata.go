package bridge

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// The epochs of a partition travel as the metadata of the consumer group's commits, so that a cluster
// that lost every disk takes them up again. "tw1:" and the epochs as in a snapshot, base64.
const metadataPrefix = "tw1:"

// maxMetadata is Kafka's default limit (offset.metadata.max.bytes).
const maxMetadata = 4096

// metadata returns the commit metadata of the ledger: its newest epochs, as many as fit.
func (l *ledger) metadata() string {
	epochs := l.epochs
	for {
		s := metadataPrefix + base64.RawURLEncoding.EncodeToString(append(l.topic[:], appendEpochs(nil, epochs)...))
		if len(s) <= maxMetadata || len(epochs) == 1 {
			return s
		}
		epochs = epochs[(len(epochs)+7)/8:]
	}
}

// parseMetadata reads commit metadata for a commit at offset. ok is false when there are no epochs of
// ours in it (another program's commit, say); an error when they are malformed or do not end at offset.
func parseMetadata(s string, offset Offset) (topic TopicID, epochs epochList, ok bool, err error) {
	text, ok := strings.CutPrefix(s, metadataPrefix)
	if !ok {
		return TopicID{}, nil, false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return TopicID{}, nil, false, fmt.Errorf("commit metadata: %w", err)
	}
	r := &reader{b: b}
	topic = r.topicID()
	epochs = r.epochs()
	if err := r.done("commit metadata"); err != nil {
		return TopicID{}, nil, false, err
	}
	if len(epochs) == 0 || epochs.last().End != offset {
		return TopicID{}, nil, false, fmt.Errorf("commit metadata: its epochs do not end at the committed offset %d", offset)
	}
	return topic, epochs, true, nil
}
