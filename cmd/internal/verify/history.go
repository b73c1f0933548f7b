package verify

import (
	"fmt"
	"strings"
	"time"
)

// HistoryVersion is raised when a field of History changes its meaning.
const HistoryVersion = 1

// History is everything that a run recorded, as plain data: it can be written as JSON, read back and
// judged again. All times are durations since Began, taken from the monotonic clock of one process.
type History struct {
	Version int       `json:"version"`
	Began   time.Time `json:"began"`
	// End is when the recording ended.
	End time.Duration `json:"end"`
	// Settled says that the recording went on after the last write for as long as a subscriber could be
	// expected to need. Without it what is missing at the end of a stream is not judged.
	Settled bool `json:"settled"`

	// Kafka is what a read_committed consumer finds at the end, by topic, partition and offset.
	Kafka []Record `json:"kafka"`
	// Written is what those that write to Kafka directly know of their records.
	Written []Write `json:"written"`
	// Removed is what is known to have been taken out of Kafka during the run.
	Removed     []Removal    `json:"removed,omitempty"`
	Publishes   []Publish    `json:"publishes"`
	Subscribers []Subscriber `json:"subscribers"`
	// Away are the times in which a node is known not to have lived: killed, stopped or cut off. A
	// silence of its subscribers then says nothing about the cluster.
	Away   []Away `json:"away,omitempty"`
	Limits Limits `json:"limits"`
}

// Limits make numbers into breaches; zero means no limit.
type Limits struct {
	Silence time.Duration `json:"silence,omitempty"` // the longest one of a subscriber whose node lives
	Resume  time.Duration `json:"resume,omitempty"`  // the longest way from a disconnect back to a subscription
}

// Partition is one partition of a topic.
type Partition struct {
	Topic string `json:"topic"`
	Index int32  `json:"partition"`
}

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Index) }

// Pos is (epoch, seqno) of a position; the partition stands beside it. The zero Pos is before everything.
type Pos struct {
	Epoch uint64 `json:"epoch"`
	Seqno uint64 `json:"seqno"`
}

// After says whether p comes after q.
func (p Pos) After(q Pos) bool {
	return p.Epoch > q.Epoch || (p.Epoch == q.Epoch && p.Seqno > q.Seqno)
}

func (p Pos) String() string { return fmt.Sprintf("(%d,%d)", p.Epoch, p.Seqno) }

// Place is a position: an element of a vector.
type Place struct {
	Partition int32 `json:"partition"`
	Pos
}

// Record is a record in Kafka. ID is the identity that its writer gave it: a publish that Kafka took twice
// is two records of one ID.
type Record struct {
	Partition
	Offset  int64  `json:"offset"`
	ID      string `json:"id"`
	Subject string `json:"subject"` // as the protocol writes the key
	TS      int64  `json:"ts"`      // Kafka's timestamp, unix ms
	Mid     string `json:"mid,omitempty"`
	User    string `json:"user,omitempty"`
	Damaged bool   `json:"damaged,omitempty"` // the value is not the one its writer gave it
}

// Outcome of a write or publish.
type Outcome string

const (
	Committed Outcome = "committed" // Kafka acknowledged it, and its transaction, if any
	Aborted   Outcome = "aborted"   // in a transaction that was aborted: nobody may see it
	Unknown   Outcome = "unknown"   // it may or may not be there
	Acked     Outcome = "acked"     // a publish: the edge acknowledged it
	Refused   Outcome = "refused"   // a publish: answered with an error
)

// Write is a record that a producer gave to Kafka itself.
type Write struct {
	Partition
	Offset  int64         `json:"offset"` // -1: not known
	ID      string        `json:"id"`
	Subject string        `json:"subject"`
	Outcome Outcome       `json:"outcome"`
	At      time.Duration `json:"at"` // when the outcome was known
	Err     string        `json:"err,omitempty"`
}

// RemovalKind says how records went out of Kafka.
type RemovalKind string

const (
	Deleted   RemovalKind = "deleted"   // by retention or DeleteRecords: offsets are not given again
	Truncated RemovalKind = "truncated" // by an unclean election: other records have taken the offsets
	Recreated RemovalKind = "recreated" // the topic was deleted and created again
)

// Removal says that the records of a partition with offsets in [From, To) were taken out of Kafka. To 0
// stands for all there were. It was done at some time from Began to Ended: before Began nothing can have been
// said of it, and from Ended on what it took is told nobody for the first time. Zero is not known: from the
// beginning of the run, and to its end.
type Removal struct {
	Partition
	Kind  RemovalKind   `json:"kind"`
	From  int64         `json:"from"`
	To    int64         `json:"to,omitempty"`
	Began time.Duration `json:"began,omitempty"`
	Ended time.Duration `json:"ended,omitempty"`
}

func (r *Removal) covers(offset int64) bool { return offset >= r.From && (r.To == 0 || offset < r.To) }

