package cache

import (
	"fmt"
	"testing"
)

func benchLog(keys int) (*Log, Batch) {
	l := NewStore(Config{Budget: 64 << 20}).Log("t", 0)
	frame := make([]byte, 512)
	batch := Batch{Encode: func(dst []byte, _ int, _ Position, _ bool) []byte { return append(dst, frame...) }}
	for n := range 100 {
		batch.Records = append(batch.Records, Record{Key: fmt.Append(nil, "key", n%keys)})
	}
	for n := 0; n < 10_000; n += 100 {
		stamp(batch, n)
		l.Append(batch)
	}
	return l, batch
}

func stamp(batch Batch, n int) {
	for i := range batch.Records {
		batch.Records[i].Pos = at(1, n+i+1)
	}
}

func BenchmarkReadAll(b *testing.B) {
	l, _ := benchLog(10)
	b.ReportAllocs()
	for b.Loop() {
		if c := l.ReadAll(5000, 16<<10); c.Count() == 0 {
			b.Fatal("nothing")
		}
	}
}

func BenchmarkReadKey(b *testing.B) {
	l, _ := benchLog(100)
	key, items := []byte("key42"), make([]Item, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		if r := l.ReadKey(9500, key, 16<<10, items[:0]); len(r.Items) != 5 {
			b.Fatal(len(r.Items))
		}
	}
}

func BenchmarkReadPrefix(b *testing.B) {
	l, _ := benchLog(100)
	prefix, items := []byte("key4"), make([]Item, 0, 100)
	b.ReportAllocs()
	for b.Loop() {
		l.ReadPrefix(9500, prefix, 64<<10, items[:0])
	}
}

// BenchmarkAppend appends batches of 100 records of 512 B to a store that is full; an op is a record.
func BenchmarkAppend(b *testing.B) {
	l, batch := benchLog(100)
	b.ReportAllocs()
	b.SetBytes(512)
	for n := 0; n < b.N; n += 100 {
		stamp(batch, 10_000+n)
		l.Append(batch)
	}
}

// Reading allocates nothing: a subscriber costs no garbage.
func TestReadingAllocatesNothing(t *testing.T) {
	l, _ := benchLog(100)
	key, items, entries := []byte("key42"), make([]Item, 0, 100), make([]Entry, 0, 100)
	for name, read := range map[string]func(){
		"ReadAll":    func() { l.ReadAll(5000, 16<<10).Split(700) },
		"ReadKey":    func() { l.ReadKey(9500, key, 16<<10, items[:0]) },
		"ReadPrefix": func() { l.ReadPrefix(9500, key, 16<<10, items[:0]) },
		"Entries":    func() { l.Entries(9500, 100, entries[:0]) },
		"Seek":       func() { l.Seek(at(1, 777)); l.At(500); l.Bounds() },
	} {
		if n := testing.AllocsPerRun(100, read); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
