package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// frameOf is one frame with any opcode, as a server sends it.
func frameOf(op byte, payload string) []byte {
	b := appendServerFrame(nil, []byte(payload))
	b[0] = 0x80 | op
	return b
}

// feedAll feeds chunks and tells the frames that came out, and the error.
func feedAll(chunks ...[]byte) (frames []string, err error) {
	var s stream
	for _, c := range chunks {
		err = s.feed(c, func(op byte, payload []byte) error {
			frames = append(frames, fmt.Sprintf("%d %s", op, payload))
			return nil
		})
		if err != nil {
			return frames, err
		}
	}
	return frames, nil
}

func TestFramesCutAnywhere(t *testing.T) {
	var whole []byte
	var want []string
	for i, size := range []int{0, 1, 125, 126, 127, 300, 65535, 65536, 3} {
		op := []byte{opText, opPing, opClose, opPong}[i%4]
		payload := strings.Repeat(string(rune('a'+i)), size)
		whole = append(whole, frameOf(op, payload)...)
		want = append(want, fmt.Sprintf("%d %s", op, payload))
	}
	check := func(what string, chunks ...[]byte) {
		t.Helper()
		got, err := feedAll(chunks...)
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%s: %d frames, %v", what, len(got), err)
		}
	}
	check("whole", whole)
	var single [][]byte
	for i := range whole {
		single = append(single, whole[i:i+1])
	}
	check("byte by byte", single...)
	// In two at every place of the small frames and of the large ones' headers, and in three around each of them.
	for i := range len(whole) {
		if i > 1200 && i%997 > 20 {
			continue
		}
		check(fmt.Sprintf("cut at %d", i), whole[:i], whole[i:])
		if end := min(i+3, len(whole)); i < 1200 {
			check(fmt.Sprintf("cut at %d and %d", i, end), whole[:i], whole[i:end], whole[end:])
		}
	}
}

func TestFramesThatAreRefused(t *testing.T) {
	huge := binary.BigEndian.AppendUint64([]byte{0x81, 127}, maxFrame+1)
	wrap := binary.BigEndian.AppendUint64([]byte{0x81, 127}, 1<<63+5)
	for name, b := range map[string][]byte{
		"not final": {0x01, 0}, "compressed": {0xc1, 0}, "masked": {0x81, 0x80, 0, 0, 0, 0}, "too large": huge, "larger than int": wrap,
	} {
		if _, err := feedAll(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", name, err)
		}
		var single [][]byte
		for i := range b {
			single = append(single, b[i:i+1])
		}
		if _, err := feedAll(single...); !errors.Is(err, errFrame) {
			t.Errorf("%s, byte by byte: %v", name, err)
		}
	}
	stop := errors.New("stop")
	var s stream
	if err := s.feed(frameOf(opText, "x"), func(byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestClientFrame(t *testing.T) {
	for _, size := range []int{0, 5, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte("ab"), size)[:size]
		b := appendClientFrame(nil, opText, payload)
		if b[1]&0x80 == 0 {
			t.Fatal("not masked")
		}
		b[1] &^= 0x80
		need, header, whole, err := frameNeed(append(b, 0, 0, 0, 0))
		if err != nil || !whole || need+4 != len(b) {
			t.Fatalf("%d: %d of %d, %v", size, need, len(b), err)
		}
		key := b[header : header+4]
		for i, c := range b[header+4:] {
			if c^key[i&3] != payload[i] {
				t.Fatalf("%d: byte %d", size, i)
			}
		}
	}
}

// Whatever comes and however it is cut: the same frames, the same error, and what is kept is no longer than what came.
func FuzzFrames(f *testing.F) {
	f.Add(append(frameOf(opText, `{"op":"msg"}`), frameOf(opPing, "p")...), uint16(3), uint16(7))
	f.Add(frameOf(opText, strings.Repeat("x", 70000)), uint16(1), uint16(9))
	f.Add([]byte{0x81, 0xff, 1, 2, 3}, uint16(1), uint16(1))
	f.Add([]byte{0x81, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0x81}, uint16(4), uint16(5))
	f.Fuzz(func(t *testing.T, b []byte, first, second uint16) {
		want, wantErr := feedAll(b)
		i := min(int(first), len(b))
		j := min(i+int(second), len(b))
		got, err := feedAll(b[:i], b[i:j], b[j:])
		if strings.Join(got, "|") != strings.Join(want, "|") || errors.Is(err, errFrame) != errors.Is(wantErr, errFrame) {
			t.Fatalf("%q at %d, %d: %q, %v; whole: %q, %v", b, i, j, got, err, want, wantErr)
		}
		// The naive twin: lengths by hand.
		rest, n := b, 0
		for len(rest) >= 2 && rest[0]&0xf0 == 0x80 && rest[1] <= 127 {
			header, size := 2, uint64(rest[1])
			if size == 126 && len(rest) >= 4 {
				header, size = 4, uint64(rest[2])<<8|uint64(rest[3])
			} else if size == 127 && len(rest) >= 10 {
				header, size = 10, binary.BigEndian.Uint64(rest[2:])
			} else if size >= 126 {
				break
			}
			if size > maxFrame || uint64(len(rest)) < uint64(header)+size {
				break
			}
			if n >= len(want) || want[n] != fmt.Sprintf("%d %s", rest[0]&15, rest[header:header+int(size)]) {
				t.Fatalf("frame %d of %q: %q", n, b, want)
			}
			rest = rest[header+int(size):]
			n++
		}
		if n != len(want) {
			t.Fatalf("%q: %d frames, want %d", b, len(want), n)
		}
		var s stream
		_ = s.feed(b, func(byte, []byte) error { return nil })
		if len(s.carry) > len(b) {
			t.Fatalf("kept %d bytes of %d", len(s.carry), len(b))
		}
	})
}

func TestFramesAllocateNothing(t *testing.T) {
	b := bytes.Repeat(frameOf(opText, strings.Repeat("x", 600)), 20)
	cut := len(b)/2 + 100
	var s stream
	n := 0
	each := func(byte, []byte) error { n++; return nil }
	feed := func() { _, _ = s.feed(b[:cut], each), s.feed(b[cut:], each) }
	feed() // the frame that is cut makes room once
	if allocs := testing.AllocsPerRun(100, feed); allocs != 0 || n == 0 {
		t.Errorf("%v allocations for %d frames", allocs, n)
	}
}

func BenchmarkFrames(b *testing.B) {
	frame, _ := floorFrameForTest(512)
	data := bytes.Repeat(frame, 100)
	var s stream
	var sum uint64
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		_ = s.feed(data, func(_ byte, p []byte) error {
			_, n, _, _, _ := nextStamp(p)
			sum += n
			return nil
		})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/frame")
	_ = sum
}

// floorFrameForTest is a msg frame with a value of size bytes.
func floorFrameForTest(size int) ([]byte, int) {
	p := append([]byte(`{"op":"msg","subject":"/bench/k00000","pos":[0,1,17],"prev":[1,16],"ts":1700000000000,"data":`), appendValue(nil, 1700000000000000000, 17, size)...)
	f := appendServerFrame(nil, append(p, '}'))
	return f, bytes.Index(f, stampBytes)
}
