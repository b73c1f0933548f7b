package wsedge

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidewire/tidewire/bridge"
)

func encode(formats map[string]Format, r bridge.Record, prev *bridge.Position) string {
	p, has := bridge.Position{}, prev != nil
	if has {
		p = *prev
	}
	frame := NewFrameEncoder(formats).AppendMsg([]byte("before"), bridge.TopicPartition{Topic: "t", Partition: 3}, r, bridge.Position{Epoch: 7, Seqno: 9}, p, has)
	frame = frame[len("before"):]
	if frame[0] != headText || frameLen(frame) != len(frame) {
		return fmt.Sprintf("a broken frame: %x", frame[:min(20, len(frame))])
	}
	switch frame[1] {
	case 126:
		return string(frame[4:])
	case 127:
		return string(frame[10:])
	}
	return string(frame[2:])
}

func TestMsgFrames(t *testing.T) {
	deep := strings.Repeat("[", 20000) + strings.Repeat("]", 20000)
	for _, c := range []struct {
		name    string
		formats map[string]Format
		r       bridge.Record
		want    string
	}{
		{"json", nil, bridge.Record{Key: []byte("k"), Value: []byte(" {\n\"a\": 1}")}, `{"op":"msg","subject":"/t/k","pos":[3,7,9],"ts":0,"data": {` + "\n" + `"a": 1}}`},
		{"text", nil, bridge.Record{Value: []byte("a\"\\\n\x01ü")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"text":"a\"\\\n\u0001ü"}`},
		{"empty", nil, bridge.Record{Key: []byte{}, Value: []byte{}}, `{"op":"msg","subject":"/t/","pos":[3,7,9],"ts":0,"text":""}`},
		{"bytes", nil, bridge.Record{Value: []byte("\xff")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"b64":"/w=="}`},
		{"bytes in a JSON string", nil, bridge.Record{Value: []byte("\"\xff\"")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"b64":"Iv8i"}`},
		{"tombstone", nil, bridge.Record{Timestamp: 1700000000000}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":1700000000000,"null":true}`},
		{"escapes", nil, bridge.Record{Key: []byte("\"\\%*/*/\x00\xff\u0085"), Value: []byte("1")}, `{"op":"msg","subject":"/t/\"\\%25*/%2A/%00%FF%C2%85","pos":[3,7,9],"ts":0,"data":1}`},
		{"headers", nil, bridge.Record{Value: []byte("1"), Headers: []bridge.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("\xff")}, {Key: "a", Value: []byte("2")}, {Key: "c"}, {Key: "tidewire-mid", Value: []byte("m")}}},
			`{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"data":1,"headers":{"b":{"b64":"/w=="},"a":"2","c":null}}`},
		{"own headers only", nil, bridge.Record{Value: []byte("1"), Headers: []bridge.Header{{Key: "tidewire-mid", Value: []byte("m")}}}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"data":1}`},
		{"pinned text", map[string]Format{"t": FormatText}, bridge.Record{Value: []byte("1")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"text":"1"}`},
		{"pinned text, bytes", map[string]Format{"t": FormatText}, bridge.Record{Value: []byte("\xff")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"b64":"/w=="}`},
		{"pinned binary", map[string]Format{"t": FormatBinary}, bridge.Record{Value: []byte("1")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"b64":"MQ=="}`},
		{"pinned json, text", map[string]Format{"t": FormatJSON}, bridge.Record{Value: []byte("x")}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"text":"x"}`},
		{"too deep", nil, bridge.Record{Value: []byte(deep)}, `{"op":"msg","subject":"/t","pos":[3,7,9],"ts":0,"text":"` + deep + `"}`},
	} {
		got := encode(c.formats, c.r, nil)
		if got != c.want || !utf8.ValidString(got) || !json.Valid([]byte(got)) {
			t.Errorf("%s: got\n%.300s\nwant\n%.300s", c.name, got, c.want)
		}
	}
	if got := encode(nil, bridge.Record{Value: []byte("1")}, &bridge.Position{Epoch: 7, Seqno: 1}); !strings.Contains(got, `"prev":[7,1],`) {
		t.Error(got)
	}
}

// The three lengths of a frame's header, and their edges.
func TestFrameLengths(t *testing.T) {
	short := len(encode(nil, bridge.Record{Value: []byte(`""`)}, nil))
	for _, total := range []int{short, 125, 126, 127, 65535, 65536, 200000} {
		v := `"` + strings.Repeat("x", total-short) + `"`
		if got := encode(nil, bridge.Record{Value: []byte(v)}, nil); len(got) != total || !strings.HasSuffix(got, v+"}") {
			t.Errorf("%d: %d, %.100s", total, len(got), got)
		}
	}
}

// A hostile record costs no more than its length.
func TestHostileRecordsAreLinear(t *testing.T) {
	began := time.Now()
	headers := make([]bridge.Header, 100000)
	for i := range headers {
		headers[i] = bridge.Header{Key: fmt.Sprint(i % 50000), Value: []byte("v")}
	}
	encode(nil, bridge.Record{Value: []byte(strings.Repeat(`[{"a":`, 1<<19)), Key: []byte(strings.Repeat("\"*/", 20000)), Headers: headers}, nil)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}

// Whatever a record holds, its frame is one whole frame of UTF-8 JSON from which key and value come back.
func FuzzMsg(f *testing.F) {
	f.Add([]byte("k"), []byte(`{"a":1}`), "h", []byte("v"))
	f.Add([]byte("\"\\*/*"), []byte("\xff"), "\xff", []byte("\xfe"))
	f.Fuzz(func(t *testing.T, key, value []byte, hk string, hv []byte) {
		got := encode(nil, bridge.Record{Key: key, Value: value, Headers: []bridge.Header{{Key: hk, Value: hv}}}, nil)
		var m message
		if !utf8.ValidString(got) || json.Unmarshal([]byte(got), &m) != nil {
			t.Fatalf("%q", got)
		}
		if len(key) < 10000 {
			s, err := ParseSubject(m.Subject)
			if err != nil || string(s.Key) != string(key) {
				t.Fatalf("%q: %v", m.Subject, err)
			}
		}
	})
}
