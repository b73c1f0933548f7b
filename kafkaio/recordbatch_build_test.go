package kafkaio

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tidewire/tidewire/bridge"
)

// testBatch builds record batches for the tests, byte by byte, so that they can be wrong where a test wants.
type testBatch struct {
	base      int64
	lastDelta int32 // -1: that of the last record
	attrs     int16
	baseTime  int64
	maxTime   int64
	producer  int64
	count     int32 // -1: as many as there are
	records   []bridge.Record
	xerial    bool
	raw       []byte // instead of records, already compressed
}

// newBatch has records at base, base+1, ...
func newBatch(base int64, values ...string) testBatch {
	b := testBatch{base: base, lastDelta: -1, count: -1, producer: -1, baseTime: 1000, maxTime: 2000}
	for i, v := range values {
		b.records = append(b.records, bridge.Record{
			Offset: bridge.Offset(base) + bridge.Offset(i), Timestamp: 1000 + int64(i), Key: []byte("key-" + v), Value: []byte(v),
		})
	}
	return b
}

func (b testBatch) txn(producer int64) testBatch {
	b.producer, b.attrs = producer, b.attrs|attrTransactional
	return b
}

// marker is a control batch that ends producer's transaction.
func marker(base, producer int64, kind int16) testBatch {
	b := newBatch(base).txn(producer)
	b.attrs |= attrControl
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(kind))
	b.records = []bridge.Record{{Offset: bridge.Offset(base), Timestamp: 1000, Key: key, Value: []byte{0, 0, 0, 0, 0, 0}}}
	return b
}

func appendBytes(b, field []byte) []byte {
	if field == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(field))), field...)
}

func (b testBatch) body() []byte {
	var out []byte
	for _, r := range b.records {
		x := []byte{0}
		x = binary.AppendVarint(x, r.Timestamp-b.baseTime)
		x = binary.AppendVarint(x, int64(r.Offset)-b.base)
		x = appendBytes(x, r.Key)
		x = appendBytes(x, r.Value)
		x = binary.AppendVarint(x, int64(len(r.Headers)))
		for _, h := range r.Headers {
			x = appendBytes(x, []byte(h.Key))
			x = appendBytes(x, h.Value)
		}
		out = append(binary.AppendVarint(out, int64(len(x))), x...)
	}
	return out
}

func (b testBatch) bytes(t testing.TB) []byte {
	body := b.raw
	if body == nil {
		body = compress(t, uint16(b.attrs)&attrCodec, b.xerial, b.body())
	}
	count, lastDelta := b.count, b.lastDelta
	if count < 0 {
		count = int32(len(b.records))
	}
	if lastDelta < 0 && len(b.records) > 0 {
		lastDelta = int32(int64(b.records[len(b.records)-1].Offset) - b.base)
	}
	e := wireWriter{}
	e.i64(b.base)
	e.i32(int32(batchHeader - batchPrefix + len(body)))
	e.i32(7) // leader epoch
	e.i8(currentMagic)
	e.i32(0) // CRC, below
	e.i16(b.attrs)
	e.i32(lastDelta)
	e.i64(b.baseTime)
	e.i64(b.maxTime)
	e.i64(b.producer)
	e.i16(0)
	e.i32(0)
	e.i32(count)
	e.b = append(e.b, body...)
	return sealed(e.b)
}

// sealed puts the right CRC into a batch.
func sealed(b []byte) []byte {
	binary.BigEndian.PutUint32(b[crcAt:], crc32.Checksum(b[attributesAt:], castagnoli))
	return b
}

func compress(t testing.TB, codec uint16, xerial bool, src []byte) []byte {
	var out bytes.Buffer
	switch codec {
	case 0:
		return src
	case codecGzip:
		w := gzip.NewWriter(&out)
		_, err := w.Write(src)
		must(t, err, w.Close())
	case codecLZ4:
		w := lz4.NewWriter(&out)
		_, err := w.Write(src)
		must(t, err, w.Close())
	case codecZstd:
		w, err := zstd.NewWriter(&out)
		must(t, err)
		_, err = w.Write(src)
		must(t, err, w.Close())
	case codecSnappy:
		if !xerial {
			return snappy.Encode(nil, src)
		}
		// Blocks of 100 bytes, so that there are several.
		b := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
		for len(src) > 0 {
			n := min(len(src), 100)
			block := snappy.Encode(nil, src[:n])
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(block))), block...)
			src = src[n:]
		}
		return b
	default:
		t.Fatalf("codec %d", codec)
	}
	return out.Bytes()
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// naive reads uncompressed batches without transactions the slow way: the twin that parseRecords is
// compared with.
func naive(raw []byte, from bridge.Offset) (out []bridge.Record) {
	for len(raw) >= batchHeader {
		size := int(binary.BigEndian.Uint32(raw[8:])) + batchPrefix
		b := raw[:size]
		raw = raw[size:]
		r := bytes.NewReader(b[batchHeader:])
		varint := func() int64 { v, _ := binary.ReadVarint(r); return v }
		field := func() []byte {
			n := varint()
			if n < 0 {
				return nil
			}
			f := make([]byte, n)
			_, _ = r.Read(f)
			return f
		}
		for range binary.BigEndian.Uint32(b[numRecordsAt:]) {
			varint()
			_, _ = r.ReadByte()
			x := bridge.Record{Timestamp: int64(binary.BigEndian.Uint64(b[baseTimeAt:])) + varint()}
			x.Offset = bridge.Offset(int64(binary.BigEndian.Uint64(b)) + varint())
			x.Key, x.Value = field(), field()
			for range varint() {
				x.Headers = append(x.Headers, bridge.Header{Key: string(field()), Value: field()})
			}
			if x.Offset >= from {
				out = append(out, x)
			}
		}
	}
	return out
}

const maxInt64 = math.MaxInt64
