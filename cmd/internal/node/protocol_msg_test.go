package node

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/wsedge"
)

// The value is in data if it is JSON, in text if it is other valid UTF-8, in b64 if neither; null has none.
func TestProtocolMsgForms(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	free, asText, asBinary, asJSON := k.topic(t, 1, nil), "pinned-text", "pinned-binary", "pinned-json"
	for _, topic := range []string{asText, asBinary, asJSON} {
		k.create(t, topic, 1, nil)
	}
	c := startCluster(t, k, 1, strings.Join([]string{free, asText, asBinary, asJSON}, ","), func(cfg *Config) {
		cfg.Formats = map[string]wsedge.Format{asText: wsedge.FormatText, asBinary: wsedge.FormatBinary, asJSON: wsedge.FormatJSON}
	})
	p := kafkatest.NewProducer(t, k.brokers)
	conns := map[string]*talk{}
	for _, topic := range []string{free, asText, asBinary, asJSON} {
		conns[topic] = dial(t, c.addr(0))
		conns[topic].sub("/"+topic+"/*", "")
		conns[topic].want("live")
	}
	for _, tc := range []struct{ topic, value, form string }{
		{free, `{"a":1}`, "data"}, {free, " { \"a\" :\n[1, 2] }\r\n", "data"}, {free, `7`, "data"}, {free, `"s"`, "data"}, {free, `null`, "data"},
		{free, `1e999`, "data"}, {free, `12345678901234567890123`, "data"}, {free, `"\ud800"`, "data"}, {free, `{"a":1,"a":2}`, "data"},
		{free, `hello`, "text"}, {free, ``, "text"}, {free, "a\x00b\x1f\u2028\"\\", "text"}, {free, "\ufeff{}", "text"}, {free, `01`, "text"},
		{free, `NaN`, "text"}, {free, `{} {}`, "text"}, {free, "\"a\nb\"", "text"}, {free, "\xff", "b64"}, {free, "{\"a\":\"\xff\"}", "b64"},
		{free, "\xed\xa0\x80", "b64"},
		{asText, `{"a":1}`, "text"}, {asText, `x`, "text"}, {asBinary, `{"a":1}`, "b64"}, {asBinary, "\xff", "b64"}, {asBinary, "", "b64"}, {asJSON, `{"a":1}`, "data"},
	} {
		p.Produce(&kafkatest.Record{Topic: tc.topic, Key: []byte("k"), Value: []byte(tc.value)})
		b := conns[tc.topic].bytes()
		var m map[string]json.RawMessage
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatalf("%q: not JSON: %q", tc.value, b)
		}
		for _, form := range []string{"data", "text", "b64", "null", "headers"} {
			if _, there := m[form]; there != (form == tc.form) {
				t.Errorf("%s %q: %s is there: %v: %s", tc.topic, tc.value, form, there, b)
			}
		}
		got := ""
		switch f := parse(t, b); tc.form {
		case "data":
			got = string(m["data"])
			if strings.TrimSpace(tc.value) != got && !jsonEqual(t, tc.value, got) {
				t.Errorf("%q came as data %q", tc.value, got)
			}
			continue
		case "text":
			got = *f.Text
		case "b64":
			got = string(f.B64)
		}
		if got != tc.value {
			t.Errorf("%q came as %s %q", tc.value, tc.form, got)
		}
	}
	// What a pinned form cannot hold still arrives, whole.
	for _, tc := range []struct{ topic, value string }{{asText, "\xff\xfe"}, {asJSON, "no json"}, {asJSON, "\xff"}, {asJSON, ""}} {
		p.Produce(&kafkatest.Record{Topic: tc.topic, Key: []byte("k"), Value: []byte(tc.value)})
		if f := parse(t, conns[tc.topic].bytes()); f.value() != tc.value {
			t.Errorf("%s %q came as %q", tc.topic, tc.value, f.value())
		}
	}
	for topic, conn := range conns {
		p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("k")})
		b := string(conn.bytes())
		if !strings.Contains(b, `"null":true`) || strings.Contains(b, `"data"`) || strings.Contains(b, `"text"`) || strings.Contains(b, `"b64"`) {
			t.Errorf("%s: a tombstone came as %s", topic, b)
		}
	}
	// Nested too deep for most decoders.
	deep := strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)
	p.Produce(&kafkatest.Record{Topic: free, Key: []byte("k"), Value: []byte(deep)})
	if b := conns[free].bytes(); len(b) < len(deep) {
		t.Errorf("a deep value came as %d bytes", len(b))
	}
}

func jsonEqual(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y json.RawMessage
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil &&
		strings.Join(strings.Fields(string(x)), "") == strings.Join(strings.Fields(string(y)), "")
}

func protocolMsgFields(t *testing.T, c *aCluster, topic string) {
	p := kafkatest.NewProducer(t, c.kafka.brokers)
	var conns []*talk
	for _, subject := range []string{"/k", "/k", "/*"} {
		k := dial(t, c.addr(0))
		k.sub("/"+topic+subject, "")
		k.want("live")
		conns = append(conns, k)
	}
	for i, headers := range [][]kgo.RecordHeader{
		nil, {{Key: "a", Value: []byte("b")}}, {{Key: "bytes", Value: []byte{0xff}}, {Key: "é\"", Value: []byte("")}}, {{Key: "null", Value: nil}},
		{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}, {{Key: "\xff", Value: []byte("x")}},
	} {
		p.Produce(&kafkatest.Record{Topic: topic, Key: []byte("k"), Value: []byte("1"), Headers: headers, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))})
	}
	var prev *frame
	for i := range 6 {
		b := conns[0].bytes()
		for _, other := range conns[1:] {
			if o := other.bytes(); string(o) != string(b) {
				t.Errorf("the bytes depend on who receives them: %s and %s", b, o)
			}
		}
		f := parse(t, b)
		if f.Op != "msg" || f.Subject != "/"+topic+"/k" || f.TS != 1_700_000_000_000+int64(i) || len(f.Pos) != 3 {
			t.Errorf("record %d: %s", i, b)
		}
		if prev != nil && (len(f.Prev) != 2 || f.Prev[0] != prev.Pos[1] || f.Prev[1] != prev.Pos[2]) {
			t.Errorf("record %d: prev %v, want %v", i, f.Prev, prev.Pos)
		}
		prev = f
		h := string(mustField(t, b, "headers"))
		if want := []string{"", `{"a":"b"}`, `{"bytes":{"b64":"/w=="},"é\"":""}`}; i < len(want) && h != want[i] {
			t.Errorf("record %d: headers %s, want %s", i, h, want[i])
		}
	}
}

func mustField(t *testing.T, b []byte, name string) json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return m[name]
}
