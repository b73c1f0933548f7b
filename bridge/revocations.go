package bridge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// RevokeBy says what a revocation names tokens by.
type RevokeBy byte

const (
	BySubject RevokeBy = 1 // all tokens of a subject that were issued at or before a time
	ByTokenID RevokeBy = 2 // the tokens with an id, whenever they were issued
)

// A Revocation takes back tokens that clients were given. Times are unix milliseconds.
//
// By, Value and Until are always set; Value is UTF-8 of at most MaxRevocationValue bytes, Reason of at most
// MaxRevocationReason; At is not after Until. Whoever makes one from outside asks Validate.
type Revocation struct {
	By    RevokeBy
	Value string // the subject, or the token's id
	// At: of a subject, tokens that were issued at or before it are revoked, and those that do not say when.
	At    int64
	Until int64 // how long it is kept: to when those tokens have expired
	// Reason is for people; empty: none was given.
	Reason string
}

// Bounds of revocations. Together they bound their part of a snapshot to some 26 MB, and the memory that they take to
// little more.
const (
	MaxRevocations      = 65536
	MaxRevocationValue  = 256 // bytes
	MaxRevocationReason = 128 // bytes
	// maxUnixMs bounds the times that are believed. It is what JavaScript can count to.
	maxUnixMs = 1 << 53
)

// ErrTooManyRevocations: there are MaxRevocations already. Nothing was revoked.
var ErrTooManyRevocations = fmt.Errorf("there are %d revocations, as many as a cluster keeps, and none has expired: change the key that tokens are signed with, which takes back all of them", MaxRevocations)

// Validate returns what is wrong with a revocation, in words for who asked for it.
func (r Revocation) Validate() error {
	switch {
	case r.By != BySubject && r.By != ByTokenID:
		return errors.New("a revocation is by subject or by token id")
	case r.Value == "":
		return errors.New("the subject or token id is empty")
	case len(r.Value) > MaxRevocationValue:
		return fmt.Errorf("the subject or token id has %d bytes, at most %d are allowed", len(r.Value), MaxRevocationValue)
	case len(r.Reason) > MaxRevocationReason:
		return fmt.Errorf("the reason has %d bytes, at most %d are allowed", len(r.Reason), MaxRevocationReason)
	case !utf8.ValidString(r.Value) || !utf8.ValidString(r.Reason):
		return errors.New("the subject, token id or reason is not UTF-8")
	case r.At < 0 || r.Until < r.At || r.Until > maxUnixMs:
		return errors.New("the times of a revocation are unix milliseconds, and it is kept until after the tokens were issued")
	}
	return nil
}

// Token is what a revocation is compared with.
type Token struct {
	Subject string // empty: the token names none
	ID      string // likewise
	// IssuedAt is the second or the moment that the token names; zero: it does not say.
	IssuedAt time.Time
}

// revocationSet is the revocations of a cluster, as a value of its Raft log: the same entries make the same set,
// whatever the time is where they are applied. Group 0's goroutine changes it.
//
//  1. There are at most MaxRevocations.
//  2. A revocation takes more time in (a later At, a later Until) and never less, until it leaves.
//  3. One leaves when an entry is applied whose time, its proposer's, is past its Until.
type revocationSet map[revocationKey]revocationTerms

type revocationKey struct {
	by    RevokeBy
	value string
}

type revocationTerms struct {
	at, until int64
	reason    string
}

// revoke carries out a committed operation. It returns false if a revocation did not fit: there is no room for
// it. Those that have expired by the operation's time leave first.
func (s revocationSet) revoke(o *revokeOp) (all bool) {
	s.expire(o.Now)
	all = true
	for _, r := range o.Revocations {
		key := revocationKey{r.By, r.Value}
		old, known := s[key]
		switch {
		case r.Until < o.Now: // for nothing, like one that has left
			continue
		case !known && len(s) >= MaxRevocations:
			all = false
			continue
		}
		now := revocationTerms{max(r.At, old.at), max(r.Until, old.until), r.Reason}
		if now.reason == "" {
			now.reason = old.reason
		}
		s[key] = now
	}
	return all
}

// expire lets those leave whose time is over.
func (s revocationSet) expire(now int64) {
	for key, r := range s {
		if r.until < now {
			delete(s, key)
		}
	}
}

// expired says whether any would leave.
func (s revocationSet) expired(now int64) bool {
	for _, r := range s {
		if r.until < now {
			return true
		}
	}
	return false
}

// has says whether a token is revoked.
func (s revocationSet) has(t Token) bool {
	if len(s) == 0 {
		return false
	}
	if t.ID != "" {
		if _, ok := s[revocationKey{ByTokenID, t.ID}]; ok {
			return true
		}
	}
	if t.Subject == "" {
		return false
	}
	r, ok := s[revocationKey{BySubject, t.Subject}]
	return ok && (t.IssuedAt.IsZero() || t.IssuedAt.UnixMilli() <= r.at)
}

// list returns them in the order of their keys.
func (s revocationSet) list() []Revocation {
	out := make([]Revocation, 0, len(s))
	for key, r := range s {
		out = append(out, Revocation{key.by, key.value, r.at, r.until, r.reason})
	}
	slices.SortFunc(out, func(a, b Revocation) int { return compareRevocations(&a, &b) })
	return out
}

func compareRevocations(a, b *Revocation) int {
	if c := cmp.Compare(a.By, b.By); c != 0 {
		return c
	}
	return strings.Compare(a.Value, b.Value)
}
