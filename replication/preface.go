package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tidewire/tidewire/bridge"
)

// Every connection to the cluster port begins with a preface that says what it is for:
//
//	offset  size  field
//	0       4     "TDWR"
//	4       1     version of this preface, now 1
//	5       1     kind; the highest bit says that the connection is addressed
//	6       2     Raft group, big-endian; 0 for the other kinds
//	8       …     if it is addressed: 1 byte length, id of the node that it is for
//
// The version changes when the preface or the meaning of a kind does; a node closes what it does not
// know. After it the connection belongs to the kind's own protocol.
//
// A node may have come to live where another one was: the dead node that it replaces. What is sent there for
// the dead must not be taken by the living, least of all entries of Raft, which would be counted as held by
// the dead one too. So a node that is not the one named closes the connection. Builds that speak wire version
// 1 do not know of it (version.go).
const (
	prefaceSize    = 8
	prefaceMagic   = "TDWR"
	prefaceVersion = 1
)

// kind of a connection.
type kind byte

const (
	kindRaft     kind = 1 // messages of one Raft group, one direction of asking
	kindGRPC     kind = 2 // node-to-node calls
	kindLiveness kind = 3 // see liveness.go

	addressed = 0x80
)

// errPreface: the first bytes are not of a connection we know.
var errPreface = errors.New("not a connection of a Tidewire node")

// errOtherVersion: a node of another build, with which this one cannot speak.
var errOtherVersion = errors.New("a Tidewire node of an incompatible version")

type preface struct {
	kind  kind
	group uint16
	to    bridge.NodeID // empty: whoever listens there
}

func (p preface) encode() []byte {
	b := make([]byte, 0, prefaceSize)
	b = append(b, prefaceMagic...)
	k := byte(p.kind)
	if p.to != "" {
		k |= addressed
	}
	b = append(b, prefaceVersion, k)
	b = binary.BigEndian.AppendUint16(b, p.group)
	if p.to != "" {
		b = append(append(b, byte(len(p.to))), p.to...) // at most maxNodeID
	}
	return b
}

// readPreface reads exactly the preface. Any content that is not one is errPreface.
func readPreface(r io.Reader) (preface, error) {
	var b [prefaceSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return preface{}, fmt.Errorf("read preface: %w", err)
	}
	if string(b[:4]) != prefaceMagic {
		return preface{}, errPreface
	}
	if b[4] != prefaceVersion {
		return preface{}, fmt.Errorf("%w: its preface has version %d, this node speaks %d (wire version %d)", errOtherVersion, b[4], prefaceVersion, wireVersion)
	}
	p := preface{kind: kind(b[5] &^ addressed), group: binary.BigEndian.Uint16(b[6:])}
	switch {
	case p.kind == kindRaft:
	case (p.kind == kindGRPC || p.kind == kindLiveness) && p.group == 0:
	default:
		return preface{}, fmt.Errorf("%w: kind %d, group %d", errPreface, p.kind, p.group)
	}
	if b[5]&addressed == 0 {
		return p, nil
	}
	var size [1]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return preface{}, fmt.Errorf("read preface: %w", err)
	}
	if size[0] == 0 || size[0] > maxNodeID {
		return preface{}, fmt.Errorf("%w: node id of %d bytes", errPreface, size[0])
	}
	to := make([]byte, size[0])
	if _, err := io.ReadFull(r, to); err != nil {
		return preface{}, fmt.Errorf("read preface: %w", err)
	}
	p.to = bridge.NodeID(to)
	return p, nil
}
