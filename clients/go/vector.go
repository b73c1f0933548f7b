package tidewire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Position names one record of one partition of one topic: epochs first, then sequence numbers. It names
// the same record on every node, for ever. As a place in a stream it reads "everything up to and
// including here"; sequence numbers of records start at 1, so a Seqno of 0 stands before the first
// record of its epoch, and (0, 0) before everything.
//
// In JSON a position is [partition, epoch, seqno].
type Position struct {
	Partition int32
	Epoch     uint64
	Seqno     uint64
}

// After says whether p is later than q; both must be of one partition.
func (p Position) After(q Position) bool {
	if c := cmp.Compare(p.Epoch, q.Epoch); c != 0 {
		return c > 0
	}
	return p.Seqno > q.Seqno
}

// String is the position as the protocol writes it.
func (p Position) String() string { return fmt.Sprintf("[%d,%d,%d]", p.Partition, p.Epoch, p.Seqno) }

// MarshalJSON writes [partition, epoch, seqno].
func (p Position) MarshalJSON() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalJSON reads [partition, epoch, seqno].
func (p *Position) UnmarshalJSON(b []byte) error {
	var parts []uint64
	if err := json.Unmarshal(b, &parts); err != nil {
		return fmt.Errorf("position %.100s: %w", b, err)
	}
	if len(parts) != 3 || parts[0] > math.MaxInt32 {
		return fmt.Errorf("position %.100s is not [partition, epoch, seqno]", b)
	}
	*p = Position{Partition: int32(parts[0]), Epoch: parts[1], Seqno: parts[2]}
	return nil
}

// Vector is a subscription's place in its subject: at most one position a partition, in the order of the
// partitions. A nil Vector is no place; an empty one that is not nil stands before everything.
type Vector []Position

// ParseVector reads a vector as the protocol writes it, [[partition, epoch, seqno], …], and refuses one
// that names a partition twice.
func ParseVector(text string) (Vector, error) {
	var v Vector
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("vector: %w", err)
	}
	return checkVector(v)
}

// checkVector returns v in the order of its partitions; not nil.
func checkVector(v Vector) (Vector, error) {
	v = append(Vector{}, v...)
	slices.SortFunc(v, func(a, b Position) int { return cmp.Compare(a.Partition, b.Partition) })
	for i := 1; i < len(v); i++ {
		if v[i].Partition == v[i-1].Partition {
			return nil, fmt.Errorf("vector names partition %d twice", v[i].Partition)
		}
	}
	return v, nil
}

// At is the position in one partition; ok is false if the vector has none there.
func (v Vector) At(partition int32) (p Position, ok bool) {
	i, ok := v.find(partition)
	if !ok {
		return Position{}, false
	}
	return v[i], true
}

func (v Vector) find(partition int32) (int, bool) {
	return slices.BinarySearchFunc(v, partition, func(p Position, n int32) int { return cmp.Compare(p.Partition, n) })
}

// set puts p in the place of its partition's position.
func (v *Vector) set(p Position) {
	i, ok := v.find(p.Partition)
	if ok {
		(*v)[i] = p
		return
	}
	*v = slices.Insert(*v, i, p)
}
