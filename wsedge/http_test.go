package wsedge

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// request sends a request and returns the answer with its body, as it came.
func (e *edge) request(method, path string, body io.Reader, headers ...string) (*http.Response, []byte) {
	e.t.Helper()
	req, err := http.NewRequest(method, e.url("http", path), body)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	tr := e.transport()
	tr.DisableCompression = true
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, b
}

// refusal fails unless an answer is the error object with a status and a code.
func (e *edge) refusal(what string, resp *http.Response, body []byte, status int, code string) message {
	e.t.Helper()
	var m message
	if err := json.Unmarshal(body, &m); err != nil || resp.StatusCode != status || m.Op != "error" || m.Code != code || m.Message == "" {
		e.t.Errorf("%s: %d %s, want %d %s", what, resp.StatusCode, body, status, code)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		e.t.Errorf("%s: an error of type %s", what, ct)
	}
	if (m.RetryMS > 0) != (resp.Header.Get("Retry-After") != "") {
		e.t.Errorf("%s: retry_ms %d and Retry-After %q", what, m.RetryMS, resp.Header.Get("Retry-After"))
	}
	return m
}

// What is published is what was sent: value, key, headers, mid and ack.
func TestPublishOverHTTP(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	var got bridge.PublishRequest
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		got = r
		return bridge.PublishResult{Partition: 2, Offset: 7, Pos: bridge.Position{Epoch: 3, Seqno: 4}, Duplicate: r.Mid == "again"}, nil
	}
	for _, c := range []struct {
		path, body string
		headers    []string
		want       bridge.PublishRequest
		answer     string
	}{
		{"/publish/one/k", `{"a":1}`, nil, bridge.PublishRequest{Topic: "one", Key: []byte("k"), Value: []byte(`{"a":1}`)}, `{"op":"acked","partition":2,"offset":7,"pos":[2,3,4]}`},
		{"/publish/one", "\x00\xff\n", nil, bridge.PublishRequest{Topic: "one", Value: []byte("\x00\xff\n")}, ""},
		{"/publish/one/", "", nil, bridge.PublishRequest{Topic: "one", Key: []byte{}, Value: []byte{}}, ""},
		{"/publish/one/a//b?ack=replicated&other=1", "x", []string{"Idempotency-Key", "again", "Tidewire-Header-Trace-ID", "é 1", "tidewire-header-b", "", "Content-Type", "image/png"},
			bridge.PublishRequest{Topic: "one", Key: []byte("a//b"), Value: []byte("x"), Mid: "again", Ack: bridge.AckReplicated, Headers: []bridge.Header{{Key: "b", Value: []byte{}}, {Key: "trace-id", Value: []byte("é 1")}}},
			`{"op":"acked","partition":2,"offset":7,"pos":[2,3,4],"duplicate":true}`},
		{"/publish/one/k?ack=kafka", "x", []string{"Content-Encoding", "identity"}, bridge.PublishRequest{Topic: "one", Key: []byte("k"), Value: []byte("x")}, ""},
	} {
		for _, chunked := range []bool{false, true} {
			body := io.Reader(strings.NewReader(c.body))
			if chunked {
				body = struct{ io.Reader }{body}
			}
			resp, b := e.request("POST", c.path, body, c.headers...)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || c.answer != "" && string(b) != c.answer+"\n" {
				t.Errorf("%s: %d %s", c.path, resp.StatusCode, b)
			}
			if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", c.want) {
				t.Errorf("%s: published %#v, want %#v", c.path, got, c.want)
			}
		}
	}
}

