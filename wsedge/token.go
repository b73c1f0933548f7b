package wsedge

import (
	"hash/crc32"
	"hash/fnv"
	"math"
	"strings"

	"github.com/tidewire/tidewire/bridge"
)

// A resume token is the vectors of all subscriptions of an SSE connection in one word, which comes back in
// Last-Event-ID or ?resume=:
//
//	token   = "1" { "." subject { partition epoch seqno } } check
//	subject = 8 characters: 48 bits of the FNV-1a hash of the subject's text
//	check   = 6 characters: the CRC-32C of everything before them
//
// The alphabet is base64url's, which needs no escaping in a URL or a header. Numbers have five bits a
// character, the lowest first, and the sixth says that another follows; there is one way to write each. So
// most positions take eight to twelve characters, and a token is put together without a second pass.
//
// The check is there for accidents: a token that was cut short reads like one of fewer partitions, and
// records would be lost or repeated in silence. It keeps nobody from making tokens up, nor need it: what
// a token says is trusted no more than the vector of a `sub`.
const (
	tokenVersion = '1'
	tokenDigits  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	hashChars    = 8
	checkChars   = 6

	// maxStreamPositions bounds the positions, and maxStreamSubjects the subjects, of an SSE connection.
	// Both are for the token's sake, which has to pass through the headers of a request.
	maxStreamPositions = 256
	maxStreamSubjects  = 64
	// maxToken is more than a token of so many positions, each of the longest, has.
	maxToken = 10 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// tokenDigit gives the value of each character of the alphabet, plus one; 0: no digit.
var tokenDigit = func() (t [256]byte) {
	for i := range len(tokenDigits) {
		t[tokenDigits[i]] = byte(i + 1)
	}
	return t
}()

// subjectHash is what stands in a token for a subject.
func subjectHash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return h.Sum64() >> 16
}

func appendChars(dst []byte, v uint64, n int) []byte {
	for range n {
		dst = append(dst, tokenDigits[v&63])
		v >>= 6
	}
	return dst
}

func appendTokenNumber(dst []byte, v uint64) []byte {
	for ; v > 31; v >>= 5 {
		dst = append(dst, tokenDigits[v&31|32])
	}
	return append(dst, tokenDigits[v])
}

func appendTokenSubject(dst []byte, hash uint64) []byte {
	return appendChars(append(dst, '.'), hash, hashChars)
}

func appendTokenPosition(dst []byte, partition int32, p bridge.Position) []byte {
	dst = appendTokenNumber(dst, uint64(partition))
	dst = appendTokenNumber(dst, uint64(p.Epoch))
	return appendTokenNumber(dst, uint64(p.Seqno))
}

// endToken appends the check of the token that begins at dst[at].
func endToken(dst []byte, at int) []byte {
	return appendChars(dst, uint64(crc32.Checksum(dst[at:], castagnoli)), checkChars)
}

// resumeToken is a token that was read.
type resumeToken map[uint64]Vector // by subjectHash

var errToken = badRequest("the resume token (Last-Event-ID or ?resume=) is none that Tidewire gave out, or a part of one: connect without it to begin anew")

// parseToken reads a token that a stranger sends.
func parseToken(text string) (resumeToken, error) {
	if len(text) < 1+checkChars || len(text) > maxToken || text[0] != tokenVersion {
		return nil, errToken
	}
	body, check := text[:len(text)-checkChars], text[len(text)-checkChars:]
	if check != string(appendChars(nil, uint64(crc32.Checksum([]byte(body), castagnoli)), checkChars)) {
		return nil, errToken
	}
	token := make(resumeToken)
	positions := 0
	for body = body[1:]; body != ""; {
		if len(body) < 1+hashChars || body[0] != '.' || len(token) == maxStreamSubjects {
			return nil, errToken
		}
		var hash uint64
		for i := hashChars; i > 0; i-- {
			d := tokenDigit[body[i]]
			if d == 0 {
				return nil, errToken
			}
			hash = hash<<6 | uint64(d-1)
		}
		if _, twice := token[hash]; twice {
			return nil, errToken
		}
		list := body[1+hashChars:]
		if i := strings.IndexByte(list, '.'); i >= 0 {
			list, body = list[:i], list[i:]
		} else {
			body = ""
		}
		vector := Vector{}
		for list != "" {
			if positions++; positions > maxStreamPositions {
				return nil, errToken
			}
			var n [3]uint64
			for i, limit := range [3]uint64{math.MaxInt32, maxSeqno, maxSeqno} {
				var ok bool
				if n[i], list, ok = tokenNumber(list, limit); !ok {
					return nil, errToken
				}
			}
			vector = append(vector, PartitionPosition{int32(n[0]), bridge.Position{Epoch: bridge.Epoch(n[1]), Seqno: bridge.Seqno(n[2])}})
		}
		sortVector(vector)
		for i := 1; i < len(vector); i++ {
			if vector[i].Partition == vector[i-1].Partition {
				return nil, errToken
			}
		}
		token[hash] = vector
	}
	return token, nil
}

// tokenNumber takes a number off the front of a text.
func tokenNumber(text string, limit uint64) (n uint64, rest string, ok bool) {
	for i := 0; i < len(text) && i < 13; i++ {
		d := uint64(tokenDigit[text[i]])
		if d == 0 {
			return 0, "", false
		}
		d--
		if i == 12 && d > 7 {
			return 0, "", false // beyond 63 bits
		}
		n |= d & 31 << (5 * i)
		if d < 32 {
			return n, text[i+1:], n <= limit && (d != 0 || i == 0)
		}
	}
	return 0, "", false
}
