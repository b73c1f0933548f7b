package bridge

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sampleRevocations() revocationSet {
	s := make(revocationSet)
	s.revoke(&revokeOp{Now: 1, Revocations: []Revocation{
		{By: BySubject, Value: "alice", At: 1_700_000_000_000, Until: 1_702_592_000_000, Reason: "left the company"},
		{By: BySubject, Value: "bob", At: 0, Until: 2},
		{By: ByTokenID, Value: "alice", At: 5, Until: 5},
		{By: ByTokenID, Value: strings.Repeat("é", MaxRevocationValue/2), At: 7, Until: maxUnixMs, Reason: strings.Repeat("r", MaxRevocationReason)},
	}})
	return s
}

func subject(v string, at, until int64) Revocation { return Revocation{BySubject, v, at, until, ""} }
func tokenID(v string, at, until int64) Revocation { return Revocation{ByTokenID, v, at, until, ""} }

func TestWhichTokensAreRevoked(t *testing.T) {
	ms := func(v int64) time.Time { return time.UnixMilli(v) }
	alice := []*revokeOp{{Now: 1000, Revocations: []Revocation{subject("alice", 1000, 5000)}}}
	id := []*revokeOp{{Now: 1000, Revocations: []Revocation{tokenID("t1", 1000, 5000)}}}
	for name, c := range map[string]struct {
		ops   []*revokeOp
		token Token
		want  bool
	}{
		"none at all":                  {nil, Token{Subject: "alice"}, false},
		"issued before":                {alice, Token{Subject: "alice", IssuedAt: ms(999)}, true},
		"issued at that moment":        {alice, Token{Subject: "alice", IssuedAt: ms(1000)}, true},
		"issued after":                 {alice, Token{Subject: "alice", IssuedAt: ms(1001)}, false},
		"does not say when":            {alice, Token{Subject: "alice"}, true},
		"of somebody else":             {alice, Token{Subject: "alic", IssuedAt: ms(1)}, false},
		"of nobody":                    {alice, Token{IssuedAt: ms(1)}, false},
		"subject is another's id":      {id, Token{Subject: "t1", IssuedAt: ms(1)}, false},
		"id is another's subject":      {alice, Token{ID: "alice", IssuedAt: ms(1)}, false},
		"by id":                        {id, Token{Subject: "alice", ID: "t1", IssuedAt: ms(1)}, true},
		"by id, issued after":          {id, Token{ID: "t1", IssuedAt: ms(9000)}, true},
		"another id":                   {id, Token{Subject: "alice", ID: "t2", IssuedAt: ms(1)}, false},
		"by id, though alice is newer": {append(slices.Clone(alice), id...), Token{Subject: "alice", ID: "t1", IssuedAt: ms(9000)}, true},
		"the later time counts":        {append(slices.Clone(alice), &revokeOp{Now: 1, Revocations: []Revocation{subject("alice", 1100, 4000)}}), Token{Subject: "alice", IssuedAt: ms(1100)}, true},
		"an earlier time takes nothing back": {append(slices.Clone(alice), &revokeOp{Now: 1, Revocations: []Revocation{subject("alice", 900, 4000)}}),
			Token{Subject: "alice", IssuedAt: ms(1000)}, true},
		"an earlier end takes nothing back": {append(slices.Clone(alice), &revokeOp{Now: 1, Revocations: []Revocation{subject("alice", 900, 1500)}}, &revokeOp{Now: 5000}),
			Token{Subject: "alice", IssuedAt: ms(1000)}, true},
		"kept to its last moment": {append(slices.Clone(alice), &revokeOp{Now: 5000}), Token{Subject: "alice"}, true},
		"expired":                 {append(slices.Clone(alice), &revokeOp{Now: 5001}), Token{Subject: "alice"}, false},
		"expired when it came":    {[]*revokeOp{{Now: 5001, Revocations: alice[0].Revocations}}, Token{Subject: "alice"}, false},
	} {
		s := make(revocationSet)
		for _, o := range c.ops {
			if !s.revoke(o) {
				t.Errorf("%s: refused", name)
			}
		}
		if got := s.has(c.token); got != c.want {
			t.Errorf("%s: revoked is %v", name, got)
		}
	}
}

