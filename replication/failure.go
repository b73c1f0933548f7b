package replication

import (
	"errors"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peerpb"
)

// Errors of the domain cross between nodes as a Failure: toFailure on the node that was asked, fromFailure
// on the one that asked. What is not one of the domain's errors becomes "unavailable", which for a publish
// says that it may have been written.

// defaultRetry is when to try again, if the error does not say.
const defaultRetry = time.Second

// maxErrorText bounds the text of an error that crosses, in bytes.
const maxErrorText = 1024

func toFailure(err error) *peerpb.Failure {
	if err == nil {
		return nil
	}
	f := &peerpb.Failure{Message: err.Error()}
	if len(f.Message) > maxErrorText {
		f.Message = f.Message[:maxErrorText]
	}
	f.Message = validUTF8(f.Message)
	var unavailable *bridge.UnavailableError
	var rejected *bridge.RejectedError
	switch {
	case errors.As(err, &unavailable):
		f.Kind = peerpb.FailureKind_FAILURE_UNAVAILABLE
		f.RetryAfterMs = unavailable.RetryAfter.Milliseconds()
	case errors.Is(err, bridge.ErrNotExposed):
		f.Kind = peerpb.FailureKind_FAILURE_NOT_EXPOSED
	case errors.As(err, &rejected):
		f.Kind = peerpb.FailureKind_FAILURE_REJECTED
		f.TooLarge = rejected.TooLarge
	case errors.Is(err, bridge.ErrTooLarge):
		f.Kind = peerpb.FailureKind_FAILURE_TOO_LARGE
	case errors.Is(err, bridge.ErrNotCoordinator):
		f.Kind = peerpb.FailureKind_FAILURE_NOT_COORDINATOR
	default:
		f.Kind = peerpb.FailureKind_FAILURE_UNAVAILABLE
		f.RetryAfterMs = defaultRetry.Milliseconds()
	}
	return f
}

func fromFailure(f *peerpb.Failure) error {
	if f == nil {
		return nil
	}
	switch f.Kind {
	case peerpb.FailureKind_FAILURE_NOT_EXPOSED:
		return remoteError{bridge.ErrNotExposed, f.Message}
	case peerpb.FailureKind_FAILURE_TOO_LARGE:
		return remoteError{bridge.ErrTooLarge, f.Message}
	case peerpb.FailureKind_FAILURE_REJECTED:
		return &bridge.RejectedError{TooLarge: f.TooLarge, Err: errors.New(f.Message)}
	case peerpb.FailureKind_FAILURE_NOT_COORDINATOR:
		return remoteError{bridge.ErrNotCoordinator, f.Message}
	default:
		retry := time.Duration(f.RetryAfterMs) * time.Millisecond
		if retry <= 0 || retry > time.Minute {
			retry = defaultRetry
		}
		return &bridge.UnavailableError{RetryAfter: retry, Err: errors.New(f.Message)}
	}
}

// remoteError is a sentinel of the domain with the other node's words.
type remoteError struct {
	sentinel error
	text     string
}

func (e remoteError) Error() string { return e.text }
func (e remoteError) Unwrap() error { return e.sentinel }
