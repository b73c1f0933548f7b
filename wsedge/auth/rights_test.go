package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tidewire/tidewire/wsedge/subject"
)

func parse(t testing.TB, text string) subject.Subject {
	t.Helper()
	s, err := subject.Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return s
}

func TestRights(t *testing.T) {
	claims := map[string]any{
		"sub": "alice", "n": json.Number("42"), "star": "*", "slash": "bob/1", "dots": "..", "percent": "50%", "empty": "",
		"list": []any{"alice"}, "yes": true, "object": map[string]any{"a": "b"}, "null": nil, "ctl": "a\x00b", "bad": "a\xffb", "fffd": "a\ufffdb",
		"long": strings.Repeat("a", maxClaim+1), "nested": "${sub}", "https://a.example/id": "7",
	}
	for _, c := range []struct {
		right, asked string
		want         bool
	}{
		{"/orders/${sub}/*", "/orders/alice/1", true},
		{"/orders/${sub}/*", "/orders/alice/", true},
		{"/orders/${sub}/*", "/orders/alice/*", true},
		{"/orders/${sub}/*", "/orders/alice/1/*", true},
		{"/orders/${sub}/*", "/orders/alice", false},
		{"/orders/${sub}/*", "/orders/alice2/1", false},
		{"/orders/${sub}/*", "/orders/bob/1", false},
		{"/orders/${sub}/*", "/orders/*", false}, // a pattern that is covered in part only
		{"/orders/${sub}/*", "/orders", false},
		{"/orders/${sub}", "/orders/alice", true},
		{"/orders/${sub}", "/orders/alice/1", false},
		{"/orders/user-${n}/*", "/orders/user-42/x", true},
		{"/orders/${n}${sub}", "/orders/42alice", true},
		{"/orders/${https://a.example/id}", "/orders/7", true},
		{"/orders/*", "/orders", true},
		{"/orders/*", "/orders/*", true},
		{"/orders/*", "/prices/*", false},
		{"/orders", "/orders", true},
		{"/orders", "/orders/", false},
		{"/orders/", "/orders/", true},
		{"/orders/", "/orders", false},
		{"/orders/a/*", "/orders/a/b/*", true},
		{"/orders/a/b/*", "/orders/a/*", false},
		{"/orders/a%2F/*", "/orders/a//b", false}, // not the text of any key
		// Values that want more than a segment.
		{"/orders/${star}", "/orders/%2A", true},
		{"/orders/${star}", "/orders/*", false},
		{"/orders/${star}", "/orders/a", false},
		{"/orders/a/${star}", "/orders/a/b", false},
		{"/orders/${star}/*", "/orders/%2A/b", true},
		{"/orders/${star}/*", "/orders/a/b", false},
		{"/orders/${star}/*", "/orders/*", false},
		{"/orders/${slash}/*", "/orders/bob/1/x", false},
		{"/orders/${slash}", "/orders/bob/1", false},
		{"/orders/${percent}", "/orders/50%25", true},
		{"/orders/${percent}2A/*", "/orders/50%252A/x", true},
		{"/orders/${percent}2F/*", "/orders/50//x", false},
		{"/orders/${ctl}", "/orders/a%00b", true},
		{"/orders/${bad}", "/orders/a%FFb", true},
		{"/orders/${fffd}", "/orders/a\ufffdb", false},
		{"/orders/${dots}/*", "/orders/../x", true},
		{"/orders/${nested}", "/orders/alice", false},
		{"/orders/${nested}", "/orders/${sub}", true},
		// No such right.
		{"/orders/${missing}/*", "/orders//x", false},
		{"/orders/${empty}/*", "/orders//x", false},
		{"/orders/${empty}*", "/orders/*", false},
		{"/orders/a${empty}/*", "/orders/a/x", false},
		{"/orders/${list}", "/orders/alice", false},
		{"/orders/${yes}", "/orders/true", false},
		{"/orders/${object}", "/orders/b", false},
		{"/orders/${null}", "/orders/null", false},
		{"/orders/${long}", "/orders/" + strings.Repeat("a", maxClaim+1), false},
		{"/${sub}/*", "/alice/x", false},
		{"/orders/${sub", "/orders/alice", false},
		{"/orders/${}", "/orders/", false},
		{"/orders/%${n}", "/orders/B", false},
		{"", "/orders", false}, {"$", "/orders", false}, {"${sub}", "/orders", false}, {"*", "/orders", false}, {"/*", "/orders", false},
		{"/orders/*/x", "/orders/a/x", false},
	} {
		for _, pub := range []bool{false, true} {
			var sub, pubs []string
			ask := Rights.MaySubscribe
			if pub {
				pubs, ask = []string{c.right}, Rights.MayPublish
			} else {
				sub = []string{c.right}
			}
			r, err := NewRights(sub, pubs, claims)
			if err != nil {
				t.Fatal(err)
			}
			s, err := subject.Parse(c.asked)
			if err != nil && c.want {
				t.Fatal(err)
			}
			if err == nil && ask(r, s) != c.want {
				t.Errorf("right %q, asked for %q (pub %v): %v", c.right, c.asked, pub, !c.want)
			}
			if err == nil && c.want && Rights.MaySubscribe(r, s) && Rights.MayPublish(r, s) {
				t.Errorf("right %q: to subscribe and to publish are two rights", c.right)
			}
		}
	}
}

