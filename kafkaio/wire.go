package kafkaio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// This file is the ground that our own requests stand on: frames, primitive types and their limits.
// kafka-go's codecs are not used for Fetch (they copy every record and drop lastOffsetDelta), Metadata
// (no topic ids) and ListOffsets; those three are small, and reading them here keeps every length
// that a broker sends under a check of our own.

const (
	// maxFrame is the largest answer that is read, in bytes. A fetch asks for at most fetchMaxBytes,
	// but a broker sends the first batch whole however large it is.
	maxFrame = 128 << 20
	// frameStep is how much of an answer is allocated at a time beyond the first step, so that a
	// broken length costs no more memory than the bytes that really arrive (twice, at most).
	frameStep = 8 << 20
	// requestTimeout bounds how long a broker may take to answer, beyond the wait it was allowed.
	requestTimeout = 10 * time.Second
)

const (
	apiFetch       = 1
	apiListOffsets = 2
	apiMetadata    = 3
	apiVersionsKey = 18
	apiEpochEnd    = 23
)

// errShort says that an answer ended before its fields did, or that a length in it is nonsense.
var errShort = errors.New("malformed answer")

// wire is one connection to a broker with one request at a time on it. It is not safe for concurrent
// use, but Close may be called from anywhere.
type wire struct {
	conn     *protocol.Conn
	clientID string
	corr     int32
	buf      []byte // the request, reused
	fetches  int16  // the version of Fetch that the broker and we speak; 0: not asked yet
}

// openWire connects to the broker at addr, or to any bootstrap broker when addr is empty.
func openWire(ctx context.Context, c *Client, addr string) (*wire, error) {
	var conn *protocol.Conn
	var err error
	if addr == "" {
		conn, err = c.DialAny(ctx)
	} else {
		conn, err = c.Dial(ctx, addr)
	}
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, clientID: c.cfg.ClientID}, nil
}

func (w *wire) Close() { _ = w.conn.Close() }

// do sends a request whose body is what encode appends, and returns the body of the answer: a buffer
// of its own that the caller may keep. After an error the connection is of no further use. wait is
// added to requestTimeout. When ctx ends, do does.
func (w *wire) do(ctx context.Context, key, version int16, flexible bool, wait time.Duration, encode func(*wireWriter)) ([]byte, error) {
	w.corr++
	e := wireWriter{b: append(w.buf[:0], 0, 0, 0, 0)}
	e.i16(key)
	e.i16(version)
	e.i32(w.corr)
	e.str(w.clientID)
	if flexible {
		e.tags()
	}
	encode(&e)
	w.buf = e.b
	binary.BigEndian.PutUint32(w.buf, uint32(len(w.buf)-4))

	deadline := time.Now().Add(wait + requestTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := w.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// A deadline in the past wakes the read below; the connection is not used again.
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	body, err := w.exchange()
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil || !flexible {
		return body, err
	}
	r := wireReader{b: body}
	r.tags()
	return r.rest(), r.err
}

func (w *wire) exchange() ([]byte, error) {
	if _, err := w.conn.Write(w.buf); err != nil {
		return nil, err
	}
	var head [8]byte
	if _, err := io.ReadFull(w.conn, head[:]); err != nil {
		return nil, err
	}
	size := int64(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if size < 0 || size > maxFrame {
		return nil, fmt.Errorf("%w: a frame of %d bytes", errShort, size+4)
	}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != w.corr {
		return nil, fmt.Errorf("%w: it is for request %d, not %d", errShort, got, w.corr)
	}
	return readSized(w.conn, int(size))
}

// readSized reads size bytes. Memory grows with what has arrived, not with what was announced.
func readSized(r io.Reader, size int) ([]byte, error) {
	b := make([]byte, min(size, frameStep))
	for n := 0; ; {
		if _, err := io.ReadFull(r, b[n:]); err != nil {
			return nil, err
		}
		if n = len(b); n == size {
			return b, nil
		}
		b = append(b, make([]byte, min(size-n, n))...)
	}
}

// wireWriter appends Kafka's primitive types to a buffer.
type wireWriter struct{ b []byte }

func (e *wireWriter) i8(v int8)   { e.b = append(e.b, byte(v)) }
func (e *wireWriter) i16(v int16) { e.b = binary.BigEndian.AppendUint16(e.b, uint16(v)) }
func (e *wireWriter) i32(v int32) { e.b = binary.BigEndian.AppendUint32(e.b, uint32(v)) }
func (e *wireWriter) i64(v int64) { e.b = binary.BigEndian.AppendUint64(e.b, uint64(v)) }
func (e *wireWriter) bool(v bool) {
	if v {
		e.i8(1)
	} else {
		e.i8(0)
	}
}
func (e *wireWriter) str(s string) {
	e.i16(int16(len(s)))
	e.b = append(e.b, s...)
}
func (e *wireWriter) compactLen(n int) { e.b = binary.AppendUvarint(e.b, uint64(n)+1) }
func (e *wireWriter) compactStr(s string) {
	e.compactLen(len(s))
	e.b = append(e.b, s...)
}
func (e *wireWriter) tags() { e.b = append(e.b, 0) } // no tagged fields

// wireReader reads Kafka's primitive types. The first fault sticks in err; later reads return zeros,
// so that a caller checks once at the end (and, for loops, at each turn).
type wireReader struct {
	b   []byte
	off int
	err error
}

func (d *wireReader) left() int { return len(d.b) - d.off }

func (d *wireReader) rest() []byte { return d.b[d.off:] }

func (d *wireReader) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s at byte %d of %d", errShort, what, d.off, len(d.b))
	}
	d.off = len(d.b)
}

