package replication

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// crcCodec is raft-wal's binary codec with a checksum behind each entry. raft-wal checks its own only
// when it recovers the last segment; this one is checked on every read, so that a flipped bit is an
// error and never a different entry.
type crcCodec struct{ inner wal.BinaryCodec }

// codecID is written into each segment; it changes with the encoding.
const codecID = wal.FirstExternalCodecID + 0x7d01

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *crcCodec) ID() uint64 { return codecID }

func (c *crcCodec) Encode(l *raft.Log, w io.Writer) error {
	buf, ok := w.(*bytes.Buffer)
	if !ok {
		buf = new(bytes.Buffer)
	}
	start := buf.Len()
	buf.Grow(len(l.Data) + len(l.Extensions) + 64)
	if err := c.inner.Encode(l, buf); err != nil {
		return err
	}
	var sum [4]byte
	binary.LittleEndian.PutUint32(sum[:], crc32.Checksum(buf.Bytes()[start:], castagnoli))
	buf.Write(sum[:])
	if ok {
		return nil
	}
	_, err := w.Write(buf.Bytes())
	return err
}

func (c *crcCodec) Decode(b []byte, l *raft.Log) error {
	if len(b) < 4 {
		return fmt.Errorf("%w: log entry of %d bytes", ErrCorrupt, len(b))
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return fmt.Errorf("%w: log entry has checksum %08x, not %08x", ErrCorrupt, got, sum)
	}
	if err := c.inner.Decode(body, l); err != nil {
		return fmt.Errorf("%w: log entry: %w", ErrCorrupt, err)
	}
	return nil
}
