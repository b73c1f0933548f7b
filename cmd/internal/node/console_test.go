package node

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// askAs gets a page of the admin port with headers; Host is one of them.
func (a *aNode) askAs(t *testing.T, path string, headers map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.node.AdminAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		if k == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	client := http.Client{
		Timeout: waitTime, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// The console's way in, and who is kept out: whatever page a browser shows, only the console's own may act here,
// even where all origins may connect to the clients' port.
func TestConsoleOnTheAdminPort(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 1, nil)
	c := startCluster(t, k, 1, topic, func(cfg *Config) {
		openForPublishing(t, topic)(cfg)
		cfg.AllowedOrigins = []string{"*"}
	})
	a := c.nodes[0]
	addr := a.node.AdminAddr()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}

	browser := map[string]string{"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
	if res, _ := a.askAs(t, "/", browser); res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/console/" || res.Header.Get("Vary") != "Accept" {
		t.Errorf("/ to a browser: %d, %v", res.StatusCode, res.Header)
	}
	if res, body := a.askAs(t, "/", map[string]string{"Accept": "*/*"}); res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") || !strings.Contains(body, "/console/") {
		t.Errorf("/ to curl: %d, %v: %s", res.StatusCode, res.Header, body)
	}
	if res, _ := a.askAs(t, "/console", browser); res.Header.Get("Location") != "/console/" {
		t.Errorf("/console leads to %q", res.Header.Get("Location"))
	}
	if res, body := a.askAs(t, "/console/", browser); res.StatusCode != 200 || !strings.Contains(body, "<title>Tidewire console") || !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("/console/: %d, %v", res.StatusCode, res.Header)
	}
	for _, path := range []string{"/console/", "/console/app.js", "/sessions", "/console/ws", "/debug/pprof/heap"} {
		for host, refused := range map[string]bool{"evil.example": true, "evil.example:" + port: true, "localhost:" + port: false, "127.0.0.1": false, "[::1]:" + port: false} {
			if res, body := a.askAs(t, path, map[string]string{"Host": host}); (res.StatusCode == http.StatusForbidden) != refused {
				t.Errorf("%s for %s: %d %s", path, host, res.StatusCode, body)
			}
		}
	}
	if res, body := a.askAs(t, "/debug/pprof/goroutine", nil); res.StatusCode != 200 || len(body) == 0 {
		t.Errorf("a profile: %d", res.StatusCode)
	}
	if res, _ := a.askAs(t, "/debug/pprof/cmdline", nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("the process's arguments: %d", res.StatusCode)
	}
	// Nor may another name's page change the members.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/members/remove", strings.NewReader(`{"node":"n9"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != http.StatusForbidden {
		t.Errorf("/members/remove for another name: %d", res.StatusCode)
	}
	dial := func(origin string) (*websocket.Conn, int) {
		h := http.Header{}
		if origin != "" {
			h.Set("Origin", origin)
		}
		conn, res, err := websocket.Dial(t.Context(), "ws://"+addr+"/console/ws", &websocket.DialOptions{HTTPHeader: h})
		if err != nil && res == nil {
			t.Fatal(err)
		}
		return conn, res.StatusCode
	}
	for _, origin := range []string{"http://evil.example", "null", "http://localhost:" + port, "http://127.0.0.1:1", "http://" + addr + ".evil.example"} {
		if conn, code := dial(origin); code != http.StatusForbidden {
			t.Errorf("a page of %s may connect: %d", origin, code)
			_ = conn.CloseNow()
		}
	}
	if conn, code := dial(""); conn != nil {
		_ = conn.CloseNow()
	} else {
		t.Errorf("a program may not connect: %d", code)
	}
	conn, code := dial("http://" + addr)
	if conn == nil {
		t.Fatalf("the console's own page may not connect: %d", code)
	}
	defer func() { _ = conn.CloseNow() }()
	w := &wire{c: conn}
	if f, err := w.next(t.Context()); err != nil || f.Op != "welcome" || f.Node != "n1" {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err := w.ask(t.Context(), 1, map[string]any{"op": "sub", "subject": "/" + topic + "/*"}); err != nil || f.Op != "subbed" {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err := w.ask(t.Context(), 2, map[string]any{"op": "pub", "subject": "/" + topic + "/k", "data": 1, "ack": "replicated"}); err != nil || f.Op != "acked" {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err := w.ask(t.Context(), 3, map[string]any{"op": "pub", "subject": "/closed/k", "data": 1}); err != nil || f.Code != "bad_subject" {
		t.Fatalf("%+v, %v", f, err)
	}
	// What it did is in the counters of /status, and it is in the list of sessions.
	eventually(t, "the counters", func() bool {
		s := a.cluster(t).Nodes[0]
		c := s.Counters
		return c != nil && c.Records == 1 && c.RecordBytes == 2 && c.Delivered == 1 && c.DeliveredBytes > 20 && c.Publishes == 1 && c.NotPublished == 1
	})
	var list SessionList
	eventually(t, "the session alone", func() bool {
		list = SessionList{}
		res, body := a.askAs(t, "/sessions", nil)
		return res.StatusCode == 200 && json.Unmarshal([]byte(body), &list) == nil && len(list.Sessions) == 1
	})
	if s := list.Sessions[0]; list.Node != "n1" || s.Subscriptions != 1 || len(s.Furthest) != 1 || s.Furthest[0].Subject != "/"+topic+"/*" || s.Since > list.Now {
		t.Errorf("%+v", list)
	}
	if res, body := a.askAs(t, "/sessions?session="+list.Sessions[0].ID+"&limit=1&subscriptions=0", nil); res.StatusCode != 200 || !strings.Contains(body, `"furthest": []`) {
		t.Errorf("one session: %d %s", res.StatusCode, body)
	}
	for _, query := range []string{"limit=-1", "limit=1001", "limit=x", "offset=1001", "subscriptions=201", "subscriptions=99999999999999999999"} {
		if res, body := a.askAs(t, "/sessions?"+query, nil); res.StatusCode != http.StatusBadRequest || !strings.Contains(body, "want a number from 0 to ") {
			t.Errorf("%s: %d %s", query, res.StatusCode, body)
		}
	}
}