// take returns the next n bytes, or nil.
func (d *wireReader) take(n int) []byte {
	if n < 0 || n > d.left() {
		d.fail("too short")
		return nil
	}
	b := d.b[d.off : d.off+n : d.off+n]
	d.off += n
	return b
}

func (d *wireReader) i8() int8 {
	if b := d.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (d *wireReader) i16() int16 {
	if b := d.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (d *wireReader) i32() int32 {
	if b := d.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (d *wireReader) i64() int64 {
	if b := d.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (d *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest())
	if n <= 0 {
		d.fail("bad varint")
		return 0
	}
	d.off += n
	return v
}

// str reads a string; a null one is "".
func (d *wireReader) str() string {
	n := int(d.i16())
	if n == -1 {
		return ""
	}
	return string(d.take(n))
}

// bytes reads a byte array without copying it; a null one is nil.
func (d *wireReader) bytes() []byte {
	n := int(d.i32())
	if n == -1 {
		return nil
	}
	return d.take(n)
}

// count reads the length of an array whose elements take at least size bytes each; a null array is
// empty. So no more can be announced than could be there.
func (d *wireReader) count(size int) int {
	return d.checkCount(int64(d.i32()), size)
}

func (d *wireReader) compactLen() int64 {
	v := d.uvarint()
	if v > maxFrame {
		d.fail("bad length")
		return -1
	}
	return int64(v) - 1
}

func (d *wireReader) compactCount(size int) int { return d.checkCount(d.compactLen(), size) }

func (d *wireReader) checkCount(n int64, size int) int {
	if n == -1 || d.err != nil {
		return 0
	}
	if n < 0 || n > int64(d.left()/size) {
		d.fail("bad array length")
		return 0
	}
	return int(n)
}

func (d *wireReader) compactStr() string {
	n := d.compactLen()
	if n < 0 {
		return ""
	}
	return string(d.take(int(n)))
}

// tags skips tagged fields.
func (d *wireReader) tags() {
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		d.uvarint()
		size := d.uvarint()
		if size > uint64(d.left()) {
			d.fail("bad tag length")
			return
		}
		d.take(int(size))
	}
}
