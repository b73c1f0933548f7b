package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// The section "The same over HTTP", as a client's author reads it.

// stream is one connection to /sse of a test that fails as soon as anything is not as expected.
type stream struct {
	t      *testing.T
	r      *bufio.Reader
	lastID string
	res    *http.Response
}

func openStream(t *testing.T, addr, lastID string, query url.Values) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	t.Cleanup(cancel)
	res, err := source(ctx, addr, lastID, query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return &stream{t: t, r: bufio.NewReader(res.Body), res: res}
}

func (s *stream) next() (serverEvent, *frame) {
	s.t.Helper()
	for {
		ev, err := readEvent(s.r)
		if err != nil {
			s.t.Fatalf("stream: %v", err)
		}
		if ev.id == "" {
			s.t.Fatalf("an event without an id: %+v", ev)
		}
		s.lastID = ev.id
		f := parse(s.t, []byte(ev.data))
		if f.Op != ev.name {
			s.t.Fatalf("event %s is %s", ev.name, ev.data)
		}
		if f.Op != "hb" {
			return ev, f
		}
	}
}

// backlog returns the records up to the live of each of n subjects.
func (s *stream) backlog(n int) (msgs []*frame) {
	s.t.Helper()
	for n > 0 {
		switch _, f := s.next(); f.Op {
		case "msg":
			msgs = append(msgs, f)
		case "live":
			n--
		case "subbed":
		default:
			s.t.Fatalf("in the backlog: %+v", f)
		}
	}
	return msgs
}

// A stream of several subjects: history, live, msg; the object of an event is the frame of a WebSocket, byte for
// byte; its id resumes all of them, by header and by query.
func protocolSSE(t *testing.T, c *aCluster, topic string) {
	fill(t, c, topic, "a", 3)
	fill(t, c, topic, "b/c", 3)
	query := url.Values{"subject": {"/" + topic + "/a", "/" + topic + "/b/*"}, "history": {"2"}}
	s := openStream(t, c.addr(0), "", query)
	if ct := s.res.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %s", ct)
	}
	got := map[string]string{}
	for _, m := range s.backlog(2) {
		got[m.Subject] += m.value() + " "
	}
	if got["/"+topic+"/a"] != "v1 v2 " || got["/"+topic+"/b/c"] != "v1 v2 " {
		t.Errorf("history: %v", got)
	}
	ws := dial(t, c.addr(0))
	ws.sub("/"+topic+"/*", "")
	ws.want("live")
	pub := dial(t, c.addr(0))
	for _, fields := range []string{`"data":{"x":[1, 2]},"headers":{"h":"v"}`, `"text":"line\nbreak\r\u0000"`, `"b64":"/w=="`, ``} {
		if fields != "" {
			fields = "," + fields
		}
		pub.ask(`"op":"pub","subject":"/%s/a"%s`, topic, fields)
		ev, _ := s.next()
		if b := ws.bytes(); ev.data != string(b) {
			t.Errorf("event %s, WebSocket %s", ev.data, b)
		}
	}
	// JSON with line breaks between its tokens comes as the same JSON.
	var want, have any
	kafkatest.NewProducer(t, c.kafka.brokers).Produce(&kafkatest.Record{Topic: topic, Key: []byte("a"), Value: []byte("{\n \"x\":\r\n[1,\n\n2]}")})
	ev, f := s.next()
	if json.Unmarshal([]byte(`{"x":[1,2]}`), &want) != nil || json.Unmarshal(f.Data, &have) != nil || fmt.Sprint(want) != fmt.Sprint(have) {
		t.Errorf("%s", ev.data)
	}
	id := s.lastID
	if escaped := url.QueryEscape(id); escaped != id {
		t.Errorf("the id %q has to be escaped", id)
	}
	_ = s.res.Body.Close()
	fill(t, c, topic, "a", 1)
	fill(t, c, topic, "b/c", 1)
	for _, byQuery := range []bool{false, true} {
		q, header := url.Values{"subject": query["subject"]}, id
		if byQuery {
			q.Set("resume", id)
			header = ""
		}
		s := openStream(t, c.addr(0), header, q)
		if msgs := s.backlog(2); len(msgs) != 2 || msgs[0].Subject == msgs[1].Subject {
			t.Errorf("resumed (query: %v): %v", byQuery, values(msgs))
		}
		_ = s.res.Body.Close()
	}
	for _, q := range []string{"", "subject=/" + topic + "&resume=rubbish", "subject=nothing"} {
		res, body := httpDo(t, c, http.MethodGet, "/sse?"+q, nil, nil)
		refusedHTTP(t, q, res, body, http.StatusBadRequest, "")
	}
}

