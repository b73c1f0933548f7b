// Package auth says who may do what: a pure core without clocks, sockets or keys. Whoever has verified a token
// makes an Identity of it here; whoever is asked for records or given some asks its Rights.
package auth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidewire/tidewire/wsedge/subject"
)

// Rights are what somebody may subscribe and publish to. They are never changed once made; the zero value allows
// nothing. Any goroutine may ask them.
//
//  1. Something is allowed if one right covers all of it. Rights unite: their order, and that one stands there
//     twice, means nothing, and none takes away what another gives.
//  2. A subscription to a pattern is allowed only if one right covers the whole pattern.
//  3. What a claim puts into a right stays within one segment of the key, whatever bytes it is made of.
type Rights struct{ sub, pub set }

// MaySubscribe says whether all records of a subject or pattern may be read.
func (r Rights) MaySubscribe(s subject.Subject) bool { return r.sub.covers(s) }

// MayPublish says whether a subject may be published to.
func (r Rights) MayPublish(s subject.Subject) bool { return r.pub.covers(s) }

// Empty says that nothing is allowed.
func (r Rights) Empty() bool { return len(r.sub) == 0 && len(r.pub) == 0 }

const (
	// maxClaim is the longest value of a claim that becomes a part of a right, in bytes.
	maxClaim = 256
	// maxRights bounds the keys of all rights of one token together, in bytes: a few characters of a token could
	// otherwise stand for any amount of memory.
	maxRights = 64 << 10
)

// ErrTooManyRights is what NewRights answers when the rights would take too much memory.
var ErrTooManyRights = fmt.Errorf("the rights of a token have at most %d bytes once their claims are filled in", maxRights)

// NewRights makes rights of what a token says: subjects and patterns in whose keys ${claim} stands for the value
// of that claim, a string or a number (json.Number). A right that cannot be read, or whose claim is missing or no
// segment of a key, is no right; the others hold.
func NewRights(sub, pub []string, claims map[string]any) (Rights, error) {
	var r Rights
	size := 0
	for _, list := range []struct {
		texts []string
		to    *set
	}{{sub, &r.sub}, {pub, &r.pub}} {
		for _, text := range list.texts {
			s, ok := expand(text, claims)
			if !ok {
				continue
			}
			if size += len(s.Topic) + len(s.Key); size > maxRights {
				return Rights{}, ErrTooManyRights
			}
			list.to.add(s)
		}
	}
	return r, nil
}

// ParseRights makes rights that hold for everybody, so that no claim can be a part of them. The error says of the
// first that is wrong what would be right.
func ParseRights(sub, pub []string) (Rights, error) {
	for _, text := range slices.Concat(sub, pub) {
		if strings.Contains(text, "${") {
			return Rights{}, fmt.Errorf("%q: there is no token, so there are no claims to fill in", text)
		}
		if _, err := subject.Parse(text); err != nil {
			return Rights{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	return NewRights(sub, pub, nil)
}

// expand reads one right. Whether it is a pattern, and where its segments end, is decided by the text alone,
// before any value is filled in; and values are filled in as bytes of the key, not as text that is read again.
func expand(text string, claims map[string]any) (subject.Subject, bool) {
	// A stand-in for each value that is like any other letter shows whether the right can be read.
	plain, parts, ok := split(text)
	if !ok || strings.ContainsRune(text, utf8.RuneError) {
		return subject.Subject{}, false
	}
	s, err := subject.Parse(plain)
	if err != nil {
		return subject.Subject{}, false
	}
	if len(parts) == 0 {
		return s, true
	}
	s.Key = s.Key[:0:0]
	for _, p := range parts {
		if p.claim == "" {
			s.Key = append(s.Key, unescape(p.text)...)
			continue
		}
		v, ok := segment(claims[p.claim])
		if !ok {
			return subject.Subject{}, false
		}
		s.Key = append(s.Key, v...)
	}
	return s, true
}

// part is a piece of the key of a right: text as it stands there, or the name of a claim.
type part struct{ text, claim string }

// split takes the key of a right apart, without the * of a pattern, and returns the right with a letter in the
// place of each claim. There are no parts when there are no claims.
func split(text string) (plain string, parts []part, ok bool) {
	if !strings.Contains(text, "${") {
		return text, nil, true
	}
	slash := strings.IndexByte(text[1:], '/')
	if slash < 0 || strings.Contains(text[:slash+1], "${") {
		return "", nil, false // only the key has segments to fill in
	}
	head, rest := text[:slash+2], text[slash+2:]
	tail := ""
	if strings.HasSuffix(rest, "/*") {
		rest, tail = rest[:len(rest)-1], "*"
	}
	var b strings.Builder
	b.WriteString(head)
	for {
		before, after, found := strings.Cut(rest, "${")
		if before != "" {
			parts = append(parts, part{text: before})
			b.WriteString(before)
		}
		if !found {
			b.WriteString(tail)
			return b.String(), parts, true
		}
		name, more, closed := strings.Cut(after, "}")
		if !closed || name == "" {
			return "", nil, false
		}
		parts = append(parts, part{claim: name})
		b.WriteByte('x')
		rest = more
	}
}

// unescape turns text of a key that has been read as such back into bytes.
func unescape(text string) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out = append(out, text[i])
			continue
		}
		b, _ := strconv.ParseUint(text[i+1:i+3], 16, 8)
		out = append(out, byte(b))
		i += 2
	}
	return out
}

// segment returns the value of a claim as it stands in a key: its bytes, if these are one segment. A slash has no
// form within a segment; a value that has one would reach into what belongs to others. An empty value names nobody.
// U+FFFD is what a JSON decoder makes of bytes that are no text: values that differ there would become the same.
func segment(claim any) (string, bool) {
	var v string
	switch c := claim.(type) {
	case string:
		v = c
	case json.Number:
		v = c.String()
	}
	if v == "" || len(v) > maxClaim || strings.Contains(v, "/") || strings.Contains(v, string(utf8.RuneError)) {
		return "", false
	}
	return v, true
}
