package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Every connection to the cluster port begins with a preface that says what it is for:
//
//	offset  size  field
//	0       4     "TDWR"
//	4       1     version of this preface, now 1
//	5       1     kind
//	6       2     Raft group, big-endian; 0 for the other kinds
//
// The version changes when the preface or the meaning of a kind does; a node closes what it does not
// know. After it the connection belongs to the kind's own protocol.
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
)

// errPreface: the first bytes are not of a connection we know.
var errPreface = errors.New("not a connection of a Tidewire node")

type preface struct {
	kind  kind
	group uint16
}

func (p preface) encode() []byte {
	b := make([]byte, 0, prefaceSize)
	b = append(b, prefaceMagic...)
	b = append(b, prefaceVersion, byte(p.kind))
	return binary.BigEndian.AppendUint16(b, p.group)
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
		return preface{}, fmt.Errorf("%w: version %d, this node speaks %d", errPreface, b[4], prefaceVersion)
	}
	p := preface{kind: kind(b[5]), group: binary.BigEndian.Uint16(b[6:])}
	switch {
	case p.kind == kindRaft:
	case (p.kind == kindGRPC || p.kind == kindLiveness) && p.group == 0:
	default:
		return preface{}, fmt.Errorf("%w: kind %d, group %d", errPreface, p.kind, p.group)
	}
	return p, nil
}