func httpDo(t *testing.T, c *aCluster, method, target string, body io.Reader, header http.Header) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+c.addr(0)+target, body)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	res, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

// refusedHTTP fails unless an answer is an error object of a status, and of a code if one is named.
func refusedHTTP(t *testing.T, what string, res *http.Response, body []byte, status int, code string) {
	t.Helper()
	var f frame
	if err := json.Unmarshal(body, &f); err != nil || res.StatusCode != status || f.Op != "error" || code != "" && f.Code != code || f.Message == "" {
		t.Errorf("%s: %d %s, want %d %s", what, res.StatusCode, body, status, code)
	}
}

// What is posted is in Kafka as it was sent, once for each Idempotency-Key, and the answer is true.
func protocolPublishOverHTTP(t *testing.T, c *aCluster, topic string) {
	var offset int64
	for _, tc := range []struct {
		target, key, value string
		header             http.Header
	}{
		{"/k", "k", `{"a": 1}`, nil}, {"/k?ack=kafka", "k", "", nil}, {"/a/b?ack=replicated", "a/b", "\x00\xff", http.Header{"Tidewire-Header-Trace": {"x"}}},
		{"/a%2525b", "a%b", "x", http.Header{"Idempotency-Key": {"m1"}}}, {"/", "", "x", nil}, {"/%25FF%E2%82%AC", "\xff€", "x", nil}, {"", "<null>", "x", nil},
	} {
		res, body := httpDo(t, c, http.MethodPost, "/publish/"+topic+tc.target, strings.NewReader(tc.value), tc.header)
		f := parse(t, body)
		if res.StatusCode != http.StatusOK || f.Op != "acked" || f.Offset != offset || f.Partition != 0 || strings.Contains(tc.target, "replicated") && len(f.Pos) != 3 {
			t.Fatalf("%s: %d %s", tc.target, res.StatusCode, body)
		}
		offset++
		r := lastRecord(t, c, topic)
		key := string(r.Key)
		if r.Key == nil {
			key = "<null>"
		}
		if key != tc.key || r.Value == nil || string(r.Value) != tc.value {
			t.Errorf("%s: in Kafka %q, %q (null: %v)", tc.target, key, r.Value, r.Value == nil)
		}
		if tc.header.Get("Tidewire-Header-Trace") != "" && (len(r.Headers) != 1 || r.Headers[0].Key != "trace" || string(r.Headers[0].Value) != "x") {
			t.Errorf("headers in Kafka: %v", r.Headers)
		}
	}
	for range 2 {
		res, body := httpDo(t, c, http.MethodPost, "/publish/"+topic+"/a%2525b", strings.NewReader("other"), http.Header{"Idempotency-Key": {"m1"}})
		if f := parse(t, body); res.StatusCode != http.StatusOK || !f.Duplicate || f.Offset != 3 {
			t.Errorf("the same Idempotency-Key: %d %s", res.StatusCode, body)
		}
	}
	k := dial(t, c.addr(0))
	if f := k.ask(`"op":"pub","subject":"/%s/a%%25b","data":1,"mid":"m1"`, topic); !f.Duplicate {
		t.Errorf("the same mid by WebSocket: %+v", f)
	}
	for target, status := range map[string]int{"/*": 400, "/a/*": 400, "/%0A": 400, "/k?ack=all": 400} {
		res, body := httpDo(t, c, http.MethodPost, "/publish/"+topic+target, strings.NewReader("x"), nil)
		refusedHTTP(t, target, res, body, status, "")
	}
	res, body := httpDo(t, c, http.MethodPost, "/publish/nothing/k", strings.NewReader("x"), nil)
	refusedHTTP(t, "no topic", res, body, http.StatusNotFound, "bad_subject")
	res, body = httpDo(t, c, http.MethodPost, "/publish/"+topic+"/k", bytes.NewReader(make([]byte, 1<<20+1)), nil)
	refusedHTTP(t, "too large", res, body, http.StatusRequestEntityTooLarge, "too_large")
	if n := len(kafkatest.ReadCommitted(t, c.kafka.brokers, topic)); int64(n) != offset {
		t.Errorf("%d records in Kafka, want %d", n, offset)
	}
}

