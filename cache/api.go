// Package cache keeps the recent records of every partition in memory as ready-to-send frames.
//
// Each partition has a Log: an append-only run of frames, contiguous within a segment, with one chain
// a key. The log is the queue: a reader holds nothing but an Index, the place of the next record it
// wants, and asks for what has come since. Slow readers cost nothing until their index leaves the log.
//
// One goroutine appends to a Log; any number may read it. A Store owns the Logs, the budget that they
// share and the expiry.
package cache

import "time"

// Index numbers the entries of one Log on this node from 0, in order of arrival. It means nothing on
// another node or after a restart: clients get Positions.
type Index uint64

// Config of a Store. The zero value of a field means its default.
type Config struct {
	// Budget in bytes for all logs together, overhead included. Default 64 MiB.
	Budget int64
	// TTL is how long a record stays. Default 10 minutes.
	TTL time.Duration
	// SegmentBytes is the size of one arena. Default Budget/64 within [16 KiB, 1 MiB].
	SegmentBytes int
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Record describes one entry to append; its bytes are made by the batch's Encode.
type Record struct {
	// Key is the record's key; nil for a null key. It is copied.
	Key []byte
	// Pos rises strictly within a Log.
	Pos Position
	// Timestamp is the Kafka timestamp in unix milliseconds.
	Timestamp int64
}

// Batch is what Append takes.
type Batch struct {
	Records []Record
	// Head is the position reached after the batch. It is at or after the last record's: offsets
	// that hold no record for clients (markers, compaction) move it too.
	Head Position
	// Encode appends record i's frame to dst. prev is the position of the record before it with the
	// same key in this log, when the log still knows one.
	Encode func(dst []byte, i int, prev Position, hasPrev bool) []byte
	// Arrived is when the records arrived, for expiry; zero means now.
	Arrived time.Time
}

// Gap is an entry without a frame: records between the entry before it and At are lost for good.
type Gap struct {
	At     Position // what a reader adopts
	Reason string   // "truncated" or "evicted"
}

// Bounds is one consistent look at a Log.
type Bounds struct {
	Start Index    // the first entry still held
	End   Index    // one past the last entry
	Base  Position // everything up to here has left the log (or was never in it)
	Head  Position // everything up to here is in the log or before it
}

// Item is one record found by a look-up. Frame points into the cache: read-only, valid as long as it
// is referenced.
type Item struct {
	Index     Index
	Pos       Position
	Timestamp int64
	Frame     []byte
}

// Read is the result of reading a Log from an Index.
type Read struct {
	// Items are the records found, in order. (For ReadAll see Chunk instead.)
	Items []Item
	// Next is the index to go on from: everything before it was either returned or does not match.
	Next Index
	// Gap is set when the entry at the place asked for (after Items) is a gap; Next is then past it.
	Gap *Gap
	// Behind is true when the index asked for has left the log; nothing else is set then.
	Behind bool
}
