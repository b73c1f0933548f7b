package cache

import "unsafe"

// keyIndex finds the newest entry of each key: an open-addressed hash table with linear probing. It
// holds neither keys nor pointers: the bytes of a key are those of its newest entry, which is the
// last of the key's entries to leave. A Go map from string would cost a pointer and an allocation
// a key, and the collector would have to walk them all.
type keyIndex struct {
	slots []slot // length 0 or a power of two
	used  int
}

type slot struct {
	last uint64 // index of the key's newest entry, plus one; 0: free
	hash uint32
}

const (
	slotSize = int64(unsafe.Sizeof(slot{}))
	minSlots = 8
)

func (x *keyIndex) bytes() int64 { return int64(cap(x.slots)) * slotSize }

func (x *keyIndex) mask() uint32 { return uint32(len(x.slots) - 1) }

// find returns the newest entry of a key that is not null. The entries are in segs.
func (x *keyIndex) find(segs []*segment, key []byte, hash uint32) (Index, bool) {
	if x.used == 0 {
		return 0, false
	}
	for at := hash & x.mask(); x.slots[at].last != 0; at = (at + 1) & x.mask() {
		if x.slots[at].hash != hash {
			continue
		}
		i := Index(x.slots[at].last - 1)
		if s := locate(segs, i); s.hasKey(s.at(i), key, hash) {
			return i, true
		}
	}
	return 0, false
}

// insert adds a key that is not in the table. There must be room: see grown.
func (x *keyIndex) insert(hash uint32, i Index) {
	at := hash & x.mask()
	for x.slots[at].last != 0 {
		at = (at + 1) & x.mask()
	}
	x.slots[at] = slot{last: uint64(i) + 1, hash: hash}
	x.used++
}

// move makes the key whose newest entry was `from` point to `to`.
func (x *keyIndex) move(hash uint32, from, to Index) {
	at := hash & x.mask()
	for x.slots[at].last != uint64(from)+1 {
		at = (at + 1) & x.mask()
	}
	x.slots[at].last = uint64(to) + 1
}

// remove forgets the key whose newest entry is i; nothing happens when no key's is.
func (x *keyIndex) remove(hash uint32, i Index) {
	if x.used == 0 {
		return
	}
	at := hash & x.mask()
	for x.slots[at].last != uint64(i)+1 {
		if x.slots[at].last == 0 {
			return
		}
		at = (at + 1) & x.mask()
	}
	// Close the hole: pull back whatever probing would no longer reach across it.
	hole := at
	for {
		at = (at + 1) & x.mask()
		s := x.slots[at]
		if s.last == 0 {
			break
		}
		home := s.hash & x.mask()
		if (at-home)&x.mask() >= (at-hole)&x.mask() {
			x.slots[hole] = s
			hole = at
		}
	}
	x.slots[hole] = slot{}
	x.used--
}

// grown returns a table with room for n more keys: the same one, or a bigger copy.
func (x keyIndex) grown(n int) keyIndex {
	size := max(minSlots, len(x.slots))
	for (x.used+n)*4 > size*3 {
		size *= 2
	}
	if size == len(x.slots) {
		return x
	}
	return x.resized(size)
}

// shrunk returns a smaller copy when the table is mostly empty.
func (x keyIndex) shrunk() keyIndex {
	if x.used == 0 {
		return keyIndex{}
	}
	if len(x.slots) <= minSlots || x.used*8 > len(x.slots) {
		return x
	}
	return x.resized(max(minSlots, len(x.slots)/4))
}

func (x keyIndex) resized(size int) keyIndex {
	y := keyIndex{slots: make([]slot, size)}
	for _, s := range x.slots {
		if s.last != 0 {
			y.insert(s.hash, Index(s.last-1))
		}
	}
	return y
}

// clear forgets all keys and keeps the memory, unless it is more than keep slots.
func (x *keyIndex) clear(keep int) {
	if len(x.slots) > keep {
		*x = keyIndex{}
		return
	}
	if x.used > 0 {
		clear(x.slots)
		x.used = 0
	}
}
