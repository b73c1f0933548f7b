package kafkaio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidewire/tidewire/bridge"
)

var parseTP = bridge.TopicPartition{Topic: "t", Partition: 3}

func values(recs []bridge.Record) (out []string) {
	for _, r := range recs {
		out = append(out, fmt.Sprintf("%d:%s", r.Offset, r.Value))
	}
	return out
}

func join(t testing.TB, batches ...testBatch) (raw []byte) {
	for _, b := range batches {
		raw = append(raw, b.bytes(t)...)
	}
	return raw
}

func TestParseCodecs(t *testing.T) {
	for name, b := range map[string]testBatch{
		"none":   {},
		"gzip":   {attrs: codecGzip},
		"snappy": {attrs: codecSnappy},
		"xerial": {attrs: codecSnappy, xerial: true},
		"lz4":    {attrs: codecLZ4},
		"zstd":   {attrs: codecZstd},
	} {
		t.Run(name, func(t *testing.T) {
			in := newBatch(10, "a", strings.Repeat("long ", 200), "c")
			in.attrs, in.xerial = b.attrs, b.xerial
			in.records[1].Key = nil
			in.records[2].Value = nil
			in.records[0].Headers = []bridge.Header{{Key: "h", Value: []byte("1")}, {Key: "h"}, {Key: "", Value: []byte{}}}
			var p parser
			out, err := p.parseRecords(parseTP, join(t, in), 10, nil)
			must(t, err)
			if !reflect.DeepEqual(out.records, in.records) || out.next != 13 {
				t.Errorf("got  %+v next %d\nwant %+v", out.records, out.next, in.records)
			}
			// Cut short inside: an error, never a panic or a part of the batch.
			whole := compress(t, uint16(in.attrs)&attrCodec, in.xerial, in.body())
			for n := range len(whole) {
				cut := in
				cut.raw = whole[:n:n]
				out, err := p.parseRecords(parseTP, join(t, cut), 10, nil)
				if err == nil && b.attrs == codecGzip && len(out.records) == 3 {
					continue // only the trailer is missing
				}
				if !errors.Is(err, ErrMalformed) || len(out.records) != 0 || out.next != 10 {
					t.Fatalf("cut at %d of %d: %v, %d records, next %d", n, len(whole), err, len(out.records), out.next)
				}
			}
		})
	}
}

func TestParsePositions(t *testing.T) {
	hole := newBatch(20, "x", "y")
	hole.records[1].Offset, hole.lastDelta = 25, 9 // 21-24 and 26-29 were compacted away
	empty := newBatch(30)
	empty.lastDelta = 4
	appendTime := newBatch(50, "p", "q")
	appendTime.attrs |= attrLogAppendTime
	raw := join(t, newBatch(10, "a", "b", "c"), hole, empty, newBatch(40, "z"), appendTime)
	for _, tc := range []struct {
		from bridge.Offset
		want string
	}{
		{10, "10:a 11:b 12:c 20:x 25:y 40:z 50:p 51:q"},
		{11, "11:b 12:c 20:x 25:y 40:z 50:p 51:q"},
		{13, "20:x 25:y 40:z 50:p 51:q"},
		{22, "25:y 40:z 50:p 51:q"},
		{26, "40:z 50:p 51:q"},
		{33, "40:z 50:p 51:q"},
		{51, "51:q"},
		{52, ""},
		{99, ""},
	} {
		var p parser
		out, err := p.parseRecords(parseTP, raw, tc.from, nil)
		must(t, err)
		if got := strings.Join(values(out.records), " "); got != tc.want || out.next != max(52, tc.from) {
			t.Errorf("from %d: %q next %d, want %q", tc.from, got, out.next, tc.want)
		}
		for _, r := range out.records {
			if r.Offset >= 50 && r.Timestamp != 2000 {
				t.Errorf("record %d: time %d is not the append time", r.Offset, r.Timestamp)
			}
		}
	}
	// An empty batch alone carries the position on: nothing may ask for 30 for ever.
	var p parser
	out, err := p.parseRecords(parseTP, join(t, empty), 30, nil)
	if err != nil || out.next != 35 || len(out.records) != 0 {
		t.Errorf("empty batch: next %d, %d records, %v", out.next, len(out.records), err)
	}
}