func TestRevocationsAreBounded(t *testing.T) {
	s := make(revocationSet)
	full := &revokeOp{}
	for i := range MaxRevocations {
		full.Revocations = append(full.Revocations, tokenID(fmt.Sprint(i), 0, int64(10+i)))
	}
	if !s.revoke(full) || len(s) != MaxRevocations {
		t.Fatalf("%d are kept", len(s))
	}
	if s.revoke(&revokeOp{Revocations: []Revocation{tokenID("one more", 0, 10)}}) || len(s) != MaxRevocations {
		t.Error("one more is taken")
	}
	if !s.revoke(&revokeOp{Revocations: []Revocation{tokenID("7", 3, 100_000)}}) || s[revocationKey{ByTokenID, "7"}].until != 100_000 {
		t.Error("one that is there cannot be made to last longer")
	}
	if !s.revoke(&revokeOp{Now: 11, Revocations: []Revocation{tokenID("one more", 0, 11)}}) || len(s) != MaxRevocations || !s.has(Token{ID: "one more"}) {
		t.Error("the room of one that has expired is not given")
	}
	b := encodeSnapshot(nil, s)
	if _, got, err := decodeSnapshot(b); err != nil || !maps.Equal(got, s) {
		t.Errorf("the full set does not come back: %d of them, %v", len(got), err)
	}
}

func TestValidateRevocation(t *testing.T) {
	for want, r := range map[string]Revocation{
		"":              subject(strings.Repeat("x", MaxRevocationValue), 0, maxUnixMs),
		"by subject or": {Value: "x"},
		"is empty":      subject("", 1, 2),
		"257 bytes":     subject(strings.Repeat("x", MaxRevocationValue+1), 1, 2),
		"129 bytes":     {BySubject, "x", 1, 2, strings.Repeat("x", MaxRevocationReason+1)},
		"not UTF-8":     tokenID("\xff", 1, 2),
		"kept until":    tokenID("x", 2, 1),
		"unix milli":    tokenID("x", -1, 1),
		"the times":     tokenID("x", 1, maxUnixMs+1),
	} {
		if err := r.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

// revokedTwin is a set as one would write it without thinking of memory: of each key all that was said since it
// was revoked first.
type revokedTwin []struct {
	by    RevokeBy
	value string
	said  []Revocation
}

func (w *revokedTwin) revoke(o *revokeOp) {
	*w = slices.DeleteFunc(*w, func(k struct {
		by    RevokeBy
		value string
		said  []Revocation
	}) bool {
		return !slices.ContainsFunc(k.said, func(r Revocation) bool { return r.Until >= o.Now })
	})
next:
	for _, r := range o.Revocations {
		if r.Until < o.Now {
			continue
		}
		for i := range *w {
			if k := &(*w)[i]; k.by == r.By && k.value == r.Value {
				k.said = append(k.said, r)
				continue next
			}
		}
		*w = append(*w, struct {
			by    RevokeBy
			value string
			said  []Revocation
		}{r.By, r.Value, []Revocation{r}})
	}
}

func (w revokedTwin) has(t Token) bool {
	for _, k := range w {
		for _, r := range k.said {
			if r.By == ByTokenID && t.ID == r.Value || r.By == BySubject && t.Subject == r.Value && (t.IssuedAt.IsZero() || t.IssuedAt.UnixMilli() <= r.At) {
				return true
			}
		}
	}
	return false
}

// The same entries make the same set on every node, also on one that took a snapshot on the way, and it revokes
// what a list of all that was said does.
func TestRevocationsAgainstTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes [2]revocationSet
		nodes[0], nodes[1] = make(revocationSet), make(revocationSet)
		var twin revokedTwin
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		times := rapid.Int64Range(0, 20)
		for range rapid.IntRange(1, 30).Draw(t, "entries") {
			o := &revokeOp{Now: times.Draw(t, "now")}
			for range rapid.IntRange(0, 2).Draw(t, "revocations") {
				at := times.Draw(t, "at")
				o.Revocations = append(o.Revocations, Revocation{
					By: rapid.SampledFrom([]RevokeBy{BySubject, ByTokenID}).Draw(t, "by"), Value: names.Draw(t, "value"),
					At: at, Until: at + times.Draw(t, "kept"), Reason: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "reason"),
				})
			}
			ops, err := decodeEntry(encodeOps([]op{o}))
			if err != nil || !reflect.DeepEqual(ops, []op{o}) {
				t.Fatalf("%v: %+v", err, ops)
			}
			nodes[0].revoke(o)
			nodes[1].revoke(ops[0].(*revokeOp))
			twin.revoke(o)
			if rapid.Bool().Draw(t, "snapshot") {
				b := encodeSnapshot(nil, nodes[0])
				_, again, err := decodeSnapshot(b)
				if err != nil || !bytes.Equal(encodeSnapshot(nil, again), b) || (b[0] == snapshotFormat) != (len(again) == 0) {
					t.Fatalf("snapshot: %v", err)
				}
				if again == nil {
					again = make(revocationSet)
				}
				nodes[1] = again
			}
			if !maps.Equal(nodes[0], nodes[1]) {
				t.Fatalf("the nodes differ: %v, %v", nodes[0], nodes[1])
			}
			if len(nodes[0]) != len(twin) {
				t.Fatalf("%d keys, the twin has %d", len(nodes[0]), len(twin))
			}
			for _, v := range []string{"", "a", "b", "c"} {
				for i := int64(-1); i <= 21; i++ {
					tok := Token{Subject: v, IssuedAt: time.UnixMilli(i)}
					if i < 0 {
						tok.IssuedAt = time.Time{}
					}
					byID := tok
					byID.Subject, byID.ID = "", v
					for _, tok := range []Token{tok, byID} {
						if got, want := nodes[0].has(tok), twin.has(tok); got != want {
							t.Fatalf("%+v: revoked is %v, the twin says %v", tok, got, want)
						}
					}
				}
			}
		}
	})
}

