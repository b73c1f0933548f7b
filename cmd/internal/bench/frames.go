package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxFrame bounds a frame that the load takes.
const maxFrame = 1 << 20

var errFrame = errors.New("not a WebSocket frame that a server may send here")

// frameNeed says how many bytes the frame that begins b has; while its header is not complete, how many bytes
// are needed to know more. Whole is true if b holds all of it. A server's frames are unmasked, none of the
// servers here fragments, and no extension was asked for.
func frameNeed(b []byte) (need, header int, whole bool, err error) {
	if len(b) < 2 {
		return 2, 0, false, nil
	}
	if b[0]&0xf0 != 0x80 {
		return 0, 0, false, fmt.Errorf("%w: fragmented, or with an extension's bits: %#x", errFrame, b[0])
	}
	size := uint64(b[1])
	switch {
	case size > 127:
		return 0, 0, false, fmt.Errorf("%w: masked", errFrame)
	case size < 126:
		header = 2
	case size == 126:
		if header = 4; len(b) < header {
			return header, 0, false, nil
		}
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	default:
		if header = 10; len(b) < header {
			return header, 0, false, nil
		}
		size = binary.BigEndian.Uint64(b[2:])
	}
	if size > maxFrame {
		return 0, 0, false, fmt.Errorf("%w: %d bytes, %d at most", errFrame, size, maxFrame)
	}
	need = header + int(size)
	return need, header, len(b) >= need, nil
}

// stream cuts what is read from a connection into frames. It keeps bytes only of a frame that a read has cut;
// whole ones are handed on where they lie.
type stream struct{ carry []byte }

// feed hands every frame that b completes to each, whose payload is valid during the call alone.
func (s *stream) feed(b []byte, each func(op byte, payload []byte) error) error {
	for len(s.carry) > 0 {
		need, header, whole, err := frameNeed(s.carry)
		if err != nil {
			return err
		}
		if whole {
			err := each(s.carry[0]&15, s.carry[header:need])
			s.carry = s.carry[:0]
			if err != nil {
				return err
			}
			break
		}
		if len(b) == 0 {
			return nil
		}
		n := min(need-len(s.carry), len(b))
		s.carry = append(s.carry, b[:n]...)
		b = b[n:]
	}
	for len(b) > 0 {
		need, header, whole, err := frameNeed(b)
		if err != nil {
			return err
		}
		if !whole {
			s.carry = append(s.carry, b...)
			return nil
		}
		if err := each(b[0]&15, b[header:need]); err != nil {
			return err
		}
		b = b[need:]
	}
	return nil
}

// appendClientFrame appends a masked frame, as a client sends them. The key need not be secret here: it
// protects proxies from pages, and there is neither.
func appendClientFrame(dst []byte, op byte, payload []byte) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n <= 0xffff:
		dst = append(dst, 0x80|126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, key[:]...)
	for i, c := range payload {
		dst = append(dst, c^key[i&3])
	}
	return dst
}

// appendServerFrame appends an unmasked text frame.
func appendServerFrame(dst, payload []byte) []byte {
	dst = append(dst, 0x80|opText)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n <= 0xffff:
		dst = append(dst, 126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, payload...)
}
