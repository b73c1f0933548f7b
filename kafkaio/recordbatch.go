package kafkaio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"github.com/tidewire/tidewire/bridge"
)

// Record batches, format v2 (magic 2, Kafka 0.11 and later), as described in Kafka's documentation under
// "Message format". parseRecords turns what a fetch brought for one partition into the records that a
// read_committed consumer sees, and the offset to go on from. Keys and values are slices of the
// answer's buffer, or of the buffer that a batch was decompressed into: nothing is copied a record.
//
// Fields of a batch, big-endian, and their places:
//
//	 0 base offset       i64    23 last offset delta  i32
//	 8 length after here i32    27 base timestamp     i64
//	12 leader epoch      i32    35 max timestamp      i64
//	16 magic             i8     43 producer id        i64
//	17 CRC-32C from 21   u32    51 producer epoch     i16
//	21 attributes        i16    53 base sequence      i32
//	                            57 number of records  i32    61 the records, perhaps compressed
const (
	batchPrefix    = 12 // base offset and length: what precedes the counted bytes
	batchHeader    = 61
	leaderAt       = 12
	magicAt        = 16
	crcAt          = 17
	attributesAt   = 21
	lastDeltaAt    = 23
	baseTimeAt     = 27
	maxTimeAt      = 35
	producerAt     = 43
	numRecordsAt   = 57
	currentMagic   = 2
	minRecordBytes = 7 // length, attributes, time and offset deltas, key and value lengths, header count
)

// Bits of the attributes.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

// controlAbort is the type of a control record that ends a transaction without its records.
const controlAbort = 0

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What can be wrong with a batch; a *BatchError wraps one of these.
var (
	// ErrOldFormat: a message set of Kafka before 0.11 (magic 0 or 1), which must be rewritten
	// there (Kafka 4 holds none any more).
	ErrOldFormat = errors.New("message format before Kafka 0.11 is not supported")
	// ErrChecksum: the CRC-32C does not match.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrMalformed: lengths, counts or offsets contradict each other, or a codec fails.
	ErrMalformed = errors.New("malformed record batch")
	// ErrBatchTooLarge: more than maxFrame bytes, or maxDecompressed once decompressed.
	ErrBatchTooLarge = errors.New("record batch is too large")
)

// BatchError says which batch could not be read. Offset is where reading has to go on: the batch is
// at it, or was expected to be.
type BatchError struct {
	TP     bridge.TopicPartition
	Offset bridge.Offset
	Err    error
}

func (e *BatchError) Error() string {
	return fmt.Sprintf("record batch of %s at offset %d: %v", e.TP, e.Offset, e.Err)
}
func (e *BatchError) Unwrap() error { return e.Err }

// abortedTxn is one entry of a fetch's list: records of the producer from offset first on belong to
// an aborted transaction, until its abort marker.
type abortedTxn struct {
	producer int64
	first    bridge.Offset
}

// parsed is what parseRecords got out of a partition's bytes.
type parsed struct {
	records []bridge.Record
	first   bridge.Offset      // where the first batch that was read begins, before from perhaps
	next    bridge.Offset      // where to go on
	leader  bridge.LeaderEpoch // of every batch that was read
	// partial says that the bytes end inside a batch; needed is the size of that batch when it is
	// known (else 0). With no batch before it, a larger limit has to be asked for.
	partial bool
	needed  int
	// What was left out, for the metrics.
	control, abortedRecords int
}

// parser keeps what can be reused from one partition's bytes to the next. The zero value is ready; it
// is used by one goroutine at a time.
type parser struct {
	aborting map[int64]struct{} // producers inside an aborted transaction
	names    map[string]string  // header keys seen: most topics have a few, repeated in each record
	headers  []bridge.Header    // the arena that the records' headers are cut from

	announced int // of the answer that is being parsed
}