// Everything that may be wrong with a publish has its status and its error, and nothing of it is written.
func TestPublishOverHTTPRefused(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.MaxFrameBytes = 2000; c.MaxPublishes = 1 })
	e.node.topic("quiet", TopicView{Partitions: 1, Exposed: true})
	outcomes := map[string]error{
		"large": bridge.ErrTooLarge, "closed": bridge.ErrNotExposed, "refused": &bridge.RejectedError{Err: errors.New("no")},
		"away": &bridge.UnavailableError{RetryAfter: 1200 * time.Millisecond, Err: errors.New("no")},
	}
	hang, begun := make(chan struct{}), make(chan struct{})
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		if string(r.Key) == "hang" {
			close(begun)
			<-hang
		}
		if err := outcomes[string(r.Key)]; err != nil {
			return bridge.PublishResult{}, err
		}
		if len(r.Value) != 2000 && string(r.Key) != "hang" {
			t.Errorf("published %+v", r)
		}
		return bridge.PublishResult{}, nil
	}
	many := []string{}
	for i := range maxOpHeaders + 1 {
		many = append(many, fmt.Sprintf("Tidewire-Header-%d", i), "x")
	}
	for _, c := range []struct {
		path    string
		status  int
		code    string
		headers []string
	}{
		{"/publish", 400, "bad_subject", nil}, {"/publish/", 400, "bad_subject", nil}, {"/publish/a%20b/k", 400, "bad_subject", nil}, {"/publish//k", 400, "bad_subject", nil},
		{"/publish/one/*", 400, "bad_subject", nil}, {"/publish/one/a/*", 400, "bad_subject", nil}, {"/publish/one/%0A", 400, "bad_subject", nil}, {"/publish/one/%FF", 400, "bad_subject", nil},
		{"/publish/one/%2541", 400, "bad_subject", nil}, {"/publish/one/a%25", 400, "bad_subject", nil},
		{"/publish/none/k", 404, "bad_subject", nil}, {"/publish/quiet/k", 404, "bad_subject", nil}, {"/publish/one/closed", 404, "bad_subject", nil},
		{"/publish/one/k?ack=all", 400, "bad_request", nil}, {"/publish/one/k?ack=", 400, "bad_request", nil}, {"/publish/one/k?ack=kafka&ack=kafka", 400, "bad_request", nil},
		{"/publish/one/k", 400, "bad_request", []string{"Idempotency-Key", ""}}, {"/publish/one/k", 400, "bad_request", []string{"Idempotency-Key", strings.Repeat("m", 129)}},
		{"/publish/one/k", 400, "bad_request", []string{"Idempotency-Key", "a", "Idempotency-Key", "a"}}, {"/publish/one/k", 400, "bad_request", []string{"Idempotency-Key", "\xff"}},
		{"/publish/one/k", 400, "bad_request", []string{"Tidewire-Header-", "x"}}, {"/publish/one/k", 400, "bad_request", []string{"Tidewire-Header-A", "x", "Tidewire-Header-a", "x"}},
		{"/publish/one/k", 400, "bad_request", []string{"Tidewire-Header-tidewire-mid", "x"}}, {"/publish/one/k", 400, "bad_request", many},
		{"/publish/one/k", 400, "bad_request", []string{"Content-Encoding", "gzip"}},
		{"/publish/one/large", 413, "too_large", nil}, {"/publish/one/refused", 400, "bad_request", nil}, {"/publish/one/away", 503, "unavailable", nil},
	} {
		resp, b := e.request("POST", c.path, strings.NewReader("x"), c.headers...)
		e.refusal(c.path+fmt.Sprintf("%.60q", c.headers), resp, b, c.status, c.code)
		if c.code == "unavailable" && resp.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q for 1200 ms", resp.Header.Get("Retry-After"))
		}
	}
	// The body is bounded before it is read, or while it is.
	resp, b := e.request("POST", "/publish/one/k", strings.NewReader(strings.Repeat("x", 2001)))
	if m := e.refusal("too large", resp, b, 413, "too_large"); !strings.Contains(m.Message, "2000") {
		t.Errorf("the limit is not in %q", m.Message)
	}
	resp, b = e.request("POST", "/publish/one/k", struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1<<20))})
	e.refusal("too large, in chunks", resp, b, 413, "too_large")
	conn := e.connect()
	defer conn.Close()
	fmt.Fprint(conn, "POST /publish/one/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000000000000\r\n\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line := make([]byte, 12)
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 413" {
		t.Errorf("a body of 9 PB was answered %q, %v", line, err)
	}
	if resp, b := e.request("POST", "/publish/one/k", strings.NewReader(strings.Repeat("x", 2000))); resp.StatusCode != 200 {
		t.Errorf("a value of the size of the limit: %d %s", resp.StatusCode, b)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, b := e.request("POST", "/publish/one/hang", nil); resp.StatusCode != 200 {
			t.Errorf("hung: %d %s", resp.StatusCode, b)
		}
	}()
	<-begun
	resp, b = e.request("POST", "/publish/one/k", strings.NewReader("x"))
	if m := e.refusal("too many", resp, b, 429, "rate_limited"); m.RetryMS < 1 {
		t.Error(m)
	}
	close(hang)
	<-done
	e.srv.SetAway("isolated")
	resp, b = e.request("POST", "/publish/one/k", strings.NewReader("x"))
	e.refusal("away", resp, b, 503, "unavailable")
	resp, b = e.request("GET", "/history/one/k", nil)
	e.refusal("away", resp, b, 503, "unavailable")
}

