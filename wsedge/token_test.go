package wsedge

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/bridge"
)

// tokenOf writes a token of subjects in an order, as a connection does.
func tokenOf(hashes []uint64, vectors []Vector) string {
	dst := []byte{tokenVersion}
	for i, h := range hashes {
		dst = appendTokenSubject(dst, h)
		for _, p := range vectors[i] {
			dst = appendTokenPosition(dst, p.Partition, p.Position)
		}
	}
	return string(endToken(dst, 0))
}

func pp(partition int32, epoch bridge.Epoch, seqno bridge.Seqno) PartitionPosition {
	return PartitionPosition{partition, bridge.Position{Epoch: epoch, Seqno: seqno}}
}

// What is put into a token comes out of it, and it is short.
func TestTokenRoundTrip(t *testing.T) {
	for _, v := range []Vector{
		{}, {pp(0, 0, 0)}, {pp(0, 1, 1)}, {pp(31, 31, 31), pp(32, 32, 32)}, {pp(math.MaxInt32, maxSeqno, maxSeqno)},
		{pp(3, 7, 1234567), pp(4, 1<<33, 1<<40), pp(1023, 1, 0)},
	} {
		a, b := subjectHash("/orders/42"), subjectHash("/orders/43")
		text := tokenOf([]uint64{a, b}, []Vector{v, {pp(1, 2, 3)}})
		got, err := parseToken(text)
		if err != nil || len(got) != 2 || fmt.Sprint(got[a]) != fmt.Sprint(v) || fmt.Sprint(got[b]) != fmt.Sprint(Vector{pp(1, 2, 3)}) {
			t.Errorf("%v became %q and %v, %v", v, text, got, err)
		}
		if strings.Trim(text, tokenDigits+".") != "" {
			t.Errorf("%q has to be escaped somewhere", text)
		}
	}
	if n := len(tokenOf([]uint64{1}, []Vector{{pp(3, 7, 1234567)}})); n > 24 {
		t.Errorf("one position of one subject takes %d characters", n)
	}
	longest := Vector{}
	for i := range maxStreamPositions {
		longest = append(longest, pp(math.MaxInt32-int32(i), maxSeqno, maxSeqno))
	}
	hashes, vectors := []uint64{0}, []Vector{longest}
	for i := 1; i < maxStreamSubjects; i++ {
		hashes, vectors = append(hashes, uint64(i)), append(vectors, Vector{})
	}
	if text := tokenOf(hashes, vectors); len(text) > maxToken {
		t.Errorf("the longest token has %d characters", len(text))
	} else if _, err := parseToken(text); err != nil {
		t.Errorf("the longest token is refused: %v", err)
	}
}

// Tokens come back from strangers: what is cut short, altered or made up is refused, or is in the one form
// and within the limits.
func TestHostileTokens(t *testing.T) {
	good := tokenOf([]uint64{5, 6}, []Vector{{pp(0, 1, 77), pp(3, 1, 4)}, {pp(0, 9, 1<<35)}})
	for i := range len(good) {
		if _, err := parseToken(good[:i]); err == nil {
			t.Errorf("%q, cut to %q, is taken", good, good[:i])
		}
		for _, c := range []byte("A_.-%\x00\n\xff1") {
			if bad := good[:i] + string([]byte{c}) + good[i+1:]; bad != good {
				if _, err := parseToken(bad); err == nil {
					t.Errorf("%q, altered to %q, is taken", good, bad)
				}
			}
		}
	}
	whole := func(body string) string { return string(endToken([]byte(body), 0)) }
	for _, bad := range []string{
		"", "1", whole(""), whole("2"), whole("1."), whole("1.AAAAAAA"), whole("1AAAAAAAA"), whole("1.AAAAAAAA.AAAAAAAA"),
		whole("1.AAAAAAAAA"), whole("1.AAAAAAAAAA"), whole("1.AAAAAAAAAAAA"), // less or more than a position
		whole("1.AAAAAAAAAABAAC"),                              // a partition twice
		whole("1.AAAAAAAA" + "gA" + "AA"),                      // a number in a longer form
		whole("1.AAAAAAAA" + "A" + "A" + "_____________P"),     // beyond 64 bits
		whole("1.AAAAAAAA" + "A" + "A" + "____________I"),      // beyond 63 bits
		whole("1.AAAAAAAA" + "gggggggB" + "AA"),                // a partition beyond 31 bits
		whole("1.AAAAAAAA" + "g"), whole("1.AAAAAAAA" + "%AA"), // no end, no digit
		whole("1" + strings.Repeat(".AAAAAAAA", 2)), whole("1.AAAAAAAA" + strings.Repeat("AAA", 2)),
		whole("1" + strings.Repeat(".AAAAAAAA", 4000)),
		whole("1" + strings.Repeat("x", maxToken)),
	} {
		if got, err := parseToken(bad); err == nil {
			t.Errorf("%.60q is taken for %v", bad, got)
		}
	}
	many := []byte("1.AAAAAAAA")
	for i := range maxStreamPositions + 1 {
		many = appendTokenPosition(many, int32(i), bridge.Position{})
	}
	if _, err := parseToken(whole(string(many))); err == nil {
		t.Error("more positions than a connection may have are taken")
	}
}

func FuzzToken(f *testing.F) {
	f.Add("1")
	f.Add("1.AAAAAAAAAAB")
	for range 20 {
		v := Vector{}
		for p := range rand.Int32N(5) {
			v = append(v, pp(p, bridge.Epoch(rand.Uint64()>>rand.IntN(64)>>1), bridge.Seqno(rand.Uint64()>>rand.IntN(64)>>1)))
		}
		text := tokenOf([]uint64{rand.Uint64() >> 16}, []Vector{v})
		f.Add(text[:len(text)-checkChars])
	}
	// The check is put right here: a fuzzer would never get past it.
	f.Fuzz(func(t *testing.T, body string) {
		text := string(endToken([]byte(body), 0))
		token, err := parseToken(text)
		if err != nil {
			return
		}
		n := 0
		hashes, vectors := []uint64{}, []Vector{}
		for h, v := range token {
			for i, p := range v {
				if n++; p.Partition < 0 || p.Epoch > maxSeqno || p.Seqno > maxSeqno || i > 0 && v[i-1].Partition >= p.Partition {
					t.Fatalf("%q has %v", text, v)
				}
			}
			hashes, vectors = append(hashes, h), append(vectors, v)
		}
		if n > maxStreamPositions || len(token) > maxStreamSubjects {
			t.Fatalf("%d positions of %d subjects", n, len(token))
		}
		if again := tokenOf(hashes, vectors); len(again) != len(text) {
			t.Fatalf("%q has another form, %q", text, again)
		}
	})
}
