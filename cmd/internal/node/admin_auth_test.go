package node

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

const testToken = "0123456789abcdef0123"

// A port that others can reach is not opened to them without anything being shown; the line says what to do.
func TestAdminPortIsNotOpenToOthers(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Write(t, dir, 1)
	caFile := dir + "/ca.pem"
	certtest.WriteFile(t, caFile, ca.PEM)
	type set = map[string]string
	allRefused(t, "TIDEWIRE_ADMIN_", "sh0rt", []refused{
		{set{"LISTEN": ":8081"}, []string{"TIDEWIRE_ADMIN_LISTEN", ":8081", "TIDEWIRE_ADMIN_TOKEN", "127.0.0.1"}},
		{set{"LISTEN": "0.0.0.0:8081"}, []string{"TIDEWIRE_ADMIN_LISTEN"}},
		{set{"LISTEN": "[::]:8081"}, []string{"TIDEWIRE_ADMIN_LISTEN"}},
		{set{"LISTEN": "10.0.0.1:8081", "TLS_CERT": certFile, "TLS_KEY": keyFile}, []string{"TIDEWIRE_ADMIN_LISTEN", "TIDEWIRE_ADMIN_TLS_CLIENT_CA"}},
		{set{"LISTEN": "admin.example.com:8081"}, []string{"TIDEWIRE_ADMIN_LISTEN"}},
		{set{"LISTEN": ":8081", "TOKEN": "sh0rt-t0ken"}, []string{"TIDEWIRE_ADMIN_TOKEN", "16 characters"}},
		{set{"TLS_CLIENT_CA": caFile}, []string{"TIDEWIRE_ADMIN_TLS_CLIENT_CA", "TIDEWIRE_ADMIN_TLS_CERT"}},
		{set{"TLS_CLIENT_CA": keyFile, "TLS_CERT": certFile, "TLS_KEY": keyFile}, []string{"TIDEWIRE_ADMIN_TLS_CLIENT_CA", "PEM"}},
		{set{"TLS_CERT": certFile}, []string{"TIDEWIRE_ADMIN_TLS_KEY", "required"}},
	})
	for _, given := range []set{
		{},
		{"LISTEN": "localhost:8081"},
		{"LISTEN": "[::1]:8081"},
		{"LISTEN": "127.0.0.9:8081"},
		{"LISTEN": ":8081", "TOKEN": testToken},
		{"LISTEN": ":8081", "TLS_CLIENT_CA": caFile, "TLS_CERT": certFile, "TLS_KEY": keyFile},
	} {
		all := set{"TIDEWIRE_NODE_ID": "n1"}
		for name, v := range given {
			all["TIDEWIRE_ADMIN_"+name] = v
		}
		setEnv(t, all)
		if _, err := FromEnv(); err != nil {
			t.Errorf("%v: %v", given, err)
		}
	}
	cfg := Defaults()
	cfg.AdminListen = ":0"
	if n, err := New(cfg); err == nil {
		n.Close()
		t.Error("a node that others can operate was made")
	}
}

// asked is a request to a node's operators' port.
type asked struct {
	method, path, body string
	headers            []string
	client             *http.Client
	scheme             string
}