func TestRightsAreBounded(t *testing.T) {
	claims := map[string]any{"s": strings.Repeat("a", maxClaim)}
	_, err := NewRights(slices.Repeat([]string{"/t/${s}"}, 10), nil, claims)
	if err != nil {
		t.Error(err)
	}
	many := "/t/" + strings.Repeat("${s}", maxRights/maxClaim+1)
	if _, err := NewRights(nil, []string{many}, claims); !errors.Is(err, ErrTooManyRights) {
		t.Errorf("%v", err)
	}
}

func TestParseRights(t *testing.T) {
	r, err := ParseRights([]string{"/prices/*"}, []string{"/chat/a"})
	if err != nil || !r.MaySubscribe(parse(t, "/prices/x")) || !r.MayPublish(parse(t, "/chat/a")) || r.MayPublish(parse(t, "/prices/x")) || r.Empty() {
		t.Errorf("%+v, %v", r, err)
	}
	for _, text := range []string{"prices", "/prices/${sub}", "/a/*/b", ""} {
		if _, err := ParseRights(nil, []string{text}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if r, err := ParseRights(nil, nil); err != nil || !r.Empty() {
		t.Errorf("%+v, %v", r, err)
	}
}

// naive is the twin of Rights: it fills in claims segment by segment and asks one right after the other, each of
// which covers something if everything of a small world that belongs to the one belongs to the other.
type naive struct{ rights []naiveRight }

type naiveRight struct {
	topic    string
	segments []string // of the key
	kind     subject.Kind
}

func newNaive(texts []string, claims map[string]any) naive {
	var n naive
next:
	for _, text := range texts {
		pieces := strings.Split(text, "/")
		if len(pieces) < 2 || pieces[0] != "" {
			continue
		}
		r := naiveRight{topic: pieces[1], segments: pieces[2:]}
		switch last := len(pieces) - 1; {
		case last == 1:
			r.kind = subject.NullKey
		case pieces[last] != "*":
			r.kind = subject.OneKey
		case last == 2:
			r.kind, r.segments = subject.WholeTopic, nil
		default:
			r.kind, r.segments = subject.KeyPrefix, append(slices.Clone(pieces[2:last]), "")
		}
		filled := make([]string, len(r.segments))
		for i, seg := range r.segments {
			if strings.HasPrefix(seg, "${") {
				v, ok := claims[seg[2:len(seg)-1]].(string)
				if !ok || v == "" || strings.Contains(v, "/") {
					continue next
				}
				filled[i] = v
				continue
			}
			filled[i] = seg
		}
		r.segments = filled
		n.rights = append(n.rights, r)
	}
	return n
}

func (r naiveRight) has(topic string, key []byte) bool {
	if topic != r.topic {
		return false
	}
	switch r.kind {
	case subject.NullKey:
		return key == nil
	case subject.WholeTopic:
		return true
	}
	if key == nil {
		return false
	}
	have := strings.Split(string(key), "/")
	if r.kind == subject.OneKey {
		return slices.Equal(have, r.segments)
	}
	n := len(r.segments) - 1
	return len(have) > n && slices.Equal(have[:n], r.segments[:n])
}

func (n naive) allows(s subject.Subject, world [][]byte) bool {
	for _, r := range n.rights {
		all := true
		for _, topic := range []string{"a", "b"} {
			for _, key := range world {
				if topic == s.Topic && s.Matches(key) && !r.has(topic, key) {
					all = false
				}
			}
		}
		if all {
			return true
		}
	}
	return false
}

var values = []string{"x", "y", "*", "%", "\xff", "\x01", "..", "x/y", "/", "", "xx"}

// Rights are their naive twin, in whatever order they stand and however often.
func TestRightsAreTheirTwin(t *testing.T) {
	// Every key of up to four segments, each of which may be any value.
	atoms := []string{"x", "y", "*", "%", "\xff", "\x01", "..", "xx", ""}
	world := [][]byte{nil}
	var level []string
	for range 3 {
		var next []string
		for _, a := range atoms {
			if level == nil {
				next = append(next, a)
			}
			for _, k := range level {
				next = append(next, k+"/"+a)
			}
		}
		level = next
		for _, k := range level {
			world = append(world, []byte(k))
		}
	}
	for _, k := range []string{"x/y/x/y", "x/x/x/", "*/*/*/*"} {
		world = append(world, []byte(k))
	}
	seg := rapid.SampledFrom([]string{"x", "y", "xx", "..", "${c}", "${d}", "${none}"})
	right := rapid.Custom(func(t *rapid.T) string {
		text := "/" + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic")
		for range rapid.IntRange(0, 3).Draw(t, "segments") {
			text += "/" + seg.Draw(t, "segment")
		}
		if rapid.Bool().Draw(t, "pattern") {
			text += "/*"
		}
		return text
	})
	asked := rapid.Custom(func(t *rapid.T) subject.Subject {
		s := subject.Subject{Topic: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic"), Kind: rapid.SampledFrom([]subject.Kind{subject.NullKey, subject.OneKey, subject.WholeTopic, subject.KeyPrefix}).Draw(t, "kind")}
		if s.Kind == subject.OneKey || s.Kind == subject.KeyPrefix {
			s.Key = []byte(strings.Join(rapid.SliceOfN(rapid.SampledFrom(atoms), 1, 3).Draw(t, "key"), "/"))
		}
		if s.Kind == subject.KeyPrefix {
			if s.Key = append(s.Key, '/'); strings.Count(string(s.Key), "/") > 2 {
				s.Key = []byte("x/")
			}
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(right, 0, 5).Draw(t, "rights")
		claims := map[string]any{"c": rapid.SampledFrom(values).Draw(t, "c"), "d": rapid.SampledFrom(values).Draw(t, "d")}
		r, err := NewRights(texts, nil, claims)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(append(slices.Clone(texts), texts...)).Draw(t, "order")
		again, _ := NewRights(shuffled, nil, claims)
		twin := newNaive(texts, claims)
		for range 8 {
			s := asked.Draw(t, "asked")
			if len(texts) > 0 && rapid.Bool().Draw(t, "near") {
				// What a right would allow if its claims were text.
				text := rapid.SampledFrom(texts).Draw(t, "right")
				text = strings.NewReplacer("${c}", claims["c"].(string), "${d}", claims["d"].(string)).Replace(text)
				if near, err := subject.Parse(text); err == nil && strings.Count(text, "/") <= 4 && slices.ContainsFunc(world, near.Matches) {
					s = near
				}
			}
			got, want := r.MaySubscribe(s), twin.allows(s, world)
			if got != want {
				t.Fatalf("rights %q with %q, asked for %q: %v, the twin says %v", texts, claims, s, got, want)
			}
			if again.MaySubscribe(s) != got {
				t.Fatalf("rights %q, asked for %q: another order changes the answer", texts, s)
			}
		}
	})
}

// Whatever a claim holds, it gives nothing outside the segment in which it stands.
func FuzzRights(f *testing.F) {
	for _, v := range values {
		f.Add("/t/${c}/*", v, "x/secret")
		f.Add("/t/a-${c}", v, "a-x")
		f.Add("/t/${c}/*", v, v+"/z")
	}
	f.Add("/t/${c}${c}/b/*", "*", "*/b/c")
	f.Fuzz(func(t *testing.T, right, value, key string) {
		r, err := NewRights([]string{right}, nil, map[string]any{"c": value})
		if err != nil {
			return
		}
		s := subject.Subject{Kind: subject.OneKey, Topic: "t", Key: []byte(key)}
		if !strings.Contains(right, "${") {
			want, err := subject.Parse(right)
			if allowed := r.MaySubscribe(s); allowed != (err == nil && want.Covers(s) && !strings.ContainsRune(right, utf8.RuneError)) {
				t.Fatalf("%q, asked for key %q: %v", right, key, allowed)
			}
			return
		}
		if whole := (subject.Subject{Kind: subject.WholeTopic, Topic: "t"}); r.MaySubscribe(whole) {
			t.Fatalf("%q with %q gives the whole topic", right, value)
		}
		if !r.MaySubscribe(s) {
			return
		}
		// The key must have as many segments as the right has, or more in front of /*.
		want := strings.Split(strings.TrimPrefix(right, "/t/"), "/")
		have := strings.Split(key, "/")
		if want[len(want)-1] == "*" {
			want = want[:len(want)-1]
			if len(have) <= len(want) {
				t.Fatalf("%q with %q gives %q", right, value, key)
			}
			have = have[:len(want)]
		}
		if len(have) != len(want) {
			t.Fatalf("%q with %q gives %q", right, value, key)
		}
		for i, seg := range want {
			if !strings.ContainsAny(seg, "$%") && seg != have[i] {
				t.Fatalf("%q with %q gives %q", right, value, key)
			}
			if seg == "${c}" && have[i] != value {
				t.Fatalf("%q with %q gives %q", right, value, key)
			}
		}
	})
}
