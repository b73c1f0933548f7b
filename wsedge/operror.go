package wsedge

import "time"

// The codes of the `error` op. They are part of the protocol.
const (
	codeBadRequest        = "bad_request"
	codeBadSubject        = "bad_subject"
	codeAlreadySubscribed = "already_subscribed"
	codeNotSubscribed     = "not_subscribed"
	codeTooLarge          = "too_large"
	codeRateLimited       = "rate_limited"
	codeUnavailable       = "unavailable"
	codeLimit             = "limit"
	codeForbidden         = "forbidden"
	codeUnauthenticated   = "unauthenticated"
)

// OpError is an answer that says why an op was not carried out. Message says what was wrong and what
// would be right; Retry is more than zero where the same op may succeed later.
type OpError struct {
	ID      uint64 // of the op, 0 if it had none or none that could be read
	Code    string
	Message string
	Retry   time.Duration

	absent bool   // bad_subject: the subject is one, but there is no such topic for clients
	reason string // unavailable: what a bye says instead
	status int    // of HTTP, where the code does not say; 0: it does
}

func (e *OpError) Error() string { return e.Code + ": " + e.Message }

func badSubject(message string) error { return &OpError{Code: codeBadSubject, Message: message} }
func badRequest(message string) error { return &OpError{Code: codeBadRequest, Message: message} }