// parseRecords reads the batches in raw, which a fetch at offset from has brought, and leaves out what
// lies before from. It ends early where the leader epoch changes. When it returns an error (always a *BatchError), what it returns beside it is the
// good part before the broken batch.
func (p *parser) parseRecords(tp bridge.TopicPartition, raw []byte, from bridge.Offset, aborted []abortedTxn) (parsed, error) {
	out := parsed{next: from, leader: bridge.NoLeaderEpoch}
	clear(p.aborting)
	p.announced = announced(raw)
	p.headers = nil // an arena shared by two fetches would keep both their buffers alive
	// Brokers send the list sorted by offset, though the protocol does not promise it.
	byOffset := func(a, b abortedTxn) int { return int(min(max(a.first-b.first, -1), 1)) }
	if !slices.IsSortedFunc(aborted, byOffset) {
		slices.SortFunc(aborted, byOffset)
	}
	for len(raw) > 0 {
		if len(raw) < batchHeader {
			out.partial = true
			if len(raw) < batchPrefix {
				return out, nil
			}
			// A whole batch can be shorter than a header only if it is broken.
			if out.needed = batchSize(raw); out.needed < batchHeader {
				return out, &BatchError{tp, out.next, fmt.Errorf("%w: a batch of %d bytes", ErrMalformed, out.needed)}
			}
			return out, nil
		}
		if m := raw[magicAt]; m < currentMagic {
			return out, &BatchError{tp, out.next, fmt.Errorf("%w (magic %d)", ErrOldFormat, m)}
		} else if m > currentMagic {
			return out, &BatchError{tp, out.next, fmt.Errorf("%w: unknown magic %d", ErrMalformed, m)}
		}
		size := batchSize(raw)
		switch {
		case size < batchHeader:
			return out, &BatchError{tp, out.next, fmt.Errorf("%w: a batch of %d bytes", ErrMalformed, size)}
		case size > maxFrame:
			return out, &BatchError{tp, out.next, fmt.Errorf("%w: %d bytes", ErrBatchTooLarge, size)}
		case size > len(raw):
			out.partial, out.needed = true, size
			return out, nil
		}
		leader := bridge.LeaderEpoch(int32(binary.BigEndian.Uint32(raw[leaderAt:])))
		if out.next > from && leader != out.leader {
			return out, nil // what is of one leader goes together
		}
		if out.next == from {
			out.first = bridge.Offset(binary.BigEndian.Uint64(raw))
		}
		var err error
		if aborted, err = p.parseBatch(raw[:size:size], aborted, &out); err != nil {
			return out, &BatchError{tp, out.next, err}
		}
		if out.next > from {
			out.leader = max(leader, bridge.NoLeaderEpoch)
		}
		raw = raw[size:]
	}
	return out, nil
}

// announced is how many records the whole batches in raw say they have, as far as that is believable
// unseen: it saves growing the slice of records again and again.
func announced(raw []byte) (n int) {
	const believable = 8192
	for len(raw) >= batchHeader && n < believable {
		size := batchSize(raw)
		if size < batchHeader || size > len(raw) {
			break
		}
		n += int(min(binary.BigEndian.Uint32(raw[numRecordsAt:]), believable))
		raw = raw[size:]
	}
	return min(n, believable)
}

// batchSize is the size of the batch at the start of b, its prefix included; -1 is nonsense.
func batchSize(b []byte) int {
	n := int32(binary.BigEndian.Uint32(b[8:]))
	if n < 0 {
		return -1
	}
	return int(n) + batchPrefix
}

// parseBatch reads one whole batch into out, or leaves out as it was. It returns the aborted
// transactions that start after the batch.
func (p *parser) parseBatch(b []byte, aborted []abortedTxn, out *parsed) ([]abortedTxn, error) {
	if want, got := binary.BigEndian.Uint32(b[crcAt:]), crc32.Checksum(b[attributesAt:], castagnoli); want != got {
		return aborted, fmt.Errorf("%w: %08x, not %08x", ErrChecksum, got, want)
	}
	base := bridge.Offset(binary.BigEndian.Uint64(b))
	lastDelta := int32(binary.BigEndian.Uint32(b[lastDeltaAt:]))
	if base < 0 || lastDelta < 0 || base > math.MaxInt64-1-bridge.Offset(lastDelta) {
		return aborted, fmt.Errorf("%w: base offset %d, last offset delta %d", ErrMalformed, base, lastDelta)
	}
	last := base + bridge.Offset(lastDelta)
	producer := int64(binary.BigEndian.Uint64(b[producerAt:]))
	attrs := binary.BigEndian.Uint16(b[attributesAt:])

	// The rule of Kafka's own consumer: transactions that start at or before the batch's end are
	// aborting; an abort marker ends its producer's.
	for len(aborted) > 0 && aborted[0].first <= last {
		if p.aborting == nil {
			p.aborting = map[int64]struct{}{}
		}
		p.aborting[aborted[0].producer] = struct{}{}
		aborted = aborted[1:]
	}
	if attrs&attrControl != 0 {
		if len(p.aborting) > 0 {
			kind, err := controlType(b)
			if err != nil {
				return aborted, err
			}
			if kind == controlAbort {
				delete(p.aborting, producer)
			}
		}
		out.control++
		out.next = max(out.next, last+1)
		return aborted, nil
	}
	if _, is := p.aborting[producer]; is && attrs&attrTransactional != 0 {
		out.abortedRecords += int(max(0, int32(binary.BigEndian.Uint32(b[numRecordsAt:]))))
		out.next = max(out.next, last+1)
		return aborted, nil
	}
	if last < out.next {
		return aborted, nil // all of it lies before what was asked for
	}
	data := b[batchHeader:]
	if codec := attrs & attrCodec; codec != 0 {
		var err error
		if data, err = decompress(codec, data); err != nil {
			return aborted, err
		}
	}
	if out.records == nil {
		// Here, and not earlier: many answers hold control records only.
		out.records = make([]bridge.Record, 0, p.announced)
	}
	n := len(out.records)
	if err := p.appendRecords(b, data, base, lastDelta, attrs, out); err != nil {
		clear(out.records[n:])
		out.records = out.records[:n]
		return aborted, err
	}
	out.next = last + 1
	return aborted, nil
}

