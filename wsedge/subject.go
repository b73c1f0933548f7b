package wsedge

import (
	"bytes"
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
	Kind  SubjectKind
	Topic string
	// Key is the key of a KeySubject (never nil, possibly empty) and the prefix, with its slash, of
	// a PrefixPattern. Nil otherwise.
	Key []byte
}

// SubjectKind tells subjects and patterns apart.
type SubjectKind uint8

const (
	NullSubject   SubjectKind = iota // `/topic`: the records with a null key
	KeySubject                       // `/topic/key`; `/topic/` is the empty key
	TopicPattern                     // `/topic/*`: every record
	PrefixPattern                    // `/topic/a/*`: every key that starts with `a/`
)

// IsPattern says whether the subject stands for many.
func (s Subject) IsPattern() bool { return s.Kind == TopicPattern || s.Kind == PrefixPattern }

// Matches says whether a record of the subject's topic belongs to it; a nil key is the null key.
func (s Subject) Matches(key []byte) bool {
	switch s.Kind {
	case NullSubject:
		return key == nil
	case KeySubject:
		return key != nil && bytes.Equal(key, s.Key)
	case TopicPattern:
		return true
	default:
		return key != nil && bytes.HasPrefix(key, s.Key)
	}
}

// String is the subject's text, which ParseSubject takes back.
func (s Subject) String() string {
	switch s.Kind {
	case NullSubject:
		return "/" + s.Topic
	case TopicPattern:
		return "/" + s.Topic + "/*"
	case PrefixPattern:
		return string(append(appendKeyText([]byte("/"+s.Topic+"/"), s.Key), '*'))
	default:
		return string(appendKeyText([]byte("/"+s.Topic+"/"), s.Key))
	}
}

// maxTopicLen is Kafka's limit on the name of a topic.
const maxTopicLen = 249

// maxKeyText bounds the text of a key, so that a subject is repeated in answers without harm.
const maxKeyText = 64 << 10

// ParseSubject reads a subject or pattern. The error is an *OpError with code bad_subject that says what
// would be right.
func ParseSubject(text string) (Subject, error) {
	if len(text) == 0 || text[0] != '/' {
		return Subject{}, badSubject("a subject is /topic or /topic/key: it begins with a slash")
	}
	topic, rest, keyed := strings.Cut(text[1:], "/")
	if !validTopic(topic) {
		return Subject{}, badSubject("a topic is 1 to 249 of the characters a-z A-Z 0-9 . _ -, and not . or ..")
	}
	if !keyed {
		return Subject{Kind: NullSubject, Topic: topic}, nil
	}
	if rest == "*" {
		return Subject{Kind: TopicPattern, Topic: topic}, nil
	}
	if len(rest) > maxKeyText {
		return Subject{}, badSubject("the key of a subject is at most 65536 bytes long")
	}
	kind := KeySubject
	if strings.HasSuffix(rest, "/*") {
		kind, rest = PrefixPattern, rest[:len(rest)-1]
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
// the same key twice, it writes the bytes again and compares: the text of a key is what appendKeyText
// makes of it, and nothing else.
func parseKeyText(text string) ([]byte, error) {
	key := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			key = append(key, text[i])
			continue
		}
		if i+2 >= len(text) {
			return nil, badSubject("a % in a key is written %25; it stands before two digits 0-9 A-F")
		}
		hi, lo := unhex(text[i+1]), unhex(text[i+2])
		if hi < 0 || lo < 0 {
			return nil, badSubject("a % in a key is written %25; it stands before two digits 0-9 A-F")
		}
		key = append(key, byte(hi<<4|lo))
		i += 2
	}
	if canonical := appendKeyText(make([]byte, 0, len(text)), key); string(canonical) != text {
		if len(canonical) > 200 {
			return nil, badSubject("the key is not in its one form: only bytes that are not UTF-8, control characters, % and a segment that is exactly * are written %XX, and these must be")
		}
		return nil, badSubject("the key is not in its one form, which is " + string(canonical) +
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

// appendKeyText appends the one text of a key.
func appendKeyText(dst, key []byte) []byte {
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