// Every key has a path: its subject, escaped as URLs are.
func TestKeysInPaths(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	var got []byte
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		got = r.Key
		return bridge.PublishResult{}, nil
	}
	try := func(path, key string) {
		t.Helper()
		conn := e.connect()
		defer conn.Close()
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", path)
		b, _ := io.ReadAll(conn)
		if !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) || string(got) != key {
			t.Errorf("%s: key %q, want %q: %.60s", path, got, key, b)
		}
	}
	for _, key := range []string{"k", "a/b", "a//b", "/", "//", "..", "a/../b", ".", "%", "a%b", "%41", "%2F", "*", "a/*", "a*b", "+", "a+b", "a b", "?", "#", "&=;", "é", "日本", "\x00", "\n\r", "\xff\xfe", "\u0085", `"\`, "a%25"} {
		text := (Subject{Kind: KeySubject, Topic: "one", Key: []byte(key)}).String()
		try("/publish"+(&url.URL{Path: text}).EscapedPath(), key)
		try("/publish/one/"+url.PathEscape(strings.TrimPrefix(text, "/one/")), key) // slashes escaped too
		var all strings.Builder
		for _, c := range []byte(text) {
			fmt.Fprintf(&all, "%%%02x", c)
		}
		try("/publish/"+all.String()[3:], key) // everything escaped but the first slash
	}
	try("/publish/one/a%2525b", "a%b")
	try("/publish/one/%25FF", "\xff")
}

// The newest records, oldest first, from where they lie; the vector goes on where they end.
func TestHistoryOverHTTP(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	put := func(p int32, key string, ts int64) {
		e.node.putRecord("prices", p, bridge.Record{Timestamp: ts, Key: []byte(key), Value: fmt.Append(nil, ts)})
	}
	// As in TestHistory: timestamps go back within partition 1.
	put(0, "a/1", 10)
	put(1, "a/2", 50)
	put(1, "a/3", 20)
	put(2, "b", 30)
	put(0, "a/1", 40)
	e.node.store.Log("prices", 0).AppendGap(cache.Gap{At: bridge.Position{Epoch: 2}, Reason: "truncated"})
	e.node.mu.Lock()
	e.node.part(bridge.TopicPartition{Topic: "prices"}).head = bridge.Position{Epoch: 2}
	e.node.mu.Unlock()
	put(0, "a/1", 60)
	home := bridge.PartitionFor([]byte("k"), 4)
	e.node.putRecord("prices", home, bridge.Record{Timestamp: 70, Key: []byte("k"), Value: []byte("70")})
	e.node.putRecord("prices", home, bridge.Record{Timestamp: 71, Key: []byte("k"), Value: []byte("[\n71]")})
	for _, c := range []struct{ path, want string }{
		{"/prices/*", "10 30 40 50 20 60 70 [71]"}, {"/prices/*?limit=3", "60 70 [71]"}, {"/prices/a/*?limit=2", "40 60"}, {"/prices/a/*?limit=4", "40 50 20 60"},
		{"/prices/a%2F*?limit=1", "60"}, {"/prices/k?limit=1", "[71]"}, {"/prices/k?limit=10000", "70 [71]"}, {"/prices/k?limit=0", ""}, {"/prices/none", ""}, {"/prices", ""},
	} {
		for _, zip := range []string{"", "gzip", "br, gzip;q=0.5", "*", "gzip;q=0", "deflate"} {
			resp, b := e.request("GET", "/history"+c.path, nil, "Accept-Encoding", zip)
			if wants := zip == "gzip" || zip == "*" || strings.HasPrefix(zip, "br"); wants != (resp.Header.Get("Content-Encoding") == "gzip") {
				t.Errorf("%s with %q: %v", c.path, zip, resp.Header)
			} else if wants {
				z, err := gzip.NewReader(bytes.NewReader(b))
				if err != nil {
					t.Fatal(err)
				}
				if b, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			var list []message
			if err := json.Unmarshal(b, &list); err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s: %d, %v: %s", c.path, resp.StatusCode, err, b)
			}
			var got []string
			for _, m := range list {
				if m.Op != "msg" || m.Subject == "" {
					t.Errorf("%s: %+v", c.path, m)
				}
				got = append(got, strings.ReplaceAll(string(m.Data), "\n", ""))
			}
			// Of equal rank in the merge are records of different partitions only.
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %v, want %s", c.path, got, c.want)
			}
			cl := e.dial()
			subject, _, _ := strings.Cut(strings.ReplaceAll(c.path, "%2F", "/"), "?")
			cl.send(`{"op":"sub","subject":%q,"resume":%s}`, subject, resp.Header.Get("Tidewire-Vector"))
			if m := cl.next(); m.Recovered == nil || !*m.Recovered {
				t.Fatalf("%s: the vector %s: %s", c.path, resp.Header.Get("Tidewire-Vector"), m.raw)
			}
			if m := cl.next(); m.Op != "live" {
				t.Fatalf("%s: after the history came %s", c.path, m.raw)
			}
			cl.ws.CloseNow()
		}
	}
	for path, want := range map[string]int{"/history": 400, "/history/": 400, "/history/none/a": 404, "/history/prices/k?limit=10001": 400, "/history/prices/k?limit=-1": 400, "/history/prices/k?limit=": 400, "/history/prices/k?limit=1&limit=1": 400, "/history/prices/%FF": 400} {
		resp, b := e.request("GET", path, nil)
		e.refusal(path, resp, b, want, map[bool]string{true: "bad_request", false: "bad_subject"}[strings.Contains(path, "limit")])
	}
	resp, b := e.request("HEAD", "/history/prices/*", nil)
	if resp.StatusCode != 200 || len(b) != 0 || resp.Header.Get("Tidewire-Vector") == "" {
		t.Errorf("HEAD: %d %v %q", resp.StatusCode, resp.Header, b)
	}
}

// A large history is read while it is written: the memory for it does not grow with it, records that come
// meanwhile are not part of it, and one that loses its place in the midst is broken off, not patched up.
func TestLongHistoryOverHTTP(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 4 << 20, SegmentBytes: 64 << 10}, func(c *Config) { c.SendBuffer = 16 << 10 })
	v := []byte(`"` + strings.Repeat("x", 2000) + `"`)
	for range 1000 {
		e.node.put("one", 0, []byte("k"), v)
	}
	for _, path := range []string{"/one/*", "/one/k"} {
		conn := e.connectWith(16 << 10)
		fmt.Fprintf(conn, "GET /history%s?limit=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		first := make([]byte, 100)
		if _, err := io.ReadFull(conn, first); err != nil {
			t.Fatal(err)
		}
		bounds := e.node.store.Log("one", 0).Bounds()
		for range 4000 { // more than the cache holds
			e.node.put("one", 0, []byte("k"), v)
		}
		if e.node.store.Log("one", 0).Bounds().Start <= bounds.End {
			t.Fatal("the cache holds too much for this test")
		}
		rest, _ := io.ReadAll(conn)
		conn.Close()
		if bytes.HasSuffix(rest, []byte("0\r\n\r\n")) {
			t.Errorf("%s: an answer with a hole has an end: %d bytes", path, len(rest))
		}
	}
	resp, b := e.request("GET", "/history/one/*?limit=1500", nil)
	var list []message
	if err := json.Unmarshal(b, &list); err != nil || resp.StatusCode != 200 || len(list) != 1500 {
		t.Fatalf("%d, %v, %d records", resp.StatusCode, err, len(list))
	}
	for i := range list {
		if i > 0 && list[i].Pos[2] != list[i-1].Pos[2]+1 {
			t.Fatalf("%v after %v", list[i].Pos, list[i-1].Pos)
		}
	}
}

// A history ends where its vector does, whatever has come since it was opened.
func TestHistoryEndsAtItsVector(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	for _, path := range []string{"/one/k", "/one/*", "/one/k*"} {
		e.node.put("one", 0, []byte("k"), value(1))
		h, err := e.srv.openHistory(httptest.NewRequest("GET", "/history"+path, nil), path)
		if err != nil {
			t.Fatal(err)
		}
		e.node.put("one", 0, []byte("k"), value(2))
		w := httptest.NewRecorder()
		if err := h.writeTo(&historyWriter{w: w, rc: http.NewResponseController(w)}); err != nil {
			t.Fatal(err)
		}
		var list []message
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.Pos[2] > uint64(h.vector[0].Seqno) {
				t.Errorf("%s: %v is behind the vector %v", path, m.Pos, h.vector)
			}
		}
	}
}

// Pages of other origins: those of the list, and the same host. CORS where it is asked for, refusals where a
// page may not pass, whatever the path.
func TestCrossOrigin(t *testing.T) {
	for _, c := range []struct {
		allowed, origin string
		ok              bool
		allow           string
	}{
		{"", "", true, ""}, {"", "http://HOST", true, "http://HOST"}, {"", "https://app.example", false, ""}, {"", "null", false, ""}, {"", "http://HOST.evil", false, ""}, {"", "http://HOST@evil.example", false, ""}, {"", "http://evil.example?HOST", false, ""},
		{"https://app.example", "https://app.example", true, "https://app.example"}, {"https://app.example", "HTTPS://APP.example", true, "HTTPS://APP.example"}, {"https://app.example", "http://app.example", false, ""}, {"https://app.example", "https://app.example.evil", false, ""},
		{"*.example", "https://a.example", true, "https://a.example"}, {"*", "https://any.where", true, "*"}, {"*", "null", true, "*"},
	} {
		t.Run(c.allowed+" "+c.origin, func(t *testing.T) {
			e := newEdge(t, cache.Config{}, func(cfg *Config) {
				if c.allowed != "" {
					cfg.AllowedOrigins = []string{c.allowed}
				}
			})
			headers := []string{}
			if c.origin != "" {
				headers = []string{"Origin", strings.ReplaceAll(c.origin, "HOST", e.addr)}
			}
			for _, r := range []struct{ method, path string }{{"POST", "/publish/one/k"}, {"GET", "/history/one/k"}, {"POST", "/publish/none/k"}, {"GET", "/sse?subject=/one/k&resume=x"}, {"DELETE", "/publish/one/k"}} {
				resp, b := e.request(r.method, r.path, nil, headers...)
				if !c.ok {
					e.refusal(r.path, resp, b, 403, "forbidden")
				} else if resp.StatusCode == 403 {
					t.Errorf("%s: %s", r.path, b)
				}
				want := strings.ReplaceAll(c.allow, "HOST", e.addr)
				if got := resp.Header.Get("Access-Control-Allow-Origin"); got != want {
					t.Errorf("%s: Allow-Origin %q, want %q", r.path, got, want)
				}
				if want != "" && !strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "Tidewire-Vector") {
					t.Errorf("%s: %v", r.path, resp.Header)
				}
				if !strings.Contains(strings.Join(resp.Header.Values("Vary"), ","), "Origin") {
					t.Errorf("%s: Vary %v", r.path, resp.Header.Values("Vary"))
				}
			}
			s := e.sourceRaw("GET /sse?subject=/one/k HTTP/1.1\r\nHost: "+e.addr+"\r\n"+strings.ReplaceAll(strings.Join(headers, ": "), "Origin: ", "Origin: ")+map[bool]string{true: "\r\n", false: ""}[c.origin != ""]+"\r\n", 0)
			if (s.status == 200) != c.ok || s.header.Get("Access-Control-Allow-Origin") != strings.ReplaceAll(c.allow, "HOST", e.addr) {
				t.Errorf("sse: %d %v", s.status, s.header)
			}
			resp, _ := e.request("OPTIONS", "/publish/one/k", nil, append(headers, "Access-Control-Request-Method", "POST",
				"Access-Control-Request-Headers", "authorization, Idempotency-Key,tidewire-header-x-y,x-other, tidewire-header-\"")...)
			if !c.ok {
				if resp.StatusCode != 403 {
					t.Errorf("preflight: %d", resp.StatusCode)
				}
				return
			}
			if resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Methods") != "POST" || resp.Header.Get("Access-Control-Allow-Headers") != "authorization, idempotency-key, tidewire-header-x-y" {
				t.Errorf("preflight: %d %v", resp.StatusCode, resp.Header)
			}
		})
	}
}

// A request that names no host is of no host's page.
func TestNoHostIsNotTheSameHost(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	if s := e.sourceRaw("GET /sse?subject=/one/k HTTP/1.0\r\nOrigin: null\r\n\r\n", 0); s.status != http.StatusForbidden {
		t.Errorf("%d", s.status)
	}
}

// Methods and paths that there are not.
func TestWrongMethodsAndPaths(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/publish/one/k", "POST"}, {"PUT", "/publish/one/k", "POST"}, {"DELETE", "/publish/one/k", "POST"}, {"HEAD", "/publish/one/k", "POST"},
		{"POST", "/history/one/k", "GET, HEAD"}, {"POST", "/sse?subject=/one", "GET, HEAD"}, {"PATCH", "/sse", "GET, HEAD"},
	} {
		resp, b := e.request(c.method, c.path, nil)
		if resp.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q", c.method, c.path, resp.Header.Get("Allow"))
		}
		if c.method != "HEAD" {
			e.refusal(c.method+" "+c.path, resp, b, 405, "bad_request")
		} else if resp.StatusCode != 405 || len(b) > 0 {
			t.Errorf("%s %s: %d %q", c.method, c.path, resp.StatusCode, b)
		}
	}
	for _, path := range []string{"/", "/nothing", "/publishx", "/historyx/one", "/sse/", "/ssex", "/ws/", "/%73se"} {
		resp, b := e.request("GET", path, nil)
		e.refusal(path, resp, b, 404, "bad_request")
	}
	if resp, b := e.request("HEAD", "/sse?subject=/one", nil); resp.StatusCode != 200 || len(b) > 0 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD /sse: %d %v", resp.StatusCode, resp.Header)
	}
	for path, status := range map[string]int{"/ws": 426} {
		resp, b := e.request("GET", path, nil)
		e.refusal(path, resp, b, status, "bad_request")
	}
	resp, b := e.request("GET", "/ws", nil, "Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Origin", "http://evil.example")
	e.refusal("origin", resp, b, 403, "forbidden")
}

// A client that is still sending a body when it is refused sees why: the connection is not reset under it. Where the
// connection may be kept open, net/http itself waits before it closes.
func TestRefusedBodyIsReadOut(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.MaxFrameBytes = 64 << 10 })
	until(t, "a body to be sent while it is read out", func() bool { return refusedBodyIsReadOut(t, e) })
}

// refusedBodyIsReadOut is false where the machine stood still for longer than a body is read out.
func refusedBodyIsReadOut(t *testing.T, e *edge) bool {
	const size = 1 << 20
	conn := e.connect()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitTime))
	if _, err := fmt.Fprintf(conn, "POST /publish/one/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", 100)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if _, err := r.Peek(1); err != nil { // it has been refused
		t.Fatal(err)
	}
	refused := time.Now()
	late := func() bool { return time.Since(refused) > readOutTime/2 } // it may have been refused earlier than that was seen
	for sent, piece := 100, size/16; sent < size; sent += piece {
		time.Sleep(5 * time.Millisecond) // time to close the connection for who would
		piece = min(piece, size-sent)
		if _, err := io.WriteString(conn, strings.Repeat("x", piece)); err != nil && late() {
			return false
		} else if err != nil {
			t.Fatalf("the body: %v", err)
		}
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil && late() {
		return false
	} else if err != nil {
		t.Fatalf("the answer: %v", err)
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(body), "too_large") {
		t.Errorf("%d %s %v", res.StatusCode, body, err)
	}
	return true
}
