package bench

import (
	"bytes"
	"errors"
)

// A record's value is JSON of a fixed layout, so that the load can find what it needs without parsing:
//
//	{"t":1700000000000000000,"n":"0000000042","p":"xxxx…"}
//
// t is when it was made, in unix nanoseconds; n counts the records of its key from zero. Both have a fixed
// number of digits: t until the year 2286.
const (
	stampMark   = `{"t":`
	stampDigits = 19
	countMark   = `,"n":"`
	countDigits = 10
	// stampLen is what follows stampMark up to the end of n.
	stampLen = stampDigits + len(countMark) + countDigits
	// MinSize is the size of the shortest value.
	MinSize = len(stampMark) + stampLen + len(`","p":""}`)
)

var stampBytes = []byte(stampMark)

var errValue = errors.New("a record that this program did not write")

// appendValue appends a value of size bytes, MinSize at least.
func appendValue(dst []byte, t int64, n uint64, size int) []byte {
	dst = append(dst, stampMark...)
	dst = appendDigits(dst, uint64(t), stampDigits)
	dst = append(dst, countMark...)
	dst = appendDigits(dst, n, countDigits)
	dst = append(dst, `","p":"`...)
	for range size - MinSize {
		dst = append(dst, 'x')
	}
	return append(dst, `"}`...)
}

// setStamp overwrites t and n of a value, or of a frame that holds one.
func setStamp(b []byte, at int, t int64, n uint64) {
	putDigits(b[at+len(stampMark):], uint64(t), stampDigits)
	putDigits(b[at+len(stampMark)+stampDigits+len(countMark):], n, countDigits)
}

func appendDigits(dst []byte, v uint64, digits int) []byte {
	dst = append(dst, "0000000000000000000"[:digits]...)
	putDigits(dst[len(dst)-digits:], v, digits)
	return dst
}

func putDigits(b []byte, v uint64, digits int) {
	for i := digits - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}

// nextStamp finds the first value in b and returns its stamp and what follows; found is false if there is none.
func nextStamp(b []byte) (t int64, n uint64, rest []byte, found bool, err error) {
	i := bytes.Index(b, stampBytes)
	if i < 0 {
		return 0, 0, nil, false, nil
	}
	b = b[i+len(stampMark):]
	if len(b) < stampLen {
		return 0, 0, nil, false, errValue
	}
	v, ok1 := digits(b[:stampDigits])
	n, ok2 := digits(b[stampDigits+len(countMark) : stampLen])
	if !ok1 || !ok2 || string(b[stampDigits:stampDigits+len(countMark)]) != countMark {
		return 0, 0, nil, false, errValue
	}
	return int64(v), n, b[stampLen:], true, nil
}

func digits(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		v = v*10 + uint64(c)
	}
	return v, true
}
