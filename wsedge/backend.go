package wsedge

import (
	"context"

	"github.com/tidewire/tidewire/bridge"
)

// Backend is what an edge needs from the node behind it. Package bridge provides it.
type Backend interface {
	// Topic describes a topic as it is now; ok is false when it does not exist or clients may
	// neither read nor write it.
	Topic(name string) (t TopicView, ok bool)
	// Ready waits until the node knows which topics there are, and, where it has the topic, until the
	// cluster has begun it and this node's cache of it is filled; or until ctx ends. It is called for
	// topics that do not exist, too.
	Ready(ctx context.Context, topic string) error
	// Grown looks again at a topic that is to have a partition which is not known yet, for a few seconds
	// at most, and describes the topic as it is then. An error is an *UnavailableError.
	Grown(ctx context.Context, topic string, partition int32) (TopicView, error)
	// Resolve says how to go on after the position at. An error is an *UnavailableError.
	Resolve(ctx context.Context, tp bridge.TopicPartition, at bridge.Position) (Resolution, error)
	// Replay reads records from Kafka with their positions, from offset on, following the log until
	// emit returns an error (bridge.ErrStop ends it well). Offsets that the ledger dropped as
	// repeats are left out already. An offset that Kafka no longer holds is
	// *bridge.OffsetOutOfRangeError. before is called before each fetch, and its error ends the replay.
	Replay(ctx context.Context, tp bridge.TopicPartition, from bridge.Offset, before func(context.Context) error, emit func(Replayed) error) error
	// Publish writes to Kafka through the coordinator. Errors: bridge.ErrNotExposed, ErrTooLarge,
	// *bridge.RejectedError, *bridge.UnavailableError.
	Publish(ctx context.Context, req bridge.PublishRequest) (bridge.PublishResult, error)
}

// The types an edge exchanges with its node are the domain's.
type (
	TopicView      = bridge.TopicView
	Verdict        = bridge.Verdict
	Resolution     = bridge.Resolution
	Replayed       = bridge.Replayed
	ReplayedRecord = bridge.ReplayedRecord
)

const (
	FromCache = bridge.FromCache
	FromKafka = bridge.FromKafka
	Lost      = bridge.Lost
	Unknown   = bridge.Unknown
)