func TestParseTransactions(t *testing.T) {
	const abort, commit = controlAbort, 1
	raw := join(t,
		newBatch(0, "plain0"),
		newBatch(1, "A1").txn(1),
		newBatch(2, "B2").txn(2),
		newBatch(3, "plain3"),
		newBatch(4, "A4").txn(1),
		marker(5, 1, abort),
		newBatch(6, "A6").txn(1), // the producer's next transaction
		marker(7, 2, commit),
		marker(8, 1, commit),
		newBatch(9, "A9").txn(1),
		marker(10, 1, abort),
	)
	aborted := []abortedTxn{{1, 9}, {1, 1}} // unordered on purpose
	var p parser
	for range 2 { // the parser keeps nothing from one answer to the next
		out, err := p.parseRecords(parseTP, raw, 0, slices.Clone(aborted))
		must(t, err)
		if got := strings.Join(values(out.records), " "); got != "0:plain0 2:B2 3:plain3 6:A6" || out.next != 11 {
			t.Errorf("%q next %d", got, out.next)
		}
		if out.control != 4 || out.abortedRecords != 3 {
			t.Errorf("%d control batches, %d aborted records", out.control, out.abortedRecords)
		}
	}
	// Without the list all is shown: the broker alone knows what was aborted.
	out, err := p.parseRecords(parseTP, raw, 0, nil)
	if must(t, err); len(out.records) != 7 {
		t.Errorf("%v", values(out.records))
	}
}

func TestParsePartial(t *testing.T) {
	first, second := newBatch(0, "a", "b").bytes(t), newBatch(2, "c").bytes(t)
	raw := slices.Concat(first, second)
	for n := range len(raw) {
		var p parser
		out, err := p.parseRecords(parseTP, raw[:n:n], 0, nil)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		want, next := 0, bridge.Offset(0)
		if n >= len(first) {
			want, next = 2, 2
		}
		whole := n == 0 || n == len(first)
		if len(out.records) != want || out.next != next || out.partial == whole {
			t.Fatalf("%d bytes: %d records, next %d, partial %v", n, len(out.records), out.next, out.partial)
		}
		if size := n - len(first)*want/2; size >= batchPrefix && out.needed != cmpLen(want, first, second) {
			t.Fatalf("%d bytes: needed %d", n, out.needed)
		}
	}
}

func cmpLen(want int, first, second []byte) int {
	if want == 0 {
		return len(first)
	}
	return len(second)
}

