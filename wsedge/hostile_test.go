package wsedge

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// hostileTexts would end a string, a line, an event, a script or a terminal's colour, where somebody forgot that
// they are data.
var hostileTexts = []string{
	`"`, `\`, `\"`, `"},{"op":"bye"}`, `","op":"bye","x":"`, "\n", "\r", "\r\n", "\n\n", "\x00", "a\x00b", "\u2028", "\u2029", "\u0085", "\x7f", "\x1b[31m\x1b]0;pwned\x07",
	"\n\ndata: {\"op\":\"bye\"}\n\n", "data: x", "\nid: 1AAAAAA\n", "\nevent: bye\n", "\nretry: 1\n", ": x", "\ufeff",
	"</script><script>alert(1)</script>", "<!--", "]]>", "\xff", "\xc3", "a\xe2\x80", "\xed\xa0\x80", "\xed\xb0\x80 \xed\xa0\xbd", "\xf0\x9f\x98\x80", "\xc0\x80", "\xf5\x80\x80\x80",
	`\ud800`, `\u0000`, "%00%0a", "/*", "*", "%2A", strings.Repeat("\x00\xff\"", 1000),
}

// Whatever the keys, values and headers of records hold, a client gets a frame of one JSON object, over WebSocket
// as over SSE, in which the bytes are what they were, and nothing but this frame.
func TestHostileRecordsComeBack(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dial()
	c.send(`{"op":"sub","id":1,"subject":"/one/*"}`)
	if m := c.next(); m.Op != "subbed" {
		t.Fatal(m.raw)
	}
	c.expect(`{"op":"live","subject":"/one/*"}`)
	s := e.source("", "subject", "/one/*")
	s.want("subbed")
	s.want("live")
	for i, h := range hostileTexts {
		var values [][]byte
		for _, v := range []string{h, h + "x" + h, `"` + h + `"`, "[1," + h + "]", "[1," + h + "2]", "{\"a\":\"" + h + "\"}"} {
			values = append(values, []byte(v))
		}
		for _, v := range values {
			r := bridge.Record{Key: []byte(h), Value: v, Headers: []bridge.Header{
				{Key: "h" + h, Value: []byte(h)}, {Key: "plain", Value: []byte(h + "\n" + h)}, {Key: "none" + h, Value: nil},
			}}
			e.node.putRecord("one", 0, r)
			sameRecord(t, fmt.Sprintf("WebSocket, %d", i), r, c.next())
			sameRecord(t, fmt.Sprintf("SSE, %d", i), r, s.want("msg").message)
		}
	}
	c.send(`{"op":"ping","id":2}`)
	c.expect(`{"op":"pong","id":2}`) // nothing else has come
}

// sameRecord compares a message with the record that it is of.
func sameRecord(t *testing.T, what string, r bridge.Record, m message) {
	t.Helper()
	if m.Op != "msg" || !utf8.ValidString(m.raw) || !json.Valid([]byte(m.raw)) {
		t.Fatalf("%s: %q", what, m.raw)
	}
	subject, err := ParseSubject(m.Subject)
	if err != nil || !bytes.Equal(subject.Key, r.Key) {
		t.Errorf("%s: the key %q came as %q: %v", what, r.Key, m.Subject, err)
	}
	switch {
	case m.Text != nil:
		if *m.Text != string(r.Value) {
			t.Errorf("%s: %q came as the text %q", what, r.Value, *m.Text)
		}
	case m.B64 != nil:
		if b, err := base64.StdEncoding.DecodeString(*m.B64); err != nil || !bytes.Equal(b, r.Value) {
			t.Errorf("%s: %q came as the bytes %q", what, r.Value, b)
		}
	default:
		var got, want any
		if json.Unmarshal(m.Data, &got) != nil || json.Unmarshal(r.Value, &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %q came as the data %q", what, r.Value, m.Data)
		}
	}
	var headers map[string]json.RawMessage
	if err := json.Unmarshal(m.Headers, &headers); err != nil || len(headers) != len(r.Headers) {
		t.Fatalf("%s: %d headers came as %q", what, len(r.Headers), m.Headers)
	}
	for _, h := range r.Headers {
		raw, ok := headers[strings.ToValidUTF8(h.Key, "\ufffd")]
		if !ok { // each byte that is no UTF-8 may be replaced for itself
			raw, ok = headers[string([]rune(h.Key))]
		}
		var text *string
		var other struct {
			B64 []byte `json:"b64"`
		}
		switch {
		case !ok:
			t.Errorf("%s: there is no header %q in %s", what, h.Key, m.Headers)
		case h.Value == nil:
			if string(raw) != "null" {
				t.Errorf("%s: the header %q came as %s", what, h.Key, raw)
			}
		case json.Unmarshal(raw, &text) == nil && text != nil:
			if *text != string(h.Value) {
				t.Errorf("%s: the header %q came as the text %q", what, h.Key, *text)
			}
		case json.Unmarshal(raw, &other) != nil || !bytes.Equal(other.B64, h.Value):
			t.Errorf("%s: the header %q came as %s", what, h.Key, raw)
		}
	}
}

// lockedBuffer is a log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// Whatever clients and records say, a line of the log is one JSON object, or for people a line without anything
// that a terminal would obey.
func TestHostileLogLines(t *testing.T) {
	var asJSON, asText lockedBuffer
	log := zerolog.New(zerolog.MultiLevelWriter(&asJSON, zerolog.ConsoleWriter{Out: &asText, NoColor: true})).Level(zerolog.TraceLevel)
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Logger = log })
	for _, h := range hostileTexts {
		if len(h) > 100 {
			continue // a subject has an end
		}
		subject, err := json.Marshal("/one/" + h)
		if err != nil {
			t.Fatal(err)
		}
		c := e.dial()
		c.send(`{"op":"sub","id":1,"subject":%s}`, subject)
		c.next()
		c.send(`{"op":%s}`, subject)
		c.next()
		_ = c.ws.Close(websocket.StatusNormalClosure, strings.ToValidUTF8(h, "?"))
		resp, err := http.Get("http://" + e.addr + "/history/one/" + strings.ReplaceAll(fmt.Sprintf("%%%x", h), "\x00", "") + "?limit=" + fmt.Sprintf("%%%02x", h[0]))
		if err == nil {
			_ = resp.Body.Close()
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.addr+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Origin": {"http://" + strings.Map(printable, h)}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "User-Agent": {strings.Map(printable, h)}}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	until(t, "the sessions to end", func() bool { return e.srv.Stats().Connections == 0 })
	e.srv.Close() // the last line is written after that
	asJSON.mu.Lock()
	defer asJSON.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(asJSON.b.String(), "\n"), "\n")
	if len(lines) < len(hostileTexts)-1 {
		t.Errorf("%d lines were logged", len(lines))
	}
	for _, line := range lines {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %q", err, line)
		}
	}
	asText.mu.Lock()
	defer asText.mu.Unlock()
	text := asText.b.String()
	if got := strings.Count(text, "\n"); got != len(lines) {
		t.Errorf("%d lines for people, %d otherwise", got, len(lines))
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x7f || r == 0x2028) }); i >= 0 {
		t.Errorf("a control character is in %q", text[max(0, i-50):i+10])
	}
}

// printable leaves out what an HTTP client does not send in a header.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == utf8.RuneError {
		return -1
	}
	return r
}
