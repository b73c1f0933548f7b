package wsedge

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// This file reads and writes the JSON of ops without reflection. Reading relies on a text having been
// found valid (and not nested too deep) by validJSON first; after that, where a value ends is a
// matter of counting brackets. Nothing here recurses, and everything is linear in its input.

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func skipSpace(b []byte, i int) int {
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	return i
}

// endOfBrackets returns the index after the object or array that begins at b[i], or false when it does
// not end in b. It does not check anything but strings and the number of brackets.
func endOfBrackets(b []byte, i int) (int, bool) {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1, true
			}
		case '"':
			end, ok := endOfString(b, i)
			if !ok {
				return 0, false
			}
			i = end
			continue
		}
		i++
	}
	return 0, false
}

// endOfString returns the index after the string that begins at b[i].
func endOfString(b []byte, i int) (int, bool) {
	for i = endOfPlain(b, i+1); i < len(b); i = endOfPlain(b, i) {
		switch b[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
		}
		i++
	}
	return 0, false
}

// endOfValue returns the index after the value that begins at b[i], in a text that is valid.
func endOfValue(b []byte, i int) int {
	switch b[i] {
	case '{', '[':
		end, _ := endOfBrackets(b, i)
		return end
	case '"':
		end, _ := endOfString(b, i)
		return end
	}
	for i < len(b) && !isSpace(b[i]) && b[i] != ',' && b[i] != '}' && b[i] != ']' {
		i++
	}
	return i
}

// eachField calls f with the text of each name (with its quotes) and value of a valid object, until f
// returns an error.
func eachField(obj []byte, f func(name, value []byte) error) error {
	i := skipSpace(obj, 1)
	for obj[i] != '}' {
		end, _ := endOfString(obj, i)
		name := obj[i:end]
		i = skipSpace(obj, end)
		i = skipSpace(obj, i+1) // the colon
		end = endOfValue(obj, i)
		if err := f(name, obj[i:end]); err != nil {
			return err
		}
		if i = skipSpace(obj, end); obj[i] == ',' {
			i = skipSpace(obj, i+1)
		}
	}
	return nil
}

// eachElement calls f with the text of each element of a valid array, until f returns an error.
func eachElement(arr []byte, f func(value []byte) error) error {
	i := skipSpace(arr, 1)
	for arr[i] != ']' {
		end := endOfValue(arr, i)
		if err := f(arr[i:end]); err != nil {
			return err
		}
		if i = skipSpace(arr, end); arr[i] == ',' {
			i = skipSpace(arr, i+1)
		}
	}
	return nil
}

// unquote returns the string that a valid JSON string stands for. ok is false when it holds half of a
// surrogate pair, which stands for no character: encoding/json would put U+FFFD there and so make one
// subject, or value, of two.
func unquote(text []byte) (s string, ok bool) {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text[1 : len(text)-1]), true
	}
	for i := 1; i < len(text)-1; i++ {
		if text[i] != '\\' {
			continue
		}
		if i++; text[i] != 'u' {
			continue
		}
		switch u := hex4(text[i+1:]); {
		case u >= 0xdc00 && u < 0xe000:
			return "", false
		case u >= 0xd800 && u < 0xdc00:
			if len(text) < i+11 || text[i+5] != '\\' || text[i+6] != 'u' {
				return "", false
			}
			if low := hex4(text[i+7:]); low < 0xdc00 || low >= 0xe000 {
				return "", false
			}
			i += 6
		}
		i += 4
	}
	return s, json.Unmarshal(text, &s) == nil
}

func hex4(b []byte) (u int) {
	for _, c := range b[:4] {
		u <<= 4
		switch {
		case c <= '9':
			u |= int(c - '0')
		default:
			u |= int(c|0x20-'a') + 10
		}
	}
	return u
}

// number reads a non-negative integer of plain digits up to limit.
func number(text []byte, limit uint64) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	for _, c := range text {
		d := uint64(c - '0')
		if c < '0' || c > '9' || n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// appendQuoted appends s as a JSON string. s is valid UTF-8, or what is not becomes U+FFFD.
func appendQuoted[T ~string | ~[]byte](dst []byte, s T) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, s[from:i]...)
			dst = append(dst, "\ufffd"...)
			from = i + 1
		}
		i += n
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
