package bridge

import (
	"crypto/sha256"
	"encoding/binary"
)

// midKey identifies one publish: a hash of the publisher and its message id. Sixteen bytes of
// SHA-256, so that nobody can make a foreign publish look repeated.
type midKey [16]byte

// keyOfMid returns the key of a message id of a user.
func keyOfMid(user, mid string) midKey {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(user)))
	h.Write(n[:]) // so that ("ab","c") and ("a","bc") differ
	h.Write([]byte(user))
	h.Write([]byte(mid))
	return midKey(h.Sum(nil)[:16])
}

// midOf returns the key that a record's headers carry; ok is false when it was not published through
// Tidewire with a message id.
func midOf(headers []Header) (k midKey, ok bool) {
	var mid, user string
	for _, h := range headers {
		switch h.Key {
		case HeaderMid:
			mid, ok = string(h.Value), true
		case HeaderUser:
			user = string(h.Value)
		}
	}
	if !ok || mid == "" {
		return midKey{}, false
	}
	return keyOfMid(user, mid), true
}

// midWindowSize is how many of the last message ids a partition remembers.
const midWindowSize = 1024

type midEntry struct {
	Key    midKey
	Offset Offset
}

// midWindow remembers the last message ids of one partition with their offsets, oldest first.
type midWindow struct {
	ring  []midEntry // in order of arrival from head on
	head  int
	index map[midKey]Offset
}

// find returns the offset of the record that carried k.
func (w *midWindow) find(k midKey) (Offset, bool) {
	o, ok := w.index[k]
	return o, ok
}

// add remembers k, forgetting the oldest when the window is full. k must not be in it.
func (w *midWindow) add(k midKey, o Offset) {
	if w.index == nil {
		w.index = make(map[midKey]Offset)
	}
	e := midEntry{k, o}
	if len(w.ring) < midWindowSize {
		w.ring = append(w.ring, e)
	} else {
		delete(w.index, w.ring[w.head].Key)
		w.ring[w.head] = e
		w.head = (w.head + 1) % midWindowSize
	}
	w.index[k] = o
}

// entries returns the window oldest first.
func (w *midWindow) entries() []midEntry {
	out := make([]midEntry, 0, len(w.ring))
	out = append(out, w.ring[w.head:]...)
	return append(out, w.ring[:w.head]...)
}

// forget removes the ids whose records are gone.
func (w *midWindow) forget(gone func(Offset) bool) {
	kept := midWindow{}
	for _, e := range w.entries() {
		if !gone(e.Offset) {
			kept.add(e.Key, e.Offset)
		}
	}
	*w = kept
}
