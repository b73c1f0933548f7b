// Package subject is the grammar of what clients name: subjects, patterns and the text of keys. It knows nothing
// of topics that exist, and has no state.
package subject

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A subject names what a client subscribes or publishes to: `/topic` for the records with a null key,
// `/topic/key` for those with a key. A pattern, whose last segment is `*`, names many. A key is bytes;
// in a subject it stands as UTF-8 in which what cannot stand there, or would be read as something else,
// is written %XX with capital digits: bytes that are not valid UTF-8, control characters (Unicode's
// category Cc), `%` itself, and the segment that is exactly `*`. Nothing else may be escaped, so every
// key has one text and every text one key.
type Subject struct {
	Kind  Kind
	Topic string
	// Key is the key of a OneKey (never nil, possibly empty) and the prefix, with its slash, of a
	// KeyPrefix. Nil otherwise.
	Key []byte
}

// Kind tells subjects and patterns apart.
type Kind uint8

const (
	NullKey    Kind = iota // `/topic`: the records with a null key
	OneKey                 // `/topic/key`; `/topic/` is the empty key
	WholeTopic             // `/topic/*`: every record
	KeyPrefix              // `/topic/a/*`: every key that starts with `a/`
)

// IsPattern says whether the subject stands for many.
func (s Subject) IsPattern() bool { return s.Kind == WholeTopic || s.Kind == KeyPrefix }

// Covers says whether every record that belongs to o belongs to s as well. Two subjects together may cover a
// third that neither does alone; that is not looked for.
func (s Subject) Covers(o Subject) bool {
	if s.Topic != o.Topic {
		return false
	}
	switch s.Kind {
	case WholeTopic:
		return true
	case NullKey:
		return o.Kind == NullKey
	case OneKey:
		return o.Kind == OneKey && bytes.Equal(s.Key, o.Key)
	default:
		return (o.Kind == OneKey || o.Kind == KeyPrefix) && bytes.HasPrefix(o.Key, s.Key)
	}
}

// Matches says whether a record of the subject's topic belongs to it; a nil key is the null key.
func (s Subject) Matches(key []byte) bool {
	switch s.Kind {
	case NullKey:
		return key == nil
	case OneKey:
		return key != nil && bytes.Equal(key, s.Key)
	case WholeTopic:
		return true
	default:
		return key != nil && bytes.HasPrefix(key, s.Key)
	}
}

// String is the subject's text, which Parse takes back.
func (s Subject) String() string {
	switch s.Kind {
	case NullKey:
		return "/" + s.Topic
	case WholeTopic:
		return "/" + s.Topic + "/*"
	case KeyPrefix:
		return string(append(AppendKey([]byte("/"+s.Topic+"/"), s.Key), '*'))
	default:
		return string(AppendKey([]byte("/"+s.Topic+"/"), s.Key))
	}
}

// maxTopicLen is Kafka's limit on the name of a topic.
const maxTopicLen = 249

// maxKeyText bounds the text of a key, so that a subject is repeated in answers without harm.
const maxKeyText = 64 << 10

// Parse reads a subject or pattern. The error says what would be right.
func Parse(text string) (Subject, error) {
	if len(text) == 0 || text[0] != '/' {
		return Subject{}, errors.New("a subject is /topic or /topic/key: it begins with a slash")
	}
	topic, rest, keyed := strings.Cut(text[1:], "/")
	if !validTopic(topic) {
		return Subject{}, errors.New("a topic is 1 to 249 of the characters a-z A-Z 0-9 . _ - (neither . nor .. is one)")
	}
	if !keyed {
		return Subject{Kind: NullKey, Topic: topic}, nil
	}
	if rest == "*" {
		return Subject{Kind: WholeTopic, Topic: topic}, nil
	}
	if len(rest) > maxKeyText {
		return Subject{}, errors.New("the key of a subject is at most 65536 bytes long")
	}
	kind := OneKey
	if strings.HasSuffix(rest, "/*") {
		kind, rest = KeyPrefix, rest[:len(rest)-1]
	}
	key, err := parseKeyText(rest)
	if err != nil {
		return Subject{}, err
	}
	return Subject{Kind: kind, Topic: topic, Key: key}, nil
}

func validTopic(name string) bool {
	if len(name) == 0 || len(name) > maxTopicLen || name == "." || name == ".." {
		return false
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// parseKeyText turns the text of a key back into its bytes. Rather than a rule for each way to write
// the same key twice, it writes the bytes again and compares: the text of a key is what AppendKey
// makes of it, and nothing else.
func parseKeyText(text string) ([]byte, error) {
	key := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			key = append(key, text[i])
			continue
		}
		if i+2 >= len(text) {
			return nil, errors.New("a % in a key is written %25; it stands before two digits 0-9 A-F")
		}
		hi, lo := unhex(text[i+1]), unhex(text[i+2])
		if hi < 0 || lo < 0 {
			return nil, errors.New("a % in a key is written %25; it stands before two digits 0-9 A-F")
		}
		key = append(key, byte(hi<<4|lo))
		i += 2
	}
	if canonical := AppendKey(make([]byte, 0, len(text)), key); string(canonical) != text {
		if len(canonical) > 200 {
			return nil, errors.New("the key is not in its one form: only bytes that are not UTF-8, control characters, % and a segment that is exactly * are written %XX, and these must be")
		}
		return nil, errors.New("the key is not in its one form, which is " + string(canonical) +
			" (a * of its own is a pattern in the last segment, and %2A in a key)")
	}
	return key, nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// AppendKey appends the one text of a key.
func AppendKey(dst, key []byte) []byte {
	for i := 0; i < len(key); {
		c := key[i]
		switch {
		case c == '*' && (i == 0 || key[i-1] == '/') && (i+1 == len(key) || key[i+1] == '/'):
			dst, i = append(dst, '%', '2', 'A'), i+1
		case c == '%' || c < 0x20 || c == 0x7f:
			dst, i = appendEscaped(dst, c), i+1
		case c < utf8.RuneSelf:
			dst, i = append(dst, c), i+1
		default:
			r, n := utf8.DecodeRune(key[i:])
			if r == utf8.RuneError && n == 1 || unicode.IsControl(r) {
				for _, b := range key[i : i+n] {
					dst = appendEscaped(dst, b)
				}
			} else {
				dst = append(dst, key[i:i+n]...)
			}
			i += n
		}
	}
	return dst
}

func appendEscaped(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}