func TestParseBroken(t *testing.T) {
	good := newBatch(0, "good").bytes(t)
	with := func(fn func(b *testBatch)) []byte {
		b := newBatch(1, "x", "y")
		fn(&b)
		return b.bytes(t)
	}
	patch := func(at int, v ...byte) []byte {
		b := newBatch(1, "x", "y").bytes(t)
		copy(b[at:], v)
		return b
	}
	bomb := compress(t, codecZstd, false, make([]byte, maxDecompressed+1))
	for name, tc := range map[string]struct {
		raw  []byte
		want error
	}{
		"magic 0":           {patch(magicAt, 0), ErrOldFormat},
		"magic 1":           {patch(magicAt, 1), ErrOldFormat},
		"magic 3":           {patch(magicAt, 3), ErrMalformed},
		"crc":               {patch(crcAt, 1, 2, 3, 4), ErrChecksum},
		"flipped value":     {patch(batchHeader+8, 0xff), ErrChecksum},
		"negative length":   {patch(8, 0xff, 0xff, 0xff, 0xff), ErrMalformed},
		"short length":      {patch(8, 0, 0, 0, 48), ErrMalformed},
		"huge length":       {patch(8, 0x7f, 0xff, 0xff, 0xff), ErrBatchTooLarge},
		"negative offset":   {with(func(b *testBatch) { b.base = -5 }), ErrMalformed},
		"offset overflow":   {with(func(b *testBatch) { b.base = maxInt64 - 1; b.lastDelta = 9; b.raw = []byte{} }), ErrMalformed},
		"negative delta":    {sealed(patch(lastDeltaAt, 0xff, 0xff, 0xff, 0xff)), ErrMalformed},
		"delta beyond last": {with(func(b *testBatch) { b.records[1].Offset = 9; b.lastDelta = 3 }), ErrMalformed},
		"falling offsets":   {with(func(b *testBatch) { b.records[0].Offset = 2; b.records[1].Offset = 1; b.lastDelta = 3 }), ErrMalformed},
		"repeated offset":   {with(func(b *testBatch) { b.records[1].Offset = 1; b.lastDelta = 3 }), ErrMalformed},
		"too many records":  {with(func(b *testBatch) { b.count = 3 }), ErrMalformed},
		"too few records":   {with(func(b *testBatch) { b.count = 1 }), ErrMalformed},
		"count of billions": {with(func(b *testBatch) { b.count = 1 << 30 }), ErrMalformed},
		"negative count":    {sealed(patch(numRecordsAt, 0xff, 0xff, 0xff, 0xff)), ErrMalformed},
		"unknown codec":     {with(func(b *testBatch) { b.attrs = 5; b.raw = []byte{1} }), ErrMalformed},
		"not gzip":          {with(func(b *testBatch) { b.attrs = codecGzip; b.raw = []byte("nonsense") }), ErrMalformed},
		"not snappy":        {with(func(b *testBatch) { b.attrs = codecSnappy; b.raw = []byte{0xff, 0xff, 0xff, 0xff} }), ErrMalformed},
		"snappy claims":     {with(func(b *testBatch) { b.attrs = codecSnappy; b.raw = binary.AppendUvarint(nil, 100<<20) }), ErrMalformed},
		"snappy too large":  {with(func(b *testBatch) { b.attrs = codecSnappy; b.raw = binary.AppendUvarint(nil, maxDecompressed+1) }), ErrBatchTooLarge},
		"not lz4":           {with(func(b *testBatch) { b.attrs = codecLZ4; b.raw = []byte("nonsense") }), ErrMalformed},
		"not zstd":          {with(func(b *testBatch) { b.attrs = codecZstd; b.raw = []byte("nonsense") }), ErrMalformed},
		"zstd bomb":         {with(func(b *testBatch) { b.attrs = codecZstd; b.raw = bomb }), ErrBatchTooLarge},
		"trailing bytes": {with(func(b *testBatch) {
			b.raw = append(b.body(), 0)
		}), ErrMalformed},
		"header count": {with(func(b *testBatch) {
			b.raw = []byte{16, 0, 0, 0, 1, 1, 0x80, 0x80, 1}
			b.count = 1
		}), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			var p parser
			out, err := p.parseRecords(parseTP, slices.Concat(good, tc.raw, good), 0, nil)
			var be *BatchError
			if !errors.As(err, &be) || !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if be.TP != parseTP || be.Offset != 1 {
				t.Errorf("the error names %s at %d", be.TP, be.Offset)
			}
			if len(out.records) != 1 || out.next != 1 {
				t.Errorf("before it: %d records, next %d", len(out.records), out.next)
			}
		})
	}
}

// TestParseTwin compares the parser with a slow reading of the same bytes, for any records.
func TestParseTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 40))
		var raw []byte
		at := int64(rapid.IntRange(0, 1000).Draw(t, "base"))
		start := at
		for range rapid.IntRange(0, 5).Draw(t, "batches") {
			b := newBatch(at)
			off := at
			for range rapid.IntRange(0, 6).Draw(t, "records") {
				r := bridge.Record{
					Offset:    bridge.Offset(off),
					Timestamp: rapid.Int64Range(0, 1<<44).Draw(t, "time"),
					Key:       field.Draw(t, "key"),
					Value:     field.Draw(t, "value"),
				}
				for range rapid.IntRange(0, 3).Draw(t, "headers") {
					r.Headers = append(r.Headers, bridge.Header{Key: rapid.StringN(0, 8, 80).Draw(t, "name"), Value: field.Draw(t, "header")})
				}
				b.records = append(b.records, r)
				off += int64(rapid.IntRange(1, 100).Draw(t, "hole"))
			}
			b.lastDelta = int32(off - at)
			raw = append(raw, b.bytes(nil)...)
			at = off + 1
		}
		from := bridge.Offset(start + int64(rapid.IntRange(-1, 300).Draw(t, "from")))
		var p parser
		out, err := p.parseRecords(parseTP, raw, max(from, 0), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := naive(raw, from); !reflect.DeepEqual(out.records, want) && len(out.records)+len(want) > 0 {
			t.Fatalf("got  %+v\nwant %+v", out.records, want)
		}
	})
}