// The cached records, oldest first, and the vector after them.
func protocolHistoryOverHTTP(t *testing.T, c *aCluster, topic string) {
	written := fill(t, c, topic, "k", 5)
	for target, want := range map[string]string{
		"/k": "v0 v1 v2 v3 v4", "/k?limit=2": "v3 v4", "/*?limit=3": "v2 v3 v4", "/k?limit=0": "", "/none": "", "": "",
	} {
		for _, zip := range []string{"identity", "gzip"} {
			res, body := httpDo(t, c, http.MethodGet, "/history/"+topic+target, nil, http.Header{"Accept-Encoding": {zip}})
			if res.Header.Get("Content-Encoding") == "gzip" != (zip == "gzip") {
				t.Errorf("asked for %s: %v", zip, res.Header)
			}
			if zip == "gzip" {
				z, err := gzip.NewReader(bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			var msgs []*frame
			if err := json.Unmarshal(body, &msgs); err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %v %s", target, res.StatusCode, err, body)
			}
			if values(msgs) != want {
				t.Errorf("%s: %q, want %q", target, values(msgs), want)
			}
			for i, m := range msgs {
				if m.Op != "msg" || fmt.Sprint(m.Pos) != fmt.Sprint(written[5-len(msgs)+i].Pos) {
					t.Errorf("%s: record %d is %+v", target, i, m)
				}
			}
			subject, _, _ := strings.Cut("/"+topic+target, "?")
			k := dial(t, c.addr(0))
			f := k.sub(subject, `,"resume":`+res.Header.Get("Tidewire-Vector"))
			if f.Recovered == nil || !*f.Recovered || len(k.backlog(subject)) != 0 {
				t.Errorf("%s: the vector %s: %+v", target, res.Header.Get("Tidewire-Vector"), f)
			}
		}
	}
	res, body := httpDo(t, c, http.MethodGet, "/history/nothing/k", nil, nil)
	refusedHTTP(t, "no topic", res, body, http.StatusNotFound, "bad_subject")
	res, body = httpDo(t, c, http.MethodGet, "/history/"+topic+"/k?limit=x", nil, nil)
	refusedHTTP(t, "limit", res, body, http.StatusBadRequest, "bad_request")
}

// At most one record a key and interval, always the newest, never reordered; the last one always comes.
func protocolConflation(t *testing.T, c *aCluster, topic string) {
	const every = 200 * time.Millisecond
	ws := dial(t, c.addr(0))
	ws.sub("/"+topic+"/*", fmt.Sprintf(`,"conflate_ms":%d`, every.Milliseconds()))
	ws.want("live")
	sse := openStream(t, c.addr(0), "", url.Values{"subject": {"/" + topic + "/*"}, "conflate_ms": {fmt.Sprint(every.Milliseconds())}})
	sse.backlog(1)
	start := time.Now()
	last := map[string]string{}
	p := kafkatest.NewProducer(t, c.kafka.brokers)
	for i := range 400 {
		key := fmt.Sprintf("k%d", i%3)
		last["/"+topic+"/"+key] = fmt.Sprintf("v%d", i)
		p.Produce(&kafkatest.Record{Topic: topic, Key: []byte(key), Value: fmt.Appendf(nil, "v%d", i)})
	}
	for name, next := range map[string]func() *frame{"WebSocket": ws.next, "SSE": func() *frame { _, f := sse.next(); return f }} {
		got, count, at := map[string]string{}, map[string]int{}, []uint64(nil)
		for fmt.Sprint(got) != fmt.Sprint(last) {
			m := next()
			if m.Op != "msg" || at != nil && !after(m.Pos, at) {
				t.Fatalf("%s: %+v after %v", name, m, at)
			}
			at, got[m.Subject] = m.Pos, m.value()
			count[m.Subject]++
		}
		for subject, n := range count {
			if most := int(time.Since(start)/every) + 2; n > most {
				t.Errorf("%s: %s came %d times, in %v", name, subject, n, time.Since(start))
			}
		}
	}
	if _, err := source(t.Context(), c.addr(0), "", url.Values{"subject": {"/" + topic}, "conflate_ms": {"-1"}}); err == nil || errors.Is(err, context.Canceled) {
		t.Error("conflate_ms -1 is taken")
	}
}
