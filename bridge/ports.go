package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// This file is the list of what the domain needs from the outside. kafkaio and replication implement
// these; the tests of this package bring their own.

// Fetched is what one fetch brought for one partition. From is where the previous one of the same
// run ended (or the start of the run); Next is the offset to go on from, past control records,
// aborted transactions and compaction holes. Records are the data records of [From, Next) that a
// read_committed consumer sees, in order.
type Fetched struct {
	TP       TopicPartition
	From     Offset
	Next     Offset
	Records  []Record
	LogStart Offset // the partition's first offset in Kafka
	End      Offset // the last stable offset: what a read_committed reader can reach now
	// Leader is the leader epoch of all of it: a Fetched ends where the epoch changes. NoLeaderEpoch: it
	// is not known, or may be misleading.
	Leader LeaderEpoch
}

// Feed reads partitions continuously for their coordinator. Calls may come from any goroutine and
// return at once.
type Feed interface {
	// Start begins reading tp where from says, or moves it there; a Fetched of an earlier run that is
	// still on its way carries an older Run number.
	Start(tp TopicPartition, from FeedStart) (run uint64)
	// Stop ends the reading of tp. Fetched calls of the stopped run may still arrive.
	Stop(tp TopicPartition)
	// Done gives back one Fetched: it has been replicated or dropped. A partition with two Fetched
	// not yet given back is left out of further fetches.
	Done(tp TopicPartition, run uint64)
}

// FeedStart is a place in a log. Kafka is asked whether its log is still the one that was read up to there.
type FeedStart struct {
	Topic TopicID // the topic's incarnation; zero: whichever has the name
	Next  Offset
	// Leader is the leader epoch of the last batch before Next; NoLeaderEpoch when that is not known.
	Leader LeaderEpoch
}

// FeedSink receives what a Feed reads. Calls come from the Feed's goroutines, one broker each, and
// must return at once: a queue is bounded by the two Fetched a partition may have open.
type FeedSink interface {
	Fetched(run uint64, f Fetched)
	// OutOfRange: at is not in Kafka's log [logStart, logEnd]. The run has ended.
	OutOfRange(run uint64, tp TopicPartition, at, logStart, logEnd Offset)
	// Diverged: Kafka's log is not the one that was read up to at, because it was truncated (it may
	// have grown beyond at again). Of the leader epochs up to that of the last batch before at it
	// knows leader as the highest, and that one ends at end. The run has ended.
	Diverged(run uint64, tp TopicPartition, at Offset, leader LeaderEpoch, end Offset)
}

// TopicMeta is one topic that Tidewire concerns itself with.
type TopicMeta struct {
	ID         TopicID
	Partitions int32
	Exposed    bool // TIDEWIRE_KAFKA_TOPICS
	Publish    bool // TIDEWIRE_KAFKA_PUBLISH_TOPICS
	// Initial is true when the topic was there when this process first saw the cluster's topics;
	// later ones are read from their first record.
	Initial bool
}

// TopicListener is told the whole set of topics whenever it changed, by one goroutine.
type TopicListener func(topics map[string]TopicMeta)

// Offsets asks Kafka for offsets of a partition.
type Offsets interface {
	Earliest(ctx context.Context, tp TopicPartition) (Offset, error)
	// Latest is the last stable offset: the end that a read_committed reader can reach.
	Latest(ctx context.Context, tp TopicPartition) (Offset, error)
	// AtTime is the first offset whose timestamp is at or after t, or the latest if there is none.
	AtTime(ctx context.Context, tp TopicPartition, t time.Time) (Offset, error)
	// EpochEnd is the highest leader epoch up to leader that Kafka's log knows, and the offset where
	// it ends (for the epoch in force the end of the log); NoLeaderEpoch when it knows none.
	EpochEnd(ctx context.Context, tp TopicPartition, leader LeaderEpoch) (LeaderEpoch, Offset, error)
}

// TopicIDs asks Kafka which topic a name stands for now.
type TopicIDs interface {
	// TopicID is zero when Kafka gives topics no ids; an error when there is no such topic.
	TopicID(ctx context.Context, topic string) (TopicID, error)
}

// Replayer reads a range of a partition once, apart from the Feed.
type Replayer interface {
	// Replay calls emit with consecutive Fetched from r.From on until emit returns an error (which
	// Replay returns as it is; ErrStop to end well), r.To is reached, or ctx ends. An offset that
	// Kafka no longer holds is *OffsetOutOfRangeError, another topic under the name ErrAnotherTopic.
	//
	// The log may be another one than the ledger has read, truncated and grown again. Who emits
	// compares the leader epoch of each Fetched with the ledger's.
	Replay(ctx context.Context, r ReplayRange, emit func(Fetched) error) error
}

