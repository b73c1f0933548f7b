package subject

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

func TestSubjectsAndKeys(t *testing.T) {
	for _, c := range []struct {
		text string
		kind Kind
		key  string
	}{
		{"/orders", NullKey, ""},
		{"/orders/", OneKey, ""},
		{"/orders/42", OneKey, "42"},
		{"/vehicles/1/speed", OneKey, "1/speed"},
		{"/orders/*", WholeTopic, ""},
		{"/orders/a/*", KeyPrefix, "a/"},
		{"/orders//*", KeyPrefix, "/"},
		{"/orders/%2A", OneKey, "*"},
		{"/orders/%2A/*", KeyPrefix, "*/"},
		{"/orders/%2A/b", OneKey, "*/b"},
		{"/orders/a*", OneKey, "a*"},
		{"/orders/**", OneKey, "**"},
		{"/orders/%25", OneKey, "%"},
		{"/orders/%FF%00", OneKey, "\xff\x00"},
		{"/orders/%C2%80", OneKey, "\u0080"},
		{"/orders/\ufffd ü", OneKey, "\ufffd ü"},
	} {
		s, err := Parse(c.text)
		if err != nil || s.Kind != c.kind || string(s.Key) != c.key || s.String() != c.text {
			t.Errorf("%q: %+v, %v, back %q", c.text, s, err, s.String())
		}
		if s.Kind == OneKey && s.Key == nil {
			t.Errorf("%q: an empty key is not the null key", c.text)
		}
	}
	for _, text := range []string{
		"", "orders", "/", "//a", "/./a", "/../a", "/or ders", "/ö/a", "/%6F/a",
		"/o/%", "/o/%2", "/o/%2a", "/o/%61", "/o/%zz", "/o/\x01", "/o/\xff", "/o/*/b", "/o/a%", "/o/\u0080",
		"/" + string(bytes.Repeat([]byte("a"), 250)), "/o/" + string(bytes.Repeat([]byte("a"), 70000)),
	} {
		if s, err := Parse(text); err == nil {
			t.Errorf("%q was taken for %+v", text, s)
		} else if err.Error() == "" {
			t.Errorf("%q: no reason", text)
		}
	}
}

func TestSubjectMatches(t *testing.T) {
	for _, c := range []struct {
		subject string
		key     []byte
		want    bool
	}{
		{"/t", nil, true}, {"/t", []byte{}, false}, {"/t/", []byte{}, true}, {"/t/", nil, false},
		{"/t/a", []byte("a"), true}, {"/t/a", []byte("b"), false}, {"/t/*", nil, true}, {"/t/*", []byte("x"), true},
		{"/t/a/*", []byte("a/"), true}, {"/t/a/*", []byte("a/b/c"), true}, {"/t/a/*", []byte("a"), false}, {"/t/a/*", nil, false},
	} {
		s, err := Parse(c.subject)
		if err != nil || s.Matches(c.key) != c.want {
			t.Errorf("%s matches %q: %v, %v", c.subject, c.key, !c.want, err)
		}
	}
}

// Every key has one text, every text one key, and no two kinds of subject share a text.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"/orders/42", "/a/*", "/a/b/*", "/a", "/a/", "/a/%2A/%FF", "\xff*/%", "*/*", "a/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := Parse(text); err == nil {
			if s.String() != text {
				t.Fatalf("%q became %q", text, s.String())
			}
			if !utf8.ValidString(text) {
				t.Fatalf("%q is not UTF-8", text)
			}
		}
		if len(text) > 10000 {
			return
		}
		for _, s := range []Subject{{OneKey, "t", []byte(text)}, {KeyPrefix, "t", []byte(text + "/")}} {
			back, err := Parse(s.String())
			if err != nil || back.Kind != s.Kind || !bytes.Equal(back.Key, s.Key) {
				t.Fatalf("key %q: %q came back as %+v, %v", s.Key, s.String(), back, err)
			}
		}
	})
}