func (a *aNode) admin(t *testing.T, q asked) (*http.Response, string) {
	t.Helper()
	if q.scheme == "" {
		q.scheme = "http"
	}
	if q.method == "" {
		q.method = "GET"
	}
	req, err := http.NewRequest(q.method, q.scheme+"://"+a.node.AdminAddr()+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(q.headers); i += 2 {
		if req.Header.Add(q.headers[i], q.headers[i+1]); q.headers[i] == "Host" {
			req.Host = q.headers[i+1]
		}
	}
	if q.client == nil {
		q.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	client := *q.client
	client.Timeout, client.CheckRedirect = waitTime, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", q.method, q.path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, "" // it goes on until somebody closes it
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, string(b)
}

var adminUpgrade = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}

// With a token nothing that says or changes anything is served without it: scripts show it in a header, the console gets a
// cookie for it, which no other site can use and which is not the token.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 1, k.topic(t, 1, nil), func(cfg *Config) { cfg.Groups, cfg.Admin.Token = 1, secret.Of(testToken) })
	a := c.nodes[0]
	own := "http://" + a.node.AdminAddr()
	closed := []asked{
		{path: "/status"}, {path: "/status?cluster=true"}, {path: "/sessions"}, {path: "/metrics"}, {path: "/members"}, {path: "/"}, {path: "/nothing"},
		{path: "/admin/revocations"}, {path: "/debug/pprof/heap"}, {path: "/debug/pprof/profile?seconds=1"},
		{method: "POST", path: "/admin/revoke", body: `{"subject":"alice"}`, headers: []string{"Content-Type", "application/json"}},
		{method: "POST", path: "/members/add", body: `{"node":"n9","addr":"10.0.0.9:1"}`, headers: []string{"Content-Type", "application/json"}},
		{method: "POST", path: "/members/remove", body: `{"node":"n9"}`, headers: []string{"Content-Type", "application/json"}},
		{path: "/console/ws", headers: adminUpgrade},
	}
	for _, shown := range [][]string{nil, {"Authorization", "Bearer " + testToken[:19]}, {"Authorization", "Bearer "}, {"Authorization", "Basic " + testToken}, {"Cookie", "tidewire_admin=" + testToken}, {"Cookie", "tidewire_admin="}} {
		for _, q := range closed {
			q.headers = append(append([]string{}, q.headers...), shown...)
			if resp, body := a.admin(t, q); resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" || strings.Contains(body, "n1") {
				t.Errorf("%s %s with %v: %s %.60q", q.method, q.path, shown, resp.Status, body)
			}
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/console/": 200, "/console/app.js": 200} {
		if resp, _ := a.admin(t, asked{path: path}); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	bearer := []string{"Authorization", "Bearer " + testToken}
	for _, path := range []string{"/status", "/sessions", "/metrics", "/members", "/"} {
		if resp, _ := a.admin(t, asked{path: path, headers: bearer}); resp.StatusCode != 200 {
			t.Errorf("%s with the token: %s", path, resp.Status)
		}
	}
	// The console.
	login := func(token, origin string) *http.Response {
		resp, _ := a.admin(t, asked{method: "POST", path: "/console/login", body: fmt.Sprintf(`{"token":%q}`, token), headers: []string{"Content-Type", "application/json", "Origin", origin}})
		return resp
	}
	if resp := login(testToken, "https://evil.example"); resp.StatusCode != 403 || len(resp.Cookies()) != 0 {
		t.Errorf("a login of another site: %s", resp.Status)
	}
	if resp := login("wrong", own); resp.StatusCode != 401 || len(resp.Cookies()) != 0 {
		t.Errorf("a wrong token: %s", resp.Status)
	}
	resp := login(testToken, own)
	if resp.StatusCode != http.StatusNoContent || len(resp.Cookies()) != 1 {
		t.Fatalf("the login: %s", resp.Status)
	}
	cookie := resp.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || strings.Contains(cookie.Value, testToken) || cookie.MaxAge <= 0 {
		t.Errorf("the cookie: %v", cookie)
	}
	with := func(headers ...string) []string {
		return append(headers, "Cookie", cookie.Name+"="+cookie.Value)
	}
	if resp, _ := a.admin(t, asked{path: "/status", headers: with()}); resp.StatusCode != 200 {
		t.Errorf("/status with the cookie: %s", resp.Status)
	}
	if resp, _ := a.admin(t, asked{path: "/console/ws", headers: with(append([]string{"Origin", own}, adminUpgrade...)...)}); resp.StatusCode != 101 {
		t.Errorf("/console/ws with the cookie: %s", resp.Status)
	}
	// A browser sends the cookie along whoever asks: what changes something has to come from the page itself.
	change := func(origin ...string) asked {
		return asked{method: "POST", path: "/members/remove", body: `{"node":"n9"}`, headers: with(append([]string{"Content-Type", "application/json"}, origin...)...)}
	}
	for _, origin := range [][]string{nil, {"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", own + ".evil.example"}} {
		if resp, _ := a.admin(t, change(origin...)); resp.StatusCode != 401 && resp.StatusCode != 403 {
			t.Errorf("a change with the cookie, origin %v: %s", origin, resp.Status)
		}
	}
	if resp, _ := a.admin(t, asked{path: "/status", headers: with("Origin", "https://evil.example")}); resp.StatusCode != 403 {
		t.Errorf("/status for another site: %s", resp.Status)
	}
	if resp, body := a.admin(t, change("Origin", own)); resp.StatusCode != 200 {
		t.Errorf("a change of the page's own: %s %s", resp.Status, body)
	}
	// Before: somebody who tried wrong tokens all the time kept the operators out.
	for range 20 {
		_ = login("wrong", own)
	}
	if resp := login(testToken, own); resp.StatusCode != http.StatusNoContent {
		t.Errorf("the login after wrong ones: %s", resp.Status)
	}
}

// Before: an image in any site's page could begin a profile, on a loopback port without a token, since a GET for an image
// carries no Origin.
func TestOtherSitesPagesGetNothing(t *testing.T) {
	h := newGuard(&AdminAccess{}).protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		path, site string
		want       int
	}{
		{"/debug/pprof/profile?seconds=30", "cross-site", 403}, {"/debug/pprof/heap", "same-site", 403}, {"/status", "cross-site", 403}, {"/sessions", "same-site", 403},
		{"/console/ws", "cross-site", 403}, {"/metrics", "something new", 403}, {"/", "cross-site", 403},
		{"/debug/pprof/heap", "same-origin", 200}, {"/debug/pprof/heap", "none", 200}, {"/status", "", 200},
		{"/healthz", "cross-site", 200}, {"/readyz", "same-site", 200}, {"/console/", "cross-site", 200},
	} {
		r := httptest.NewRequest("GET", c.path, nil)
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%s, asked %q: %d, want %d", c.path, c.site, w.Code, c.want)
		}
	}
}