// mustRevoke applies what could be decoded.
func mustRevoke(t *testing.T, o *revokeOp) {
	s := make(revocationSet)
	s.revoke(o)
	for _, r := range s.list() {
		tok := Token{Subject: r.Value}
		if r.By == ByTokenID {
			tok = Token{ID: r.Value}
		}
		if err := r.Validate(); err != nil || r.Until < o.Now || !s.has(tok) {
			t.Fatalf("%+v: %v", r, err)
		}
	}
	if len(s) > MaxRevocations {
		t.Fatalf("%d are kept", len(s))
	}
}

// A snapshot without revocations is what builds that know of none write; theirs is taken.
func TestSnapshotFormats(t *testing.T) {
	ledgers, revoked := sampleLedgers(2, 3), sampleRevocations()
	old := encodeLedgers([]byte{1}, ledgers)
	if !bytes.Equal(encodeSnapshot(ledgers, nil), old) {
		t.Error("a snapshot without revocations has another form")
	}
	if l, r, err := decodeSnapshot(old); err != nil || len(l) != 2 || len(r) != 0 {
		t.Errorf("%d ledgers, %d revocations, %v", len(l), len(r), err)
	}
	b := encodeSnapshot(ledgers, revoked)
	if l, r, err := decodeSnapshot(b); err != nil || len(l) != 2 || !maps.Equal(r, revoked) {
		t.Errorf("%d ledgers, %v, %v", len(l), r, err)
	}
	for n := range b {
		if _, _, err := decodeSnapshot(b[:n]); err == nil {
			t.Fatalf("cut at %d of %d is taken", n, len(b))
		}
	}
	list := revoked.list()
	for name, l := range map[string][]Revocation{"twice": {list[0], list[0]}, "out of order": {list[1], list[0]}} {
		if _, _, err := decodeSnapshot(appendRevocations(encodeLedgers([]byte{snapshotRevocations}, nil), l)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
