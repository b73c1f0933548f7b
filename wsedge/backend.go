package wsedge

import (
	"context"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// Backend is what an edge needs from the node behind it. Package bridge provides it.
type Backend interface {
	// Topic describes a topic as it is now; ok is false when it does not exist or clients may
	// neither read nor write it.
	Topic(name string) (t TopicView, ok bool)
	// Ready waits until the node's cache of the topic is filled (at a node's start), or ctx ends.
	Ready(ctx context.Context, topic string) error
	// Resolve says how to go on after the position at. An error is an *UnavailableError.
	Resolve(ctx context.Context, tp bridge.TopicPartition, at bridge.Position) (Resolution, error)
	// Replay reads records from Kafka with their positions, from offset on, following the log until
	// emit returns an error (bridge.ErrStop ends it well). Offsets that the ledger dropped as
	// repeats are left out already. An offset that Kafka no longer holds is
	// *bridge.OffsetOutOfRangeError.
	Replay(ctx context.Context, tp bridge.TopicPartition, from bridge.Offset, emit func(Replayed) error) error
	// Publish writes to Kafka through the coordinator. Errors: bridge.ErrNotExposed, ErrTooLarge,
	// *bridge.RejectedError, *bridge.UnavailableError.
	Publish(ctx context.Context, req bridge.PublishRequest) (bridge.PublishResult, error)
}

// TopicView is a topic as the edge sees it.
type TopicView struct {
	Partitions int32
	Exposed    bool // clients may subscribe
	Publish    bool // clients may publish
	// Scattered: a key's records may be in any partition, so vectors of key subjects hold all.
	Scattered bool
}

// Verdict says what became of a position.
type Verdict uint8

const (
	// FromCache: the local log can be asked with Seek for the first record after the position.
	FromCache Verdict = iota
	// FromKafka: read on from Offset with Replay; nothing is missing.
	FromKafka
	// Lost: records after the position are gone from Kafka (Reason "evicted" or "truncated");
	// Lost says which as far as is known; go on from Offset with Replay, or from the cache where
	// Seek(At) serves. At is the position just before what can still be delivered.
	Lost
	// Unknown: the cluster never gave the position out.
	Unknown
)

// Resolution is the answer to a resume in one partition.
type Resolution struct {
	Verdict          Verdict
	Offset           bridge.Offset // FromKafka, Lost: the first offset to read
	At               bridge.Position
	Reason           string          // Lost: "evicted" or "truncated"
	LostFrom, LostTo bridge.Position // Lost: the first and the last missing position; zero when not known
}

// Replayed is a run of records read from Kafka. After it, everything up to At has been delivered.
type Replayed struct {
	Records []ReplayedRecord
	At      bridge.Position
}

// ReplayedRecord is one record with its position.
type ReplayedRecord struct {
	bridge.Record
	Pos bridge.Position
}

// The edge reads the node's cache directly: it is the layer beneath.
type logs interface {
	Logs(topic string) []*cache.Log
	Lookup(topic string, partition int32) (*cache.Log, bool)
}
