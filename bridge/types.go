// Package bridge is the domain of Tidewire: subjects, records, positions, the replicated ledger, the
// coordinator's read loop and the publish path. It owns the value types that the adapters share and
// the small interfaces it needs from them (ports.go); it knows no socket, no disk and no library of
// Kafka, Raft or WebSocket.
package bridge

import (
	"fmt"

	"github.com/tidewire/tidewire/cache"
)

// Position, Epoch and Seqno are the cache's: a record has one name in every package.
type (
	Position = cache.Position
	Epoch    = cache.Epoch
	Seqno    = cache.Seqno
)

// Offset is a Kafka offset.
type Offset int64

// NodeID is a node's name in the cluster (TIDEWIRE_NODE_ID).
type NodeID string

// GroupID numbers the Raft groups from 0 to TIDEWIRE_GROUPS-1.
type GroupID uint16

// Term is a Raft term.
type Term uint64

// TopicPartition names one partition of one Kafka topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

// TopicID is Kafka's id of one incarnation of a topic: it differs after a topic is deleted and created
// again under the same name. Zero means unknown (a broker older than 2.8).
type TopicID [16]byte

// IsZero says whether the id is unknown.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// LeaderEpoch numbers the reigns of a partition's leader in Kafka, as each record batch carries it: of two
// batches the one further on in the log has no lower one. It tells a log that was truncated and has grown
// again from the one that was read (KIP-320).
type LeaderEpoch int32

// NoLeaderEpoch stands for a leader epoch that is not known.
const NoLeaderEpoch LeaderEpoch = -1

// Header is one record header. A nil Value is Kafka's null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one Kafka record that clients may see. Key and Value are nil for Kafka's null (an empty
// slice is an empty value); both may point into a buffer that is shared with other records and never
// changes.
type Record struct {
	Offset    Offset
	Timestamp int64 // unix milliseconds, as in Kafka
	Key       []byte
	Value     []byte
	Headers   []Header
}

// HeaderMid is the record header that carries a publish's message id, and HeaderUser the one with the
// publisher it belongs to (absent for anonymous publishers). The prefix HeaderReserved is refused in
// the headers of a client's publish.
const (
	HeaderReserved = "tidewire-"
	HeaderMid      = "tidewire-mid"
	HeaderUser     = "tidewire-user"
)
