package tidewire

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed: the client or the subscription was closed by the application.
	ErrClosed = errors.New("tidewire: closed")
	// ErrOverlap: a live subscription of this client can receive the same records. On one
	// connection the two could not be told apart, as a record's frame names its own subject and not
	// the pattern it was found by; use another Client for one of them.
	ErrOverlap = errors.New("tidewire: overlaps with a subscription of this client")
	// ErrQueueFull: PublishAsync was called while Config.MaxPublishes publishes were under way. Wait for
	// some of them.
	ErrQueueFull = errors.New("tidewire: too many publishes are under way")
	// ErrStore: a vector could not be read from or written to SubOptions.Store; joined with its error.
	ErrStore = errors.New("tidewire: vector store")
	// ErrUncertain: a publish was given up (its context ended or the client was closed) after it may
	// have reached the cluster. Publish again with the same Mid to find out: it is not written twice.
	ErrUncertain = errors.New("tidewire: publish may or may not have been written")
)

// The codes of [Error] (docs/protocol.md, "error").
const (
	CodeBadRequest        = "bad_request"
	CodeBadSubject        = "bad_subject"
	CodeUnauthenticated   = "unauthenticated"
	CodeForbidden         = "forbidden"
	CodeAlreadySubscribed = "already_subscribed"
	CodeNotSubscribed     = "not_subscribed"
	CodeTooLarge          = "too_large"
	CodeRateLimited       = "rate_limited"
	CodeUnavailable       = "unavailable"
	CodeLimit             = "limit"
)

// Error is a refusal by the cluster. It is returned only for what will not succeed by being repeated:
// the client itself repeats what may.
type Error struct {
	Code    string        // one of the Code constants; a newer server may know more
	Message string        // what was wrong and what would be right, for people
	Retry   time.Duration // not zero: the same op may succeed after this long
}

func (e *Error) Error() string { return fmt.Sprintf("tidewire: %s: %s", e.Code, e.Message) }

// UnsubscribedError ends a subscription that the server ended.
type UnsubscribedError struct {
	Subject string
	Reason  string // "forbidden" or "topic_gone"
}

func (e *UnsubscribedError) Error() string {
	return fmt.Sprintf("tidewire: subscription to %s was ended by the server: %s", e.Subject, e.Reason)
}

// errSilent ends a connection on which nothing was heard for twice the heartbeat.
var errSilent = errors.New("nothing heard for twice the heartbeat interval")