// ReplayRange is what is to be replayed: the offsets [From, To); without an end, following the log, if To is
// negative.
type ReplayRange struct {
	TP       TopicPartition
	Topic    TopicID // the topic's incarnation; zero: whichever has the name
	From, To Offset
	// Before is called before each fetch; its error ends the replay. Nil: nothing is.
	Before func(context.Context) error
}

// ErrAnotherTopic: Kafka has another topic under the name, created again.
var ErrAnotherTopic = errors.New("the topic was created again")

// ErrStop returned by an emit function ends a replay without an error.
var ErrStop = errors.New("stop")

// OffsetOutOfRangeError says that Kafka does not hold an offset.
type OffsetOutOfRangeError struct {
	TP               TopicPartition
	At               Offset
	LogStart, LogEnd Offset // logEnd is the high watermark
}

func (e *OffsetOutOfRangeError) Error() string {
	return fmt.Sprintf("offset %d of %s is outside Kafka's log [%d, %d]", e.At, e.TP, e.LogStart, e.LogEnd)
}

// Produced says where a record was written.
type Produced struct {
	Offset    Offset
	Timestamp int64
}

// Producer writes records with acks=all, each once even when it is retried inside the call.
type Producer interface {
	// Produce returns when Kafka has acknowledged the record on all in-sync replicas, or with an
	// error: *RejectedError when Kafka refused it for good (nothing was written), any other error
	// when it may or may not have been written. It returns within ctx's deadline.
	Produce(ctx context.Context, tp TopicPartition, r Record) (Produced, error)
}

// RejectedError is a refusal by Kafka that a retry cannot mend. TooLarge marks a record over the
// topic's limit.
type RejectedError struct {
	TooLarge bool
	Err      error
}

func (e *RejectedError) Error() string { return "Kafka refused the record: " + e.Err.Error() }
func (e *RejectedError) Unwrap() error { return e.Err }

// CommitOffset is one partition's entry in the consumer group's commits.
type CommitOffset struct {
	TP       TopicPartition
	Offset   Offset
	Metadata string // the ledger's epochs; at most 4096 bytes
}

// OffsetStore reads what the consumer group has committed.
type OffsetStore interface {
	// Committed returns the entries of those partitions that have one.
	Committed(ctx context.Context, tps []TopicPartition) (map[TopicPartition]CommitOffset, error)
}

// Replicator proposes entries to the Raft groups of this node.
type Replicator interface {
	// Propose appends entry to the group's log. It returns at once unless the group's queue is full;
	// the future's Wait returns what StateMachine.Apply returned here, or ErrNotCoordinator when
	// this node does not lead the group (the entry may or may not be committed later).
	Propose(group GroupID, entry []byte) Future
	// Barrier returns when everything that was committed in the group before the call, by any leader, has been applied
	// here, or with ErrNotCoordinator when this node does not lead the group: it asks a majority.
	Barrier(ctx context.Context, group GroupID) error
	// Leader is the group's leader as far as this node knows.
	Leader(group GroupID) (node NodeID, ok bool)
	// WithoutRevocations are the nodes that are there and whose builds do not know of revocations: they would
	// leave out an entry that has some, and have another state from then on.
	WithoutRevocations() []NodeID
}

// Future is a proposal on its way.
type Future interface {
	Wait() (any, error)
}

// ErrNotCoordinator: this node does not lead the group, or lost it meanwhile.
var ErrNotCoordinator = errors.New("not the coordinator")

// StateMachine is what replication drives, one group never from two goroutines at once.
type StateMachine interface {
	// Apply applies a committed entry. Its result depends on the state and the arguments alone.
	Apply(group GroupID, term Term, index uint64, entry []byte) any
	// Snapshot returns the state of the group as it is now, encoded.
	Snapshot(group GroupID) ([]byte, error)
	// Restore replaces the state of the group.
	Restore(group GroupID, snapshot []byte) error
	// Lead is run on the leader for as long as it leads the group: it returns soon after ctx ends.
	// When it starts, everything committed in earlier terms has been applied here.
	Lead(ctx context.Context, group GroupID, term Term)
}

// Peers calls other nodes.
type Peers interface {
	// Publish forwards a publish to the node that coordinates its partition.
	Publish(ctx context.Context, node NodeID, tp TopicPartition, req PublishRequest) (PublishResult, error)
	// Head asks the coordinator for the head of a partition.
	Head(ctx context.Context, node NodeID, tp TopicPartition) (Position, error)
	// Revoke forwards a revocation to the node that leads group 0. Errors are those of Bridge.LocalRevoke.
	Revoke(ctx context.Context, node NodeID, r Revocation) error
	// Status asks a node for its status.
	Status(ctx context.Context, node NodeID) (NodeStatus, error)
}