func TestAdminCookie(t *testing.T) {
	g, other := newGuard(&AdminAccess{Token: secret.Of(testToken)}), newGuard(&AdminAccess{Token: secret.Of(testToken + "x")})
	now := time.Now()
	good := g.newCookie(now)
	if !g.goodCookie(good, now) || !newGuard(&AdminAccess{Token: secret.Of(testToken)}).goodCookie(good, now.Add(adminCookieLife-time.Minute)) {
		t.Error("a good one is refused")
	}
	if g.goodCookie(good, now.Add(adminCookieLife+time.Second)) || other.goodCookie(good, now) {
		t.Error("one that is over, or another token's, is taken")
	}
	for i := range good {
		b := []byte(good)
		if b[i] ^= 1; g.goodCookie(string(b), now) && i < len(good)-1 {
			t.Errorf("one that was changed at %d is taken", i)
		}
	}
	if g.goodCookie(good[:len(good)-4], now) || g.goodCookie("", now) {
		t.Error("one that was cut is taken")
	}
	// Where there is no token there is no cookie either: its key would be known to everybody.
	ca := newGuard(&AdminAccess{TLSClientCA: "ca.pem"})
	r := httptest.NewRequest("GET", "/status", nil)
	r.AddCookie(&http.Cookie{Name: adminCookie, Value: ca.newCookie(now)})
	if ca.shown(r) {
		t.Error("a cookie is taken where no token is known")
	}
}

