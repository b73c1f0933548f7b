package wsedge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

func readAnswer(t testing.TB, conn net.Conn) (*http.Response, string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(waitTime))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// Without a token nothing is done and nothing is told, not even which topics there are.
func TestTokenRequired(t *testing.T) {
	e, a := newAuthEdge(t, cache.Config{}, nil)
	a.give(t, "good", "alice", 0, "/prices/*", "/one/a/*", "pub:/one/a")
	c := e.dialRaw(nil)
	if m := c.next(); m.Auth != "required" {
		t.Fatalf("welcome says %s", m.raw)
	}
	for _, op := range []string{
		`{"op":"sub","id":1,"subject":"/prices/x"}`, `{"op":"sub","id":1,"subject":"/no-such-topic/x"}`, `{"op":"unsub","id":1,"subject":"/prices/x"}`,
		`{"op":"pub","id":1,"subject":"/prices/x","text":"x"}`, `{"op":"sub","id":1,"subject":"/prices/x","resume":[[99,1,1]]}`,
	} {
		c.send("%s", op)
		if m := c.next(); m.Op != "error" || m.Code != "unauthenticated" || m.ID != 1 {
			t.Errorf("%s was answered %s", op, m.raw)
		}
	}
	c.send(`{"op":"ping","id":2}`)
	c.expect(`{"op":"pong","id":2}`)
	c.send(`{"op":"auth","id":3,"token":"good"}`)
	c.expect(`{"op":"authed","id":3,"expires":null}`)
	for _, try := range []struct{ op, want string }{
		{`{"op":"sub","id":4,"subject":"/prices/x"}`, "subbed"},
		{`{"op":"unsub","id":4,"subject":"/prices/x"}`, "unsubbed"},
		{`{"op":"sub","id":4,"subject":"/prices/*"}`, "subbed"},
		{`{"op":"sub","id":4,"subject":"/one/a/b"}`, "subbed"},
		{`{"op":"sub","id":4,"subject":"/one/b"}`, "forbidden"},
		{`{"op":"sub","id":4,"subject":"/one/*"}`, "forbidden"},
		{`{"op":"sub","id":4,"subject":"/one"}`, "forbidden"},
		{`{"op":"sub","id":4,"subject":"/one/*","resume":[[0,1,0]]}`, "forbidden"},
		{`{"op":"sub","id":4,"subject":"/no-such-topic/x"}`, "forbidden"},
		{`{"op":"pub","id":4,"subject":"/one/a","text":"x"}`, "acked"},
		{`{"op":"pub","id":4,"subject":"/one/a/b","text":"x"}`, "forbidden"},
		{`{"op":"pub","id":4,"subject":"/prices/x","text":"x"}`, "forbidden"},
	} {
		c.send("%s", try.op)
		m := c.next()
		for m.ID != 4 {
			m = c.next()
		}
		if m.Op != try.want && !(m.Op == "error" && m.Code == try.want) {
			t.Errorf("%s was answered %s", try.op, m.raw)
		}
	}
	// A later token that is refused leaves the earlier one in force.
	c.send(`{"op":"auth","id":5,"token":"bad"}`)
	if m := c.next(); m.Code != "unauthenticated" || m.ID != 5 {
		t.Errorf("a bad token was answered %s", m.raw)
	}
	c.send(`{"op":"unsub","id":6,"subject":"/prices/*"}`)
	c.expect(`{"op":"unsubbed","id":6,"subject":"/prices/*","reason":"asked"}`)
	// Also one that cannot be verified now.
	a.mu.Lock()
	a.away = true
	a.mu.Unlock()
	c.send(`{"op":"auth","id":7,"token":"good"}`)
	c.expect(`{"op":"error","id":7,"code":"unavailable","message":"the keys cannot be fetched","retry_ms":700}`)
}