// over says whether it was over at a time.
func (r *Removal) over(at time.Duration) bool { return r.Ended != 0 && at > r.Ended }

// Away is a time in which a node did not live; To 0 means to the end.
type Away struct {
	Node string        `json:"node"`
	From time.Duration `json:"from"`
	To   time.Duration `json:"to,omitempty"`
}

// Publish is one message of a publisher with all attempts to get it acknowledged, which share ID and mid.
type Publish struct {
	Topic    string    `json:"topic"`
	Subject  string    `json:"subject"`
	ID       string    `json:"id"`
	Mid      string    `json:"mid"`
	User     string    `json:"user,omitempty"`
	Attempts []Attempt `json:"attempts"`
}

// Attempt is one sending of a publish and its answer. Outcome Unknown: none came.
type Attempt struct {
	Sent      time.Duration `json:"sent"`
	Answered  time.Duration `json:"answered,omitempty"`
	Node      string        `json:"node"`
	Ack       string        `json:"ack"` // kafka or replicated, as asked
	Outcome   Outcome       `json:"outcome"`
	Code      string        `json:"code,omitempty"` // of an error
	Message   string        `json:"message,omitempty"`
	Partition int32         `json:"partition"`
	Offset    int64         `json:"offset"`
	Pos       Pos           `json:"pos"` // zero: not told
	Duplicate bool          `json:"duplicate,omitempty"`
}

// Subscriber is a client that keeps one subscription alive over any number of connections, and the list
// of what it saw, oldest first.
type Subscriber struct {
	Name    string  `json:"name"`
	Subject string  `json:"subject"`
	History int     `json:"history,omitempty"` // as asked for in the first subscription
	Slow    bool    `json:"slow,omitempty"`    // it reads slowly on purpose: its silences say nothing
	Left    bool    `json:"left,omitempty"`    // it went before the end: nothing is missing after its last event
	Events  []Event `json:"events"`
}

// EventKind names what a subscriber saw.
type EventKind string

const (
	Connect    EventKind = "connect"    // Node
	Disconnect EventKind = "disconnect" // By, Message
	Subbed     EventKind = "subbed"     // At, Resume, Recovered, Reason, Lost
	Msg        EventKind = "msg"        // Place, Prev, Subject, ID
	Live       EventKind = "live"
	Gap        EventKind = "gap"      // At, Reason
	Unsubbed   EventKind = "unsubbed" // Reason
	SubRefused EventKind = "refused"  // Code, Message
	Violation  EventKind = "protocol" // Message: something that the protocol does not know
)

// Event is one thing that a subscriber saw. Most are records, so what only others have is apart.
type Event struct {
	Time    time.Duration `json:"time"`
	Kind    EventKind     `json:"kind"`
	Place                 // of a record
	Prev    Pos           `json:"prev"` // of a record; zero: not told
	Subject string        `json:"subject,omitempty"`
	ID      string        `json:"id,omitempty"`
	Damaged bool          `json:"damaged,omitempty"` // the value is not the one its writer gave it
	*Detail
}

// Detail is what an event that is not a record says.
type Detail struct {
	Node      string      `json:"node,omitempty"`
	At        []Place     `json:"at,omitempty"`
	Resume    []Place     `json:"resume,omitempty"` // the vector that was sent; empty: none
	Resumed   bool        `json:"resumed,omitempty"`
	Recovered bool        `json:"recovered,omitempty"`
	Reason    string      `json:"reason,omitempty"`
	Lost      []LostRange `json:"lost,omitempty"`
	By        string      `json:"by,omitempty"` // a disconnect: Ours, or what the other side said
	Code      string      `json:"code,omitempty"`
	Message   string      `json:"message,omitempty"`
}

// Ours marks a disconnect that the client decided on, and ByBreak one that nobody announced.
const (
	Ours    = "client"
	ByBreak = "break"
)

// LostRange is a range of positions that a subbed says are missing, both ends included.
type LostRange struct {
	Partition int32 `json:"partition"`
	From      Pos   `json:"from"`
	To        Pos   `json:"to"`
}

// topicOf returns the topic of a subject or pattern.
func topicOf(subject string) string {
	topic, _, _ := strings.Cut(strings.TrimPrefix(subject, "/"), "/")
	return topic
}

// matches says whether a record with a subject belongs to a subscription to a subject or pattern. That a
// key is escaped changes nothing: only a whole segment * makes a pattern.
func matches(subscription, subject string) bool {
	if subscription == subject {
		return true
	}
	prefix, ok := strings.CutSuffix(subscription, "/*")
	if !ok {
		return false
	}
	if subject == prefix { // the null key belongs to /topic/*, the key `a` not to /topic/a/*
		return prefix == "/"+topicOf(subject)
	}
	return strings.HasPrefix(subject, prefix+"/")
}
