package kafkaio

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/tidewire/tidewire/bridge"
)

// A record batch of format version 2, as in Kafka's documentation under "Record Batch": a header of 61
// bytes, of which the checksum covers what follows it, then the records with lengths as zigzag varints.
const (
	batchHeaderSize    = 61
	batchLengthAt      = 8 // counts the bytes after itself
	batchLengthEnd     = 12
	batchChecksumAt    = 17
	batchChecksumFrom  = 21
	maxRecordOverhead  = 5 + 1 + 10 + 5 + 5 + 5 + 5 // length, attributes, timestamp, offset, key, value, header count
	maxHeaderOverhead  = 5 + 5
	noLeaderEpoch      = math.MaxUint32 // -1
	recordBatchVersion = 2
)

// producerID is what Kafka knows an idempotent producer by.
type producerID struct {
	id    int64
	epoch int16
}

// recordSize is an upper bound of the bytes that r takes in a batch.
func recordSize(r bridge.Record) int {
	n := maxRecordOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += maxHeaderOverhead + len(h.Key) + len(h.Value)
	}
	return n
}

// appendBatch appends the batch of records to dst, preceded by its length as the produce request wants
// it. The records' offsets are ignored: Kafka assigns them. There is at least one record, and all
// together stay below 2 GiB.
func appendBatch(dst []byte, records []bridge.Record, pid producerID, sequence int32) []byte {
	prefix := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	start := len(dst)

	first, last := records[0].Timestamp, records[0].Timestamp
	for _, r := range records[1:] {
		last = max(last, r.Timestamp)
	}
	be := binary.BigEndian
	dst = be.AppendUint64(dst, 0) // base offset
	dst = be.AppendUint32(dst, 0) // length, below
	dst = be.AppendUint32(dst, noLeaderEpoch)
	dst = append(dst, recordBatchVersion)
	dst = be.AppendUint32(dst, 0) // checksum, below
	dst = be.AppendUint16(dst, 0) // attributes: uncompressed, create time, no transaction
	dst = be.AppendUint32(dst, uint32(len(records)-1))
	dst = be.AppendUint64(dst, uint64(first))
	dst = be.AppendUint64(dst, uint64(last))
	dst = be.AppendUint64(dst, uint64(pid.id))
	dst = be.AppendUint16(dst, uint16(pid.epoch))
	dst = be.AppendUint32(dst, uint32(sequence))
	dst = be.AppendUint32(dst, uint32(len(records)))
	for i, r := range records {
		dst = appendRecord(dst, r, r.Timestamp-first, int64(i))
	}
	be.PutUint32(dst[prefix:], uint32(len(dst)-start))
	be.PutUint32(dst[start+batchLengthAt:], uint32(len(dst)-start-batchLengthEnd))
	be.PutUint32(dst[start+batchChecksumAt:], crc32.Checksum(dst[start+batchChecksumFrom:], castagnoli))
	return dst
}

func appendRecord(dst []byte, r bridge.Record, timestampDelta, offsetDelta int64) []byte {
	n := 1 + varintSize(timestampDelta) + varintSize(offsetDelta) + bytesSize(r.Key) + bytesSize(r.Value) +
		varintSize(int64(len(r.Headers)))
	for _, h := range r.Headers {
		n += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	dst = binary.AppendVarint(dst, int64(n))
	dst = append(dst, 0) // attributes: none are defined
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, offsetDelta)
	dst = appendNullable(dst, r.Key)
	dst = appendNullable(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendNullable(dst, h.Value)
	}
	return dst
}

// appendNullable writes length and bytes; nil is Kafka's null, length -1.
func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

func bytesSize(b []byte) int {
	if b == nil {
		return varintSize(-1)
	}
	return varintSize(int64(len(b))) + len(b)
}

// varintSize is the length of v as a zigzag varint.
func varintSize(v int64) int {
	n := 1
	for u := uint64(v)<<1 ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