// The first token that is refused ends the connection, and so does none.
func TestTokenRefused(t *testing.T) {
	e, _ := newAuthEdge(t, cache.Config{}, nil)
	for _, token := range []string{"bad", strings.Repeat("x", maxAccessToken+1)} {
		c := e.dial()
		c.send(`{"op":"auth","id":1,"token":%q}`, token)
		if m := c.next(); m.Code != "unauthenticated" || m.ID != 1 || strings.Contains(m.raw, token) {
			t.Errorf("answered %s", m.raw)
		}
		if code, bye := c.closes(); code != 4001 || bye.Reason != "unauthenticated" {
			t.Errorf("closed with %d after %s", code, bye.raw)
		}
	}
	inBubble(t, func(t *testing.T) {
		e, _ := newAuthEdge(t, cache.Config{}, func(c *Config) { c.HandshakeTimeout = time.Second })
		if code, bye := e.dial().closes(); code != 4001 || bye.Reason != "unauthenticated" {
			t.Errorf("closed with %d after %s", code, bye.raw)
		}
	})
}

// A token in the handshake's header spares the auth; a bad one is refused before there is a session.
func TestTokenInTheHandshake(t *testing.T) {
	e, a := newAuthEdge(t, cache.Config{}, nil)
	a.give(t, "good", "alice", 0, "/one/*")
	c := e.dialRaw(bearer("good"))
	if m := c.next(); m.Auth != "none" {
		t.Fatalf("welcome says %s", m.raw)
	}
	c.send(`{"op":"sub","id":1,"subject":"/one/k"}`)
	if m := c.next(); m.Op != "subbed" {
		t.Errorf("answered %s", m.raw)
	}
	refused := func(want int, header ...string) {
		t.Helper()
		opts := bearer("")
		opts.HTTPHeader["Authorization"] = header
		ctx, cancel := context.WithTimeout(context.Background(), waitTime)
		defer cancel()
		_, resp, err := websocket.Dial(ctx, "ws://"+e.addr+"/ws", opts)
		if err == nil || resp == nil || resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v, %+v", header, err, resp)
		} else if (want == 401) != (resp.Header.Get("WWW-Authenticate") == "Bearer") {
			t.Errorf("%q: %v", header, resp.Header)
		}
	}
	refused(401, "Bearer bad")
	refused(401, "Bearer "+strings.Repeat("x", maxAccessToken+1))
	refused(401, "Basic good")
	refused(401, "Bearer")
	refused(401, "Bearer good", "Bearer good")
	a.mu.Lock()
	a.away = true
	a.mu.Unlock()
	refused(503, "Bearer good")
}

// With rights for everybody a token is not required; what they do not cover needs one, which adds to them.
func TestAnonymousRights(t *testing.T) {
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
		c.Anonymous = rightsOf(t, "/prices/*", "pub:/one/hello")
	})
	a.give(t, "good", "alice", 0, "/one/*")
	c := e.dialRaw(nil)
	if m := c.next(); m.Auth != "none" {
		t.Fatalf("welcome says %s", m.raw)
	}
	s := e.onlySession()
	s.mu.Lock()
	if s.standing.until != 0 {
		t.Error("who needs no token is hurried to show one")
	}
	s.mu.Unlock()
	try := func(op, want string) {
		t.Helper()
		c.send("%s", op)
		m := c.next()
		for m.ID != 1 {
			m = c.next()
		}
		if m.Op != want && m.Code != want {
			t.Errorf("%s was answered %s", op, m.raw)
		}
	}
	try(`{"op":"sub","id":1,"subject":"/prices/x"}`, "subbed")
	try(`{"op":"pub","id":1,"subject":"/one/hello","text":"x"}`, "acked")
	try(`{"op":"sub","id":1,"subject":"/one/k"}`, "unauthenticated")
	try(`{"op":"pub","id":1,"subject":"/one/k","text":"x"}`, "unauthenticated")
	try(`{"op":"unsub","id":1,"subject":"/one/k"}`, "not_subscribed")
	try(`{"op":"auth","id":1,"token":"good"}`, "authed")
	try(`{"op":"sub","id":1,"subject":"/one/k"}`, "subbed")
	try(`{"op":"unsub","id":1,"subject":"/prices/x"}`, "unsubbed")
	try(`{"op":"sub","id":1,"subject":"/prices/x"}`, "subbed")
	try(`{"op":"pub","id":1,"subject":"/one/k","text":"x"}`, "forbidden")
}

