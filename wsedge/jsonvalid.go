package wsedge

import (
	"encoding/binary"
	"math/bits"
)

// Every value that comes from Kafka and every op of a client is asked whether it is JSON. encoding/json, which goes by a
// function call a byte, took 41% of a node's time where nothing else was to do with a record, and most of what a
// client's megabyte costs. validJSON says the same (a fuzz test holds it against encoding/json), eight bytes
// of a string at a time.

const (
	// maxNesting is how deep values may be nested, as for encoding/json.
	maxNesting = 10_000
	// smallNesting is how deep they may be before more than 32 bytes are needed to remember it.
	smallNesting = 256
)

// validJSON says what json.Valid says: whether b is one JSON value (RFC 8259, section 2), nested at most 10,000 deep.
// Strings may hold bytes that are not UTF-8. It does not recurse.
func validJSON(b []byte) bool {
	var small [smallNesting / 64]uint64
	objects := small[:] // a bit for each level: an object, or else an array
	depth, i := 0, 0
	for {
		// A value.
		if i = skipSpace(b, i); i == len(b) {
			return false
		}
		ok := true
		switch c := b[i]; {
		case c == '"':
			i, ok = validString(b, i)
		case c == '{' || c == '[':
			if depth == maxNesting {
				return false
			}
			if depth == 64*len(objects) {
				objects = append(objects, make([]uint64, (maxNesting-smallNesting+63)/64)...)
			}
			word, bit := &objects[depth/64], uint64(1)<<(depth%64)
			depth++
			closing := byte(']')
			if *word &^= bit; c == '{' {
				*word |= bit
				closing = '}'
			}
			if i = skipSpace(b, i+1); i == len(b) {
				return false
			}
			if b[i] == closing {
				break // as if a value had ended
			}
			if c == '{' {
				if i, ok = validName(b, i); !ok {
					return false
				}
			}
			continue
		case c == '-' || '0' <= c && c <= '9':
			i, ok = validNumber(b, i)
		case c == 't':
			i, ok = validWord(b, i, "true")
		case c == 'f':
			i, ok = validWord(b, i, "false")
		case c == 'n':
			i, ok = validWord(b, i, "null")
		default:
			return false
		}
		if !ok {
			return false
		}
		// What follows a value: the ends of those around it, then the next one.
		for {
			i = skipSpace(b, i)
			if depth == 0 {
				return i == len(b)
			}
			if i == len(b) {
				return false
			}
			object := objects[(depth-1)/64]>>((depth-1)%64)&1 != 0
			c := b[i]
			i++
			if c == ',' {
				if object {
					if i, ok = validName(b, skipSpace(b, i)); !ok {
						return false
					}
				}
				break
			}
			if object && c != '}' || !object && c != ']' {
				return false
			}
			depth--
		}
	}
}

// validName returns the index after the name that begins at b[i] and its colon.
func validName(b []byte, i int) (end int, ok bool) {
	if i == len(b) || b[i] != '"' {
		return i, false
	}
	if i, ok = validString(b, i); !ok {
		return i, false
	}
	if i = skipSpace(b, i); i == len(b) || b[i] != ':' {
		return i, false
	}
	return i + 1, true
}

// validString returns the index after the string that begins at b[i].
func validString(b []byte, i int) (end int, ok bool) {
	for i = endOfPlain(b, i+1); i < len(b); i = endOfPlain(b, i) {
		switch b[i] {
		case '"':
			return i + 1, true
		case '\\':
			if i++; i == len(b) {
				return i, false
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i++
			case 'u':
				if len(b)-i < 5 {
					return i, false
				}
				for _, c := range b[i+1 : i+5] {
					if lower := c | 0x20; (c < '0' || c > '9') && (lower < 'a' || lower > 'f') {
						return i, false
					}
				}
				i += 5
			default:
				return i, false
			}
		default: // a control character
			return i, false
		}
	}
	return i, false
}

// validNumber returns the index after the number that begins at b[i].
func validNumber(b []byte, i int) (end int, ok bool) {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' { // nothing but a fraction or an exponent may follow
		i++
	} else if i, ok = digits(b, i); !ok {
		return i, false
	}
	if i < len(b) && b[i] == '.' {
		if i, ok = digits(b, i+1); !ok {
			return i, false
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i, ok = digits(b, i); !ok {
			return i, false
		}
	}
	return i, true
}

// digits returns the index after the digits that begin at b[i]; ok: there is one.
func digits(b []byte, i int) (end int, ok bool) {
	from := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	return i, i > from
}

func validWord(b []byte, i int, word string) (end int, ok bool) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, false
	}
	return i + len(word), true
}

// endOfPlain returns the index of the first byte from b[i] on that is a quote, a backslash or a control character, or
// len(b).
func endOfPlain(b []byte, i int) int {
	const (
		ones = 0x0101010101010101
		tops = 0x8080808080808080
	)
	for ; i+8 <= len(b); i += 8 {
		// The top bit of a byte that is to be found, and perhaps of ones after it: a subtraction borrows from what follows.
		w := binary.LittleEndian.Uint64(b[i:])
		quote, backslash := w^ones*'"', w^ones*'\\'
		found := ((quote-ones)&^quote | (backslash-ones)&^backslash | (w-ones*0x20)&^w) & tops
		if found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < 0x20 {
			break
		}
	}
	return i
}