// Over TLS a certificate of the operator's authority does instead of the token.
func TestAdminClientCertificate(t *testing.T) {
	t.Parallel()
	ca, strangers, dir := certtest.NewCA(t), certtest.NewCA(t), t.TempDir()
	caFile := dir + "/ca.pem"
	certtest.WriteFile(t, caFile, ca.PEM)
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	var logged lockedBuffer
	c := startCluster(t, k, 1, k.topic(t, 1, nil), func(cfg *Config) {
		cfg.Groups = 1
		cfg.Log = zerolog.New(&logged)
		cfg.Admin.TLSCert, cfg.Admin.TLSKey = ca.Write(t, dir, 5)
		cfg.Admin.TLSClientCA = caFile
	})
	a := c.nodes[0]
	client := func(pairs ...tls.Certificate) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: pairs}}}
	}
	if resp, _ := a.admin(t, asked{path: "/status", scheme: "https", client: client(ca.Pair(t, 6))}); resp.StatusCode != 200 {
		t.Errorf("with a certificate: %s", resp.Status)
	}
	if resp, _ := a.admin(t, asked{path: "/console/ws", scheme: "https", client: client(ca.Pair(t, 6)), headers: adminUpgrade}); resp.StatusCode != 101 {
		t.Errorf("/console/ws: %s", resp.Status)
	}
	if resp, _ := a.admin(t, asked{path: "/status", scheme: "https", client: client()}); resp.StatusCode != 401 {
		t.Errorf("without one: %s", resp.Status)
	}
	if resp, _ := a.admin(t, asked{path: "/healthz", scheme: "https", client: client()}); resp.StatusCode != 200 {
		t.Errorf("/healthz without one: %s", resp.Status)
	}
	// A client sends one of another authority only if it is made to.
	forced := strangers.Pair(t, 7)
	cl := client()
	cl.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &forced, nil }
	if resp, err := cl.Get("https://" + a.node.AdminAddr() + "/status"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("with a stranger's: %s", resp.Status)
	}
	if resp, err := http.Get("http://" + a.node.AdminAddr() + "/status"); err == nil {
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s", resp.Status)
		}
	}
	// Before: a line of plain text on standard error.
	eventually(t, "the log tells of the handshakes that failed", func() bool {
		for line := range strings.Lines(logged.String()) {
			var l struct{ Level, Component, Message string }
			if json.Unmarshal([]byte(line), &l) == nil && l.Level == "warn" && l.Component == "admin" && strings.Contains(l.Message, "TLS handshake error") {
				return true
			}
		}
		return false
	})
}

// lockedBuffer is what a node logs while it runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// On the loopback interface another name that was made to lead here gets nothing, whatever the path.
func TestAdminPortAnswersToItsOwnNames(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 1, k.topic(t, 1, nil), func(cfg *Config) { cfg.Groups = 1 })
	a := c.nodes[0]
	for _, q := range []asked{{path: "/status"}, {path: "/metrics"}, {path: "/members"}, {path: "/sessions"}, {path: "/console/"}, {path: "/readyz"}, {path: "/admin/revocations"}, {path: "/debug/pprof/heap"}, {method: "POST", path: "/members/remove", body: `{"node":"n9"}`}, {path: "/console/ws", headers: adminUpgrade}} {
		q.headers = append(append([]string{}, q.headers...), "Host", "evil.example")
		if resp, _ := a.admin(t, q); resp.StatusCode != 403 {
			t.Errorf("%s %s: %s", q.method, q.path, resp.Status)
		}
	}
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:8081"} {
		if resp, _ := a.admin(t, asked{path: "/status", headers: []string{"Host", host}}); resp.StatusCode != 200 {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
	if resp, _ := a.admin(t, asked{path: "/healthz", headers: []string{"Host", "evil.example"}}); resp.StatusCode != 200 {
		t.Errorf("/healthz: %s", resp.Status)
	}
}

// A node that cannot start ends, also when it has a certificate to look after.
func TestAdminTLSOfANodeThatCannotStart(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	cfg := Defaults()
	cfg.NodeID, cfg.Listen, cfg.AdminListen, cfg.ClusterListen = "n1", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.KafkaBrokers = []string{"127.0.0.1:1"}
	cfg.Admin.TLSCert, cfg.Admin.TLSKey = ca.Write(t, dir, 1)
	cfg.DataDir = dir + "/cert.pem" // a file
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it started")
		}
	case <-time.After(waitTime):
		t.Error("it does not end")
	}
}