// The same rights and errors over HTTP.
func TestTokenOverHTTP(t *testing.T) {
	var users []string
	var mu sync.Mutex
	e, a := newAuthEdge(t, cache.Config{}, nil)
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		mu.Lock()
		defer mu.Unlock()
		users = append(users, r.User+" "+r.Mid)
		return bridge.PublishResult{}, nil
	}
	a.give(t, "good", "alice", 0, "/one/*", "pub:/one/a")
	a.give(t, "old", "alice", -time.Second, "/one/*", "pub:/one/a")
	for _, c := range []struct {
		method, path, token string
		status              int
		code                string
	}{
		{"POST", "/publish/one/a", "", 401, "unauthenticated"},
		{"POST", "/publish/one/a", "bad", 401, "unauthenticated"},
		{"POST", "/publish/one/a", "old", 401, "unauthenticated"},
		{"POST", "/publish/one/a", "good", 200, ""},
		{"POST", "/publish/one/b", "good", 403, "forbidden"},
		{"POST", "/publish/nothing/b", "good", 403, "forbidden"},
		{"GET", "/history/one/a", "", 401, "unauthenticated"},
		{"GET", "/history/one/a", "bad", 401, "unauthenticated"},
		{"GET", "/history/one/a", "good", 200, ""},
		{"GET", "/history/one/*", "good", 200, ""},
		{"GET", "/history/prices/a", "good", 403, "forbidden"},
		{"GET", "/sse?subject=/one/a", "", 401, "unauthenticated"},
		{"GET", "/sse?subject=/one/a", "bad", 401, "unauthenticated"},
		{"GET", "/sse?subject=/prices/a", "good", 403, "forbidden"},
		{"GET", "/sse?subject=/one/a&subject=/prices/a", "good", 403, "forbidden"},
		{"GET", "/history/one/a?token=good", "", 401, "unauthenticated"},
	} {
		resp, body := e.requestAs(c.method, c.path, c.token, "")
		if resp.StatusCode != c.status || c.code != "" && !strings.Contains(body, `"code":"`+c.code+`"`) || (c.status == 401) != (resp.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s %s with %q: %d %s", c.method, c.path, c.token, resp.StatusCode, body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(users) != 1 || users[0] != "alice " {
		t.Errorf("published: %q", users)
	}
	if n := e.srv.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions are left of refused streams", n)
	}
}

// The user of a publish is whose token it is, so that the mids of two users never meet.
func TestPublisherIsTheTokensSubject(t *testing.T) {
	got := make(chan bridge.PublishRequest, 1)
	e, a := newAuthEdge(t, cache.Config{}, nil)
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		got <- r
		return bridge.PublishResult{}, nil
	}
	for _, user := range []string{"alice", "bob"} {
		a.give(t, user, user, 0, "pub:/one/*")
		e.dialAs(user).send(`{"op":"pub","id":1,"subject":"/one/a","text":"x","mid":"m1"}`)
		if r := <-got; r.User != user || r.Mid != "m1" {
			t.Errorf("%s published as %q", user, r.User)
		}
	}
	page, err := e.srv.Sessions(context.Background(), SessionQuery{Limit: 10})
	if err != nil || len(page.Sessions) != 2 || page.Sessions[0].User == "" || page.Sessions[0].User == page.Sessions[1].User {
		t.Errorf("%+v, %v", page, err)
	}
}

