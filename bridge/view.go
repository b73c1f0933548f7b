package bridge

// This file holds what an edge is told by the node behind it.

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
	// FromCache: the local log can be asked with Seek(At) for the first record after the position. At
	// is the position itself, or the name that the same place has in the epoch after it.
	FromCache Verdict = iota
	// FromKafka: read on from Offset with Replay; nothing is missing.
	FromKafka
	// Lost: records after the position are gone from Kafka (Reason "evicted" or "truncated");
	// LostFrom and LostTo say which as far as is known; go on from Offset with Replay, or from the
	// cache where Seek(At) serves. At is the position just before what can still be delivered.
	Lost
	// Unknown: the cluster never gave the position out.
	Unknown
)

// The reasons for which records are lost to a subscriber.
const (
	ReasonEvicted      = "evicted"       // Kafka's retention passed by
	ReasonTruncated    = "truncated"     // Kafka itself truncated or re-created the partition
	ReasonUnknownEpoch = "unknown_epoch" // the position was never given out
)

// Resolution is the answer to a resume in one partition.
type Resolution struct {
	Verdict          Verdict
	Offset           Offset // FromKafka, Lost: the first offset to read
	At               Position
	Reason           string   // Lost: ReasonEvicted or ReasonTruncated
	LostFrom, LostTo Position // Lost: the first and the last missing position; zero when not known
}

// Replayed is a run of records read from Kafka. After it, everything up to At has been delivered.
type Replayed struct {
	Records []ReplayedRecord
	At      Position
}

// ReplayedRecord is one record with its position.
type ReplayedRecord struct {
	Record
	Pos Position
}
