package wsedge

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tidewire/tidewire/bridge"
)

func TestOpsDecoded(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   func(Op) bool
	}{
		{`{"op":"ping"}`, func(o Op) bool { return o.Kind == OpPing && o.ID == 0 }},
		{`{"op":"ping","id":9007199254740991}`, func(o Op) bool { return o.ID == 1<<53-1 }},
		{`{"\u006fp":"\u0070ing","later":[{}]}`, func(o Op) bool { return o.Kind == OpPing }},
		{`{"op":"auth","token":"x"}`, func(o Op) bool { return o.Token == "x" }},
		{`{"op":"sub","subject":"/a/b","history":-1,"conflate_ms":0,"resume":null}`, func(o Op) bool { return o.History == -1 && !o.Resumed && o.Conflate == 0 }},
		{`{"op":"sub","subject":"/a/b","conflate_ms":3600000}`, func(o Op) bool { return o.Conflate == time.Hour }},
		{`{"op":"sub","subject":"/a/*","resume":[]}`, func(o Op) bool { return o.Resumed && len(o.Resume) == 0 }},
		{`{"op":"sub","subject":"/a/*","resume":[ [3, 7,1233],[0,0,0] ]}`, func(o Op) bool {
			return len(o.Resume) == 2 && o.Resume[0].Partition == 0 && o.Resume[1] == PartitionPosition{3, bridge.Position{Epoch: 7, Seqno: 1233}}
		}},
		{`{"op":"pub","subject":"/a/b"}`, func(o Op) bool { return o.Value == nil && o.Ack == bridge.AckKafka }},
		{`{"op":"pub","subject":"/a","data":{"z": 1.50 ,"a":[null] },"ack":"replicated"}`, func(o Op) bool {
			return string(o.Value) == `{"z": 1.50 ,"a":[null] }` && o.Ack == bridge.AckReplicated && o.Subject.Key == nil
		}},
		{`{"op":"pub","subject":"/a/b","data":null}`, func(o Op) bool { return string(o.Value) == "null" }},
		{`{"op":"pub","subject":"/a/b","text":""}`, func(o Op) bool { return o.Value != nil && len(o.Value) == 0 }},
		{`{"op":"pub","subject":"/a/b","text":"\ud83d\ude00\n"}`, func(o Op) bool { return string(o.Value) == "😀\n" }},
		{`{"op":"pub","subject":"/a/b","b64":"/wA="}`, func(o Op) bool { return string(o.Value) == "\xff\x00" }},
		{`{"op":"pub","subject":"/a/b","mid":"` + strings.Repeat("m", 128) + `","headers":{"k":"v","q":""}}`, func(o Op) bool {
			return len(o.Mid) == 128 && len(o.Headers) == 2 && o.Headers[0].Key == "k" && string(o.Headers[0].Value) == "v" && o.Headers[1].Value != nil
		}},
	} {
		if op, err := DecodeOp([]byte(c.text)); err != nil || !c.ok(op) {
			t.Errorf("%s: %+v, %v", c.text, op, err)
		}
	}
}