// A client is told that its token expires, and renews it or is sent away.
func TestTokenExpires(t *testing.T) { inBubble(t, testTokenExpires) }

func testTokenExpires(t *testing.T) {
	e, a := newAuthEdge(t, cache.Config{}, nil)
	a.give(t, "short", "alice", 3*time.Second, "/one/*")
	a.give(t, "long", "alice", time.Hour, "/one/*")
	c, renewer := e.dialAs("short"), e.dialAs("short")
	header := e.dialRaw(bearer("short"))
	stream := e.sourceRaw("GET /sse?subject=/one/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer short\r\n\r\n", 0)
	header.next() // welcome
	for _, c := range []*client{c, renewer, header} {
		c.send(`{"op":"sub","subject":"/one/k"}`)
		for _, want := range []string{"subbed", "live"} {
			if m := c.next(); m.Op != want {
				t.Fatalf("got %s", m.raw)
			}
		}
	}
	for _, c := range []*client{c, renewer, header} {
		if m := c.next(); m.Op != "expiring" || m.Expires == nil || time.Until(time.UnixMilli(*m.Expires)) > 3*time.Second {
			t.Fatalf("got %s", m.raw)
		}
	}
	renewer.send(`{"op":"auth","id":9,"token":"long"}`)
	if m := renewer.next(); m.Op != "authed" || m.Expires == nil || time.Until(time.UnixMilli(*m.Expires)) < 50*time.Minute {
		t.Fatalf("got %s", m.raw)
	}
	for _, c := range []*client{c, header} {
		if code, bye := c.closes(); code != 4001 || bye.Op != "bye" || bye.Reason != "expired" {
			t.Errorf("closed with %d after %s", code, bye.raw)
		}
	}
	var ops []string
	for {
		ev, err := stream.read()
		if err != nil {
			break
		}
		ops = append(ops, ev.name+ev.Reason)
	}
	if got := strings.Join(ops, " "); got != "subbed live expiring byeexpired" {
		t.Errorf("the stream: %s", got)
	}
	// Whoever renewed has lost nothing.
	e.node.put("one", 0, []byte("k"), value(1))
	if m := renewer.next(); m.Op != "msg" {
		t.Errorf("got %s", m.raw)
	}
}

// A token that is revoked between being found in order and becoming a session's: EndSessions does not know the
// session yet, so the session has to ask again.
func TestRevokedBeforeItIsTheSessions(t *testing.T) {
	for _, how := range []string{"auth", "header", "stream"} {
		t.Run(how, func(t *testing.T) {
			var e *edge
			var asked atomic.Int32
			e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
				c.Revoked = func(*auth.Identity) bool {
					if asked.Add(1) > 1 {
						return true
					}
					e.srv.EndSessions(func(*auth.Identity) bool { return true })
					return false
				}
			})
			a.give(t, "m", "mallory", time.Hour, "/one/*")
			if how == "stream" {
				s := e.sourceRaw("GET /sse?subject=/one/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer m\r\n\r\n", 0)
				var last event
				for {
					ev, err := s.read()
					if err != nil {
						break
					}
					last = ev
				}
				if last.name != "bye" || last.Reason != "revoked" {
					t.Errorf("ended after %s", last.raw)
				}
				return
			}
			var c *client
			if how == "auth" {
				c = e.dial()
				c.send(`{"op":"auth","token":"m"}`)
			} else {
				c = e.dialRaw(bearer("m"))
			}
			if code, bye := c.closes(); code != 4001 || bye.Reason != "revoked" {
				t.Errorf("closed with %d after %s", code, bye.raw)
			}
		})
	}
}

