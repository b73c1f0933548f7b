package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errShort is what every decoder here returns for input that ends too early or holds a length that
// cannot be.
var errShort = errors.New("truncated or malformed")

// A reader takes a byte slice apart. After the first failure it returns zero values and keeps err.
// Slices it returns share the input's memory: no length in the input is trusted for an allocation.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errShort
	}
	r.b = nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// bytes reads what appendBytes wrote: nil stays nil, empty stays empty.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	return r.take(n - 1)
}

func (r *reader) string() string { return string(r.take(r.uvarint())) }

// count reads a number of things of at least size bytes each that follow, checked against what is left.
func (r *reader) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) tp() TopicPartition {
	t := r.string()
	p := r.uvarint()
	if p > 1<<31-1 {
		r.fail()
	}
	return TopicPartition{Topic: t, Partition: int32(p)}
}

func (r *reader) topicID() (id TopicID) {
	copy(id[:], r.take(uint64(len(id))))
	return id
}

// int32 reads a non-negative number that fits.
func (r *reader) int32() int32 {
	v := r.uvarint()
	if v > 1<<31-1 {
		r.fail()
		return 0
	}
	return int32(v)
}

// offset reads a non-negative offset.
func (r *reader) offset() Offset {
	v := r.varint()
	if v < 0 {
		r.fail()
		return 0
	}
	return Offset(v)
}

// maxEpoch bounds the epochs that are believed, so that later ones still rise. It is what JavaScript can
// count to.
const maxEpoch = 1 << 53

func (r *reader) epochs() epochList {
	n := r.count(3)
	if n > maxEpochs {
		r.fail()
		return nil
	}
	var l epochList
	for range n {
		e := epochRange{Epoch: Epoch(r.uvarint()), First: r.offset()}
		size := r.offset()
		if e.First > 1<<61 || size > 1<<61 { // so that End stays an offset
			r.fail()
		}
		e.End = e.First + size
		if len(l) > 0 && e.Epoch <= l.last().Epoch || e.Epoch == 0 || e.Epoch > maxEpoch {
			r.fail()
		}
		if r.err != nil {
			return nil
		}
		l = append(l, e)
	}
	return l
}

// leader reads a leader epoch, or NoLeaderEpoch.
func (r *reader) leader() LeaderEpoch {
	v := r.varint()
	if v < int64(NoLeaderEpoch) || v > 1<<31-1 {
		r.fail()
		return NoLeaderEpoch
	}
	return LeaderEpoch(v)
}

func (r *reader) leaders() leaderList {
	n := r.count(2)
	if n > maxLeaders {
		r.fail()
		return nil
	}
	var l leaderList
	for range n {
		s := leaderStart{Leader: LeaderEpoch(r.int32()), First: r.offset()}
		if len(l) > 0 && (s.Leader <= l.last() || s.First <= l[len(l)-1].First) {
			r.fail()
		}
		if r.err != nil {
			return nil
		}
		l = append(l, s)
	}
	return l
}

// bool reads a byte that is 0 or 1.
func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail()
	}
	return v == 1
}

// done returns the error of the reading, or one if input is left over.
func (r *reader) done(what string) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errShort
	}
	if r.err != nil {
		return fmt.Errorf("%s: %w", what, r.err)
	}
	return nil
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(v))+1)
	return append(b, v...)
}

func appendString(b []byte, v string) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendTP(b []byte, tp TopicPartition) []byte {
	b = appendString(b, tp.Topic)
	return binary.AppendUvarint(b, uint64(tp.Partition))
}

func appendEpochs(b []byte, l epochList) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for _, e := range l {
		b = binary.AppendUvarint(b, uint64(e.Epoch))
		b = binary.AppendVarint(b, int64(e.First))
		b = binary.AppendVarint(b, int64(e.End-e.First))
	}
	return b
}

func appendLeaders(b []byte, l leaderList) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	for _, s := range l {
		b = binary.AppendUvarint(b, uint64(s.Leader))
		b = binary.AppendVarint(b, int64(s.First))
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