// appendRecords reads the records of a batch with header b and records data.
func (p *parser) appendRecords(b, data []byte, base bridge.Offset, lastDelta int32, attrs uint16, out *parsed) error {
	count := int(int32(binary.BigEndian.Uint32(b[numRecordsAt:])))
	if count < 0 || count > len(data)/minRecordBytes {
		return fmt.Errorf("%w: %d records in %d bytes", ErrMalformed, count, len(data))
	}
	baseTime := int64(binary.BigEndian.Uint64(b[baseTimeAt:]))
	appendTime := int64(binary.BigEndian.Uint64(b[maxTimeAt:]))
	out.records = slices.Grow(out.records, count)
	prev := int64(-1)
	d := varReader{b: data}
	for i := 0; i < count; i++ {
		size := d.varint()
		end := d.off + int(size)
		if d.bad || size < minRecordBytes-1 || size > int64(len(data)-d.off) {
			return fmt.Errorf("%w: length of record %d of %d", ErrMalformed, i, count)
		}
		d.off++ // attributes: none are defined
		r := bridge.Record{Timestamp: baseTime + d.varint()}
		delta := d.varint()
		r.Key = d.bytes()
		r.Value = d.bytes()
		r.Headers = p.readHeaders(&d, end)
		switch {
		case d.bad || d.off != end:
			return fmt.Errorf("%w: fields of record %d of %d", ErrMalformed, i, count)
		case delta <= prev || delta > int64(lastDelta):
			return fmt.Errorf("%w: offset delta %d of record %d after %d, the last is %d", ErrMalformed, delta, i, prev, lastDelta)
		}
		prev = delta
		r.Offset = base + bridge.Offset(delta)
		if attrs&attrLogAppendTime != 0 {
			r.Timestamp = appendTime
		}
		if r.Offset >= out.next {
			out.records = append(out.records, r)
		}
	}
	if d.off != len(data) {
		return fmt.Errorf("%w: %d bytes after the last of %d records", ErrMalformed, len(data)-d.off, count)
	}
	return nil
}

// maxNames and maxName bound the memory that header keys can take in a parser.
const (
	maxNames = 256
	maxName  = 64
)

// readHeaders reads the headers of a record that ends at end. They are cut from an arena, so that a
// fetch costs a few allocations for all its headers.
func (p *parser) readHeaders(d *varReader, end int) []bridge.Header {
	count := d.varint()
	if count == 0 {
		return nil
	}
	if count < 0 || count > int64(end-d.off)/2 { // a header takes two bytes at least
		d.bad = true
		return nil
	}
	n := int(count)
	if cap(p.headers)-len(p.headers) < n {
		p.headers = make([]bridge.Header, 0, max(n, 128))
	}
	start := len(p.headers)
	for range n {
		key := d.bytes()
		if key == nil {
			d.bad = true // keys of headers are not nullable
		}
		value := d.bytes()
		if d.bad {
			p.headers = p.headers[:start]
			return nil
		}
		p.headers = append(p.headers, bridge.Header{Key: p.name(key), Value: value})
	}
	return p.headers[start:len(p.headers):len(p.headers)]
}

func (p *parser) name(b []byte) string {
	if s, ok := p.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(b) <= maxName && len(p.names) < maxNames {
		if p.names == nil {
			p.names = map[string]string{}
		}
		p.names[s] = s
	}
	return s
}

// controlType is the type in the key of a control batch's record. Control batches are never compressed.
func controlType(b []byte) (int16, error) {
	d := varReader{b: b[batchHeader:]}
	d.varint() // length
	d.off++    // attributes
	d.varint() // time delta
	d.varint() // offset delta
	key := d.bytes()
	if d.bad || len(key) < 4 {
		return 0, fmt.Errorf("%w: control record", ErrMalformed)
	}
	return int16(binary.BigEndian.Uint16(key[2:])), nil
}

// varReader reads the variable-length integers (zigzag) and byte fields of records. The first fault
// sets bad; what is read afterwards means nothing.
type varReader struct {
	b   []byte
	off int
	bad bool
}

func (d *varReader) varint() int64 {
	// One byte is by far the most common: lengths and deltas under 64.
	if d.off < len(d.b) && d.b[d.off] < 0x80 {
		u := d.b[d.off]
		d.off++
		return int64(u>>1) ^ -int64(u&1)
	}
	if d.off > len(d.b) {
		d.bad = true
		return 0
	}
	v, n := binary.Varint(d.b[d.off:])
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.off += n
	return v
}

// bytes reads a field with its length before it: -1 is null. The result has no spare capacity, so that
// appending to it cannot write into its neighbour.
func (d *varReader) bytes() []byte {
	n := d.varint()
	if d.bad || n < -1 || n > int64(len(d.b)-d.off) {
		d.bad = true
		return nil
	}
	if n == -1 {
		return nil
	}
	end := d.off + int(n)
	b := d.b[d.off:end:end]
	d.off = end
	return b
}