// A session whose token is revoked while it shows it is ended all the same, whichever comes first.
func TestRevokedWhileItAuthenticates(t *testing.T) {
	var revoked atomic.Bool
	is := func(id *auth.Identity) bool { return id.Subject == "mallory" }
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
		c.Revoked = func(id *auth.Identity) bool { return revoked.Load() && is(id) }
	})
	a.give(t, "m", "mallory", time.Hour, "/one/*")
	a.give(t, "g", "grace", time.Hour, "/one/*")
	grace := e.dialAs("g")
	var wg sync.WaitGroup
	begun := make(chan struct{}, 100)
	for i := range 40 {
		wg.Go(func() {
			if i%4 == 3 {
				s, err := net.Dial("tcp", e.addr)
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				begun <- struct{}{}
				fmt.Fprintf(s, "GET /sse?subject=/one/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer m\r\n\r\n")
				_ = s.SetReadDeadline(time.Now().Add(waitTime))
				b, err := io.ReadAll(s)
				if err != nil || !strings.Contains(string(b), " 401 ") && !strings.Contains(string(b), `"reason":"revoked"`) {
					t.Errorf("%v: %.300s", err, b)
				}
				return
			}
			c := e.dial()
			begun <- struct{}{}
			c.send(`{"op":"auth","token":"m"}`)
			code, bye := c.closes()
			if code != 4001 || bye.Reason != "revoked" && bye.Reason != "unauthenticated" {
				t.Errorf("closed with %d after %s", code, bye.raw)
			}
		})
	}
	for range 20 {
		<-begun
	}
	revoked.Store(true)
	e.srv.EndSessions(is)
	wg.Wait()
	grace.send(`{"op":"sub","id":1,"subject":"/one/k"}`)
	if m := grace.next(); m.Op != "subbed" {
		t.Errorf("got %s", m.raw)
	}
	e.srv.EndSessions(func(id *auth.Identity) bool { return id.TokenID == "g" })
	if code, bye := grace.closes(); code != 4001 || bye.Reason != "revoked" {
		t.Errorf("closed with %d after %s", code, bye.raw)
	}
}

// A publish that waits for its turn when its right is lost is not written.
func TestPublishThatWaitsLosesItsRight(t *testing.T) {
	e, a := newAuthEdge(t, cache.Config{}, nil)
	on, written := make(chan struct{}), make(chan string, 10)
	e.node.publish = func(r bridge.PublishRequest) (bridge.PublishResult, error) {
		written <- string(r.Value)
		<-on
		return bridge.PublishResult{}, nil
	}
	a.give(t, "more", "alice", 0, "pub:/one/*")
	a.give(t, "less", "alice", 0, "/one/*")
	c := e.dialAs("more")
	c.send(`{"op":"pub","id":1,"subject":"/one/a","text":"1"}`)
	<-written
	c.send(`{"op":"pub","id":2,"subject":"/one/a","text":"2"}`)
	c.send(`{"op":"auth","id":3,"token":"less"}`)
	c.expect(`{"op":"authed","id":3,"expires":null}`)
	close(on)
	if m := c.next(); m.Op != "acked" || m.ID != 1 {
		t.Errorf("got %s", m.raw)
	}
	if m := c.next(); m.Code != "forbidden" || m.ID != 2 {
		t.Errorf("got %s", m.raw)
	}
	if len(written) != 0 {
		t.Errorf("%q was written", <-written)
	}
}

// An answer with a history ends where the token does.
func TestHistoryEndsWithItsToken(t *testing.T) {
	var revoked atomic.Bool
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
		c.SendBuffer = 4 << 10
		c.Revoked = func(*auth.Identity) bool { return revoked.Load() }
	})
	a.give(t, "good", "alice", 0, "/one/*")
	for i := range 400 {
		e.node.put("one", 0, []byte("k"), []byte(fmt.Sprintf(`"%d%s"`, i, strings.Repeat("x", 10000))))
	}
	conn, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /history/one/k?limit=1000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	revoked.Store(true)
	_ = conn.SetReadDeadline(time.Now().Add(waitTime))
	rest, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(rest), `"399xx`) {
		t.Errorf("the whole of %d bytes came: %v", len(rest), err)
	}
}
