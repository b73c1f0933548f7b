package bridge

import (
	"context"
	"errors"
	"time"
)

// Ack says what an acknowledged publish has reached.
type Ack uint8

const (
	// AckKafka: all in-sync replicas of Kafka have it.
	AckKafka Ack = iota
	// AckReplicated: also a majority of the edge nodes.
	AckReplicated
)

// PublishRequest is one publish of a client.
type PublishRequest struct {
	Topic   string
	Key     []byte // nil: null key
	Value   []byte // nil: tombstone
	Headers []Header
	User    string // the publisher; empty when anonymous
	Mid     string // empty: no deduplication
	Ack     Ack
}

// PublishResult is where a publish went. Pos is set (not zero) when it is known.
type PublishResult struct {
	Partition int32
	Offset    Offset
	Pos       Position
	Duplicate bool
}

// The outcomes of a publish that are not a result. Others than these are bugs.
var (
	// ErrNotExposed: the topic is not one that clients may publish to, or does not exist.
	ErrNotExposed = errors.New("topic is not open for publishing")
	// ErrTooLarge: over Kafka's limit for the topic.
	ErrTooLarge = errors.New("value is too large for the topic")
)

// UnavailableError says that an operation could not be carried out now; for a publish it may or may
// not have been written. RetryAfter is when to try again.
type UnavailableError struct {
	RetryAfter time.Duration
	Err        error
}

func (e *UnavailableError) Error() string { return "unavailable: " + e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

// TopicLimits is what a Producer may know besides: how large a record may be. It is asked only when Kafka
// has refused one, to tell the client what would be right; any goroutine may call it.
type TopicLimits interface {
	// MaxMessageBytes is the limit of a record batch of the topic, with keys, headers and its own 61
	// bytes. An error means that Kafka does not tell.
	MaxMessageBytes(ctx context.Context, topic string) (int, error)
}