func TestOpsRefused(t *testing.T) {
	for _, c := range []struct{ text, code string }{
		{``, codeBadRequest}, {`x`, codeBadRequest}, {`[]`, codeBadRequest}, {`{"op":"ping"`, codeBadRequest}, {`{"op":"ping"} x`, codeBadRequest},
		{`{}`, codeBadRequest}, {`{"op":1}`, codeBadRequest}, {`{"op":"nope"}`, codeBadRequest}, {`{"OP":"ping"}`, codeBadRequest},
		{`{"op":"ping","op":"sub"}`, codeBadRequest},
		{`{"op":"ping","id":0}`, codeBadRequest}, {`{"op":"ping","id":-1}`, codeBadRequest}, {`{"op":"ping","id":9007199254740992}`, codeBadRequest},
		{`{"op":"ping","id":1.0}`, codeBadRequest}, {`{"op":"ping","id":"1"}`, codeBadRequest}, {`{"op":"ping","id":18446744073709551617}`, codeBadRequest},
		{`{"op":"auth"}`, codeBadRequest}, {`{"op":"auth","token":1}`, codeBadRequest},
		{`{"op":"sub"}`, codeBadRequest}, {`{"op":"sub","subject":7}`, codeBadRequest}, {`{"op":"sub","subject":"a"}`, codeBadSubject},
		{`{"op":"sub","subject":"/a/\ud800"}`, codeBadRequest}, {`{"op":"sub","subject":"/a/\udc00\ud800"}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","history":-2}`, codeBadRequest}, {`{"op":"sub","subject":"/a","history":"1"}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","conflate_ms":3600001}`, codeBadRequest}, {`{"op":"sub","subject":"/a","conflate_ms":-1}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","resume":{}}`, codeBadRequest}, {`{"op":"sub","subject":"/a","resume":[1]}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","resume":[[1,2]]}`, codeBadRequest}, {`{"op":"sub","subject":"/a","resume":[[1,2,3,4]]}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","resume":[[1,2,-3]]}`, codeBadRequest}, {`{"op":"sub","subject":"/a","resume":[[1,2,3.5]]}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","resume":[[1,2,3],[1,2,4]]}`, codeBadRequest}, {`{"op":"sub","subject":"/a","resume":[[4294967296,2,3]]}`, codeBadRequest},
		{`{"op":"sub","subject":"/a","resume":[` + strings.Repeat("[0,0,0],", 20000) + `[1,1,1]]}`, codeBadRequest},
		{`{"op":"pub","subject":"/a/*"}`, codeBadSubject}, {`{"op":"pub","subject":"/a","data":1,"text":"x"}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","text":1}`, codeBadRequest}, {`{"op":"pub","subject":"/a","text":"\ud800"}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","b64":"//"}`, codeBadRequest}, {`{"op":"pub","subject":"/a","b64":"_w=="}`, codeBadRequest}, {`{"op":"pub","subject":"/a","b64":"/w\n=="}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","mid":""}`, codeBadRequest}, {`{"op":"pub","subject":"/a","mid":"` + strings.Repeat("m", 129) + `"}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","ack":"all"}`, codeBadRequest}, {`{"op":"pub","subject":"/a","ack":""}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","headers":[]}`, codeBadRequest}, {`{"op":"pub","subject":"/a","headers":{"a":1}}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","headers":{"a":"","\u0061":""}}`, codeBadRequest}, {`{"op":"pub","subject":"/a","headers":{"tidewire-mid":"x"}}`, codeBadRequest},
		{`{"op":"pub","subject":"/a","data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, codeBadRequest},
	} {
		op, err := DecodeOp([]byte(c.text))
		if err == nil {
			t.Errorf("%.100s was taken for %+v", c.text, op)
			continue
		}
		if e := err.(*OpError); e.Code != c.code || e.Message == "" {
			t.Errorf("%.100s: %v", c.text, err)
		}
	}
	_, err := DecodeOp([]byte(`{"op":"nope","id":7}`))
	if e := err.(*OpError); e.ID != 7 {
		t.Errorf("the answer to op 7 has id %d", e.ID)
	}
}

func TestSeveralOpsInAFrame(t *testing.T) {
	frame := []byte("\n {\"op\":\"ping\",\n \"id\":1}\r\n\n{\"op\":\"ping\",\"id\":2} {}\nrubbish\n{\"op\":\"}\\\"\"}\n{\"op\":\"ping\"")
	var got []string
	for len(frame) > 0 {
		var text []byte
		if text, frame = NextOp(frame); len(text) > 0 {
			got = append(got, string(text))
		}
	}
	want := []string{"{\"op\":\"ping\",\n \"id\":1}", `{"op":"ping","id":2} {}`, "rubbish", `{"op":"}\""}`, `{"op":"ping"`}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
}

// Whatever comes, decoding ends, gives an op or an error that can be sent, and takes every byte once.
func FuzzOp(f *testing.F) {
	f.Add([]byte(`{"op":"sub","id":1,"subject":"/a/b","history":3,"resume":[[1,2,3]]}` + "\n" + `{"op":"ping"}`))
	f.Add([]byte(`{"op":"pub","subject":"/a/b","data":{"x":"\ud83d\ude00"},"headers":{"a":"b"},"mid":"m","ack":"kafka"}`))
	f.Add([]byte(`{"op":"pub","subject":"/a","b64":"/w=="}`))
	f.Add([]byte("{\n{\n{"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		total := 0
		for len(frame) > 0 {
			text, rest := NextOp(frame)
			if len(rest) >= len(frame) {
				t.Fatal("no progress")
			}
			total += len(text)
			frame = rest
			if len(text) == 0 {
				continue
			}
			op, err := DecodeOp(text)
			if err != nil {
				e, ok := err.(*OpError)
				if !ok || e.Code == "" || e.Message == "" {
					t.Fatalf("%q: %v", text, err)
				}
				out := appendError(nil, e)
				if payload := out[len(out)-frameLen(out):]; !utf8.Valid(payload[4:]) && utf8.Valid(text) {
					t.Fatalf("%q: an answer that is not UTF-8: %q", text, out)
				}
				continue
			}
			if !json.Valid(text) || op.Kind == 0 || op.ID > maxID || len(op.Mid) > maxMid {
				t.Fatalf("%q: %+v", text, op)
			}
			if op.Subject.Topic != "" && op.Subject.String() != op.Text {
				t.Fatalf("%q: %+v", text, op)
			}
		}
	})
}
