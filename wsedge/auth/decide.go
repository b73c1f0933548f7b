package auth

import (
	"context"
	"encoding/json"
	"time"
)

// A Decider is somebody else who decides, session by session and subject by subject, about what rights allow or
// leave open.
type Decider interface {
	// Decide answers within a time of its own, or when ctx ends. An error means that it cannot be asked now, which
	// counts as no. Any goroutine may call it.
	Decide(ctx context.Context, q Question) (Decision, error)
}

// Question is what a Decider is asked.
type Question struct {
	User    string          `json:"user"`    // whose token it is; empty: there is none, or it does not say
	Session string          `json:"session"` // as in welcome; empty for a request that has none
	Action  string          `json:"action"`  // ActionSub or ActionPub
	Subject string          `json:"subject"` // the text of a subject or, to subscribe, a pattern
	Claims  json.RawMessage `json:"claims,omitempty"`
	// Anew asks for an answer that was not given before: the last one's time is about to be over.
	Anew bool `json:"-"`
}

// The actions of a Question.
const (
	ActionSub = "sub"
	ActionPub = "pub"
)

// Decision is an answer. It holds For so long, and has to be asked for again then.
type Decision struct {
	Allow bool
	For   time.Duration
}
