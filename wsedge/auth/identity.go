package auth

import (
	"encoding/json"
	"time"
)

// Identity is what a token that was found to be in order says. It is never changed once made.
type Identity struct {
	Subject  string    // whose it is (claim sub); empty: it does not say
	TokenID  string    // which it is (claim jti); empty: it does not say
	IssuedAt time.Time // zero: it does not say
	Expires  time.Time // until when it is taken, leeway included; zero: for ever

	Rights Rights
	// Silent says that the token has no claim of rights at all, which is less than one that gives none: then
	// somebody else may decide (see Decider).
	Silent bool
	// Claims is the token's payload. It is there only where a Decider is to be told it.
	Claims json.RawMessage
}

// RefusedError says why a token is not taken: it never will be. Message is for the client and holds nothing of
// the token.
type RefusedError struct{ Message string }

func (e *RefusedError) Error() string { return "token refused: " + e.Message }

// UnavailableError says that nobody can tell now whether a token is in order; the same one may be tried again.
type UnavailableError struct {
	Message    string
	RetryAfter time.Duration
}

func (e *UnavailableError) Error() string { return "token cannot be verified now: " + e.Message }