// FuzzRecordBatch: whatever the bytes, parseRecords returns, and what it returns keeps its promises. The
// CRC is put right in every batch that it can be found in, or nothing would get past it.
func FuzzRecordBatch(f *testing.F) {
	for _, codec := range []int16{0, codecGzip, codecSnappy, codecLZ4, codecZstd} {
		b := newBatch(5, "a", "b", strings.Repeat("c", 100))
		b.attrs = codec
		b.records[1].Headers = []bridge.Header{{Key: "k", Value: []byte("v")}}
		f.Add(b.bytes(f), int64(5), int64(-1))
		b.xerial = true
		f.Add(slices.Concat(b.bytes(f), newBatch(8, "x").txn(4).bytes(f), marker(9, 4, controlAbort).bytes(f)), int64(6), int64(4))
	}
	empty := newBatch(3)
	empty.lastDelta = 8
	f.Add(empty.bytes(f), int64(3), int64(0))
	f.Add(empty.bytes(f)[:30], int64(3), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, from, producer int64) {
		if len(raw) > 1<<16 || from < 0 {
			return
		}
		for rest := raw; len(rest) >= batchHeader; {
			size := batchSize(rest)
			if size < batchHeader || size > len(rest) {
				break
			}
			sealed(rest[:size])
			rest = rest[size:]
		}
		before := bytes.Clone(raw)
		var p parser
		var aborted []abortedTxn
		if producer >= 0 {
			aborted = []abortedTxn{{producer, bridge.Offset(from)}}
		}
		out, err := p.parseRecords(parseTP, raw, bridge.Offset(from), aborted)
		if !bytes.Equal(raw, before) {
			t.Fatal("the input was changed")
		}
		var be *BatchError
		if err != nil && (!errors.As(err, &be) || be.Offset != out.next) {
			t.Fatalf("error %v with next %d", err, out.next)
		}
		last := bridge.Offset(from) - 1
		for _, r := range out.records {
			if r.Offset <= last || r.Offset >= out.next {
				t.Fatalf("record %d after %d, next %d", r.Offset, last, out.next)
			}
			last = r.Offset
		}
		if out.next < bridge.Offset(from) {
			t.Fatalf("next %d before %d", out.next, from)
		}
	})
}

// BenchmarkParse reports the cost of a record: 100 records of 512 bytes in a batch, 10 batches.
func BenchmarkParse(b *testing.B) {
	for name, codec := range map[string]int16{"none": 0, "gzip": codecGzip, "snappy": codecSnappy, "lz4": codecLZ4, "zstd": codecZstd} {
		b.Run(name, func(b *testing.B) {
			var raw []byte
			const batches, perBatch = 10, 100
			for i := range batches {
				in := newBatch(int64(i * perBatch))
				in.attrs = codec
				for j := range perBatch {
					v := bytes.Repeat([]byte(fmt.Sprintf("%08d", j*7919)), 64)
					in.records = append(in.records, bridge.Record{
						Offset: bridge.Offset(in.base) + bridge.Offset(j), Timestamp: 1000, Key: []byte("EURUSD"), Value: v,
						Headers: []bridge.Header{{Key: "source", Value: []byte("bench")}},
					})
				}
				raw = append(raw, in.bytes(b)...)
			}
			var p parser
			b.ReportAllocs()
			b.SetBytes(batches * perBatch * 512)
			n := 0
			for b.Loop() {
				out, err := p.parseRecords(parseTP, raw, 0, nil)
				if err != nil || len(out.records) != batches*perBatch {
					b.Fatal(err, len(out.records))
				}
				n += len(out.records)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
		})
	}
}
