package wsedge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// from opens a connection from an address of the loopback network.
func (e *edge) from(addr string) net.Conn {
	e.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).Dial("tcp", e.addr)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(3 * waitTime)) // for all that a test does with it
	return conn
}

// answered sends a request and reads the head of the answer and, of an error, the object.
func answered(t testing.TB, conn net.Conn, request string) (status int, m message) {
	t.Helper()
	fmt.Fprint(conn, request)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%.30q: %v", request, err)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") == "application/json" {
		if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
			t.Fatal(err)
		}
	}
	if m.Op == "error" && m.RetryMS > 0 && resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	return resp.StatusCode, m
}

// At the limit of connections the newcomer is told so in the form that it asks for, those who are in are served, and a
// place that is given back can be taken.
func TestConnectionsAreBounded(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			overTLS = secure
			defer func() { overTLS = false }()
			e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.Connections, c.Limits.ConnectionsPerAddress = 5, -1 })
			var in []*client
			for range 5 {
				in = append(in, e.dial())
			}
			conn := e.connect()
			defer conn.Close()
			if status, m := answered(t, conn, upgradeRequest+"\r\n"); status != 503 || m.Code != "limit" || m.RetryMS == 0 {
				t.Errorf("/ws: %d %+v", status, m)
			}
			conn = e.connect()
			defer conn.Close()
			if status, m := answered(t, conn, "POST /publish/one/k HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); status != 503 || m.Code != "limit" {
				t.Errorf("/publish: %d %+v", status, m)
			}
			// An EventSource would give up for good on anything but a stream.
			if s := e.source("", "subject", "/one/*"); s.status != 200 || s.want("bye").Reason != "limit" || len(s.retry) == 0 {
				t.Errorf("/sse: %d %v", s.status, s.retry)
			}
			for _, c := range in {
				c.send(`{"op":"ping"}`)
				c.expect(`{"op":"pong"}`)
			}
			if n := e.metric("tidewire_limited_total", limitConnections); n != 3 {
				t.Errorf("%v were counted", n)
			}
			if n := e.metric("tidewire_open_sockets", ""); n != 5 {
				t.Errorf("%v sockets are open", n)
			}
			in[0].ws.CloseNow()
			until(t, "the place to be free", func() bool { return e.srv.gate.connections() == 4 })
			e.dial()
		})
	}
}

// Who is refused without end is not answered without end.
func TestRefusalsAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) {
		c.Limits.Connections, c.Limits.ConnectionsPerAddress, c.HandshakeTimeout = 2, -1, time.Minute
		c.Limits.Handshakes = -1 // which would bound them as well
	})
	in := []*client{e.dial(), e.dial()}
	for range 500 { // none of which asks for anything
		e.from("127.0.0.9")
	}
	until(t, "all to be counted", func() bool { return e.metric("tidewire_limited_total", limitConnections) == 500 })
	until(t, "the last of them to be let wait or turned away", func() bool { return e.srv.turned.now.Load() <= maxTurnedAway })
	for _, c := range in {
		c.send(`{"op":"ping"}`)
		c.expect(`{"op":"pong"}`)
	}
}

func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.ConnectionsPerAddress = 3 })
	var in []net.Conn
	for range 3 {
		conn := e.from("127.0.0.2")
		if status, _ := answered(t, conn, upgradeRequest+"\r\n"); status != 101 {
			t.Fatal(status)
		}
		in = append(in, conn)
	}
	if status, m := answered(t, e.from("127.0.0.2"), upgradeRequest+"\r\n"); status != 429 || m.Code != "limit" {
		t.Errorf("the fourth: %d %+v", status, m)
	}
	// What the address says of itself changes nothing.
	if status, _ := answered(t, e.from("127.0.0.2"), upgradeRequest+"X-Forwarded-For: 9.9.9.9\r\n\r\n"); status != 429 {
		t.Errorf("with another name: %d", status)
	}
	if status, _ := answered(t, e.from("127.0.0.3"), upgradeRequest+"\r\n"); status != 101 {
		t.Errorf("another address: %d", status)
	}
	if n := e.metric("tidewire_limited_total", limitAddress); n != 2 {
		t.Errorf("%v were counted", n)
	}
	in[1].Close()
	until(t, "the place to be free", func() bool { return e.srv.gate.connections() == 3 })
	if status, _ := answered(t, e.from("127.0.0.2"), upgradeRequest+"\r\n"); status != 101 {
		t.Errorf("after one has gone: %d", status)
	}
	for _, conn := range in {
		conn.Close()
	}
}

// Behind a proxy the address is the one that the proxy names: for sessions, streams and requests, and it is given back.
func TestAddressesBehindAProxy(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) {
		c.Limits.ConnectionsPerAddress = 2
		c.Limits.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}
	})
	open := func(client string) (net.Conn, int) {
		conn := e.from("127.0.0.8")
		status, _ := answered(t, conn, upgradeRequest+"X-Forwarded-For: 6.6.6.6, "+client+"\r\n\r\n")
		return conn, status
	}
	var of1 []net.Conn
	for range 2 {
		conn, status := open("1.1.1.1")
		if status != 101 {
			t.Fatal(status)
		}
		of1 = append(of1, conn)
	}
	if _, status := open("1.1.1.1"); status != 429 {
		t.Errorf("the third of one client: %d", status)
	}
	if _, status := open("2.2.2.2"); status != 101 {
		t.Errorf("another client: %d", status)
	}
	if status, m := answered(t, e.from("127.0.0.8"), "GET /history/one/k HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 429 || m.Code != "limit" {
		t.Errorf("a request: %d %+v", status, m)
	}
	// Somebody else who says so is not believed.
	liar := e.from("127.0.0.7")
	if status, _ := answered(t, liar, upgradeRequest+"X-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 101 {
		t.Errorf("with the name of somebody who has enough: %d", status)
	}
	until(t, "all to be registered", func() bool { return e.srv.Stats().Connections == 4 })
	liar.Close()
	until(t, "the other one to be gone", func() bool { return e.srv.Stats().Connections == 3 })
	page, err := e.srv.Sessions(context.Background(), SessionQuery{Limit: 10})
	if err != nil || len(page.Sessions) != 3 {
		t.Fatal(err, page)
	}
	for _, s := range page.Sessions {
		if s.Remote != "1.1.1.1" && s.Remote != "2.2.2.2" {
			t.Errorf("a session of %s", s.Remote)
		}
	}
	of1[0].Close()
	until(t, "the place to be free", func() bool { return e.srv.Stats().Connections == 2 })
	for range 5 { // each gives back what it has taken
		if status, m := answered(t, e.from("127.0.0.8"), "GET /history/one/k HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n"); status != 200 {
			t.Errorf("a request: %d %+v", status, m)
		}
	}
	s := e.from("127.0.0.8")
	if status, _ := answered(t, s, "GET /sse?subject=/one/* HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 200 {
		t.Errorf("a stream: %d", status)
	}
	if _, status := open("1.1.1.1"); status != 429 {
		t.Errorf("beside the stream: %d", status)
	}
	// A handshake that is refused for another reason gives back what it has taken, too.
	s.Close()
	until(t, "the stream to be gone", func() bool { return e.srv.Stats().Connections == 2 })
	for range 5 {
		if status, _ := answered(t, e.from("127.0.0.8"), "GET /ws HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 426 {
			t.Errorf("no upgrade: %d", status)
		}
		if status, _ := answered(t, e.from("127.0.0.8"), "GET /sse?subject=/none/* HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 404 {
			t.Errorf("no topic: %d", status)
		}
	}
	for _, conn := range of1 {
		conn.Close()
	}
}

// watchedListener makes connections that look at something before they are closed.
type watchedListener struct {
	net.Listener
	look func()
}

type watchedConn struct {
	net.Conn
	look func()
}

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &watchedConn{c, l.look}, err
}

func (c *watchedConn) Close() error {
	c.look()
	return c.Conn.Close()
}

// Who sees the end of its connection finds its place free: it may come again at once.
func TestPlaceIsFreeWhenTheConnectionEnds(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) {
		c.Limits.ConnectionsPerAddress = 1
		c.Limits.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	taken := make(chan int, 10) // by the address, when the connection was closed
	watched := &watchedListener{ln, func() {
		e.srv.gate.mu.Lock()
		defer e.srv.gate.mu.Unlock()
		taken <- e.srv.gate.addresses[netip.MustParseAddr("1.1.1.1")]
	}}
	go func() { _ = e.srv.Serve(watched) }()
	e.addr = ln.Addr().String()
	conn := e.from("127.0.0.8")
	if status, _ := answered(t, conn, upgradeRequest+"X-Forwarded-For: 1.1.1.1\r\n\r\n"); status != 101 {
		t.Fatal(status)
	}
	fmt.Fprint(conn, masked(8, "\x03\xe8"))
	if n := <-taken; n != 0 {
		t.Errorf("%d places were taken when the connection was closed", n)
	}
}

// The PROXY protocol is spoken with trusted proxies and nobody else, and its addresses count.
func TestProxyProtocol(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			overTLS = secure
			defer func() { overTLS = false }()
			behind := func(c *Config) {
				c.Limits.ConnectionsPerAddress, c.Limits.ProxyProtocol = 2, true
				c.Limits.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/32")}
			}
			e := newEdge(t, cache.Config{}, behind)
			open := func(from string, header []byte) (net.Conn, int) {
				conn := e.from(from)
				_, _ = conn.Write(header)
				conn = e.sealed(conn)
				status, _ := answered(t, conn, upgradeRequest+"\r\n")
				return conn, status
			}
			for range 3 { // each time the places are given back
				var conns []net.Conn
				for range 2 {
					conn, status := open("127.0.0.8", proxied("1.1.1.1", 99))
					if status != 101 {
						t.Fatal(status)
					}
					conns = append(conns, conn)
				}
				for _, conn := range conns {
					conn.Close()
				}
				until(t, "they to be gone", func() bool { return e.srv.gate.connections() == 0 })
			}
			for range 2 {
				if _, status := open("127.0.0.8", proxied("1.1.1.1", 99)); status != 101 {
					t.Fatal(status)
				}
			}
			if _, status := open("127.0.0.8", proxied("1.1.1.1", 99)); status != 429 {
				t.Errorf("the third of one client: %d", status)
			}
			for range 3 {
				if _, status := open("127.0.0.8", proxyHeader(0x20, 0)); status != 101 {
					t.Errorf("the proxy itself: %d", status)
				}
			}
			until(t, "all to be registered", func() bool { return e.srv.Stats().Connections == 5 })
			page, err := e.srv.Sessions(context.Background(), SessionQuery{Limit: 10})
			if err != nil || !strings.Contains(fmt.Sprint(page.Sessions), "1.1.1.1:99") {
				t.Error(err, page)
			}
			// Others need no header, and are not believed.
			if _, status := open("127.0.0.7", nil); status != 101 {
				t.Errorf("without a header: %d", status)
			}
			hurried := newEdge(t, cache.Config{}, func(c *Config) { behind(c); c.HandshakeTimeout = 300 * time.Millisecond })
			for _, q := range []struct {
				e         *edge
				name, raw string
			}{{hurried, "nothing", ""}, {e, "no header", upgradeRequest + "\r\n"}} {
				conn := q.e.from("127.0.0.8")
				fmt.Fprint(conn, q.raw)
				if b, err := io.ReadAll(conn); len(b) > 0 || err != nil && isTimeout(err) {
					t.Errorf("%s: %q, %v", q.name, b, err)
				}
				if n := q.e.metric("tidewire_limited_total", limitProxy); n != 1 {
					t.Errorf("%s: %v were counted", q.name, n)
				}
			}
			conn := e.from("127.0.0.7")
			_, _ = conn.Write(append(proxied("3.3.3.3", 1), upgradeRequest+"\r\n"...))
			if b, _ := io.ReadAll(conn); bytes.Contains(b, []byte("101")) {
				t.Error("a header of somebody who is not trusted was taken")
			}
		})
	}
}

// Half-open handshakes keep nobody out: the oldest goes.
func TestHandshakesAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.Handshakes = 20; c.HandshakeTimeout = time.Minute })
	var open []net.Conn
	for i := range 20 {
		conn := e.from("127.0.0.4")
		fmt.Fprint(conn, upgradeRequest[:i])
		open = append(open, conn)
		until(t, "the handshake to begin", func() bool { return e.srv.gate.handshakes() == int64(i+1) })
	}
	began := func(at time.Time) { // all of them
		e.srv.gate.mu.Lock()
		defer e.srv.gate.mu.Unlock()
		for el := e.srv.gate.order.Front(); el != nil; el = el.Next() {
			s := el.Value.(shaker)
			s.began = at
			el.Value = s
		}
	}
	// All of them may be honest: they are let finish.
	began(time.Now().Add(time.Hour)) // it may have taken more than a youth to open them, and to come to the next line
	if b, err := io.ReadAll(e.from("127.0.0.5")); len(b) > 0 || err != nil && isTimeout(err) {
		t.Errorf("%q, %v", b, err)
	}
	began(time.Now().Add(-2 * handshakeYouth))
	for range 5 {
		e.dial()
	}
	if _, err := open[0].Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the oldest is still there: %v", err)
	}
	if n := e.srv.gate.handshakes(); n > 20 {
		t.Errorf("%d handshakes", n)
	}
	if n := e.metric("tidewire_limited_total", limitHandshakes); n < 2 {
		t.Errorf("%v were counted", n)
	}
	// One that is still there can go on.
	fmt.Fprint(open[19], upgradeRequest[19:]+"\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(open[19]), nil); err != nil || resp.StatusCode != 101 {
		t.Error(err)
	}
}

// A head that is too long, or too slow, is counted.
func TestHeadersAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.HeaderBytes = 4096 })
	if status, _ := answered(t, e.from("127.0.0.4"), upgradeRequest+"A: "+strings.Repeat("a", 4096)+"\r\n\r\n"); status != 431 {
		t.Error(status)
	}
	if status, _ := answered(t, e.from("127.0.0.4"), "GET /none HTTP/1.1\r\nHost: x\r\nA: "+strings.Repeat("a", 9000)+"\r\n\r\n"); status != 431 {
		t.Error(status)
	}
	if n := e.metric("tidewire_limited_total", limitHeaderBytes); n != 1 {
		t.Errorf("%v were counted", n)
	}
	e = newEdge(t, cache.Config{}, func(c *Config) { c.HandshakeTimeout = 300 * time.Millisecond })
	slow := e.from("127.0.0.4")
	go func() {
		for _, b := range []byte(upgradeRequest) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if b, _ := io.ReadAll(slow); len(b) > 0 {
		t.Errorf("%q", b)
	}
	if n := e.metric("tidewire_limited_total", limitHandshakeTime); n != 1 {
		t.Errorf("%v were counted", n)
	}
}

func okPublish(bridge.PublishRequest) (bridge.PublishResult, error) {
	return bridge.PublishResult{}, nil
}

// A session that publishes too fast is told how long to wait; another one is not held up by it. All sessions and requests
// of one user, or of one address without one, together have a rate of their own.
func TestPublishRates(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.SessionPublishes, c.MaxBadRequests = 5, 1000 })
	e.node.publish = okPublish
	// In one frame: a node that stands still now and then has them all before it, and comes to the limit.
	burst := func(c *client, n int) (acked, refused int, retry int64) {
		var ops strings.Builder
		for i := range n {
			fmt.Fprintf(&ops, `{"op":"pub","id":%d,"subject":"/one/k","data":1}`+"\n", i+1)
		}
		c.send("%s", ops.String())
		for range n {
			switch m := c.next(); {
			case m.Op == "acked":
				acked++
			case m.Code == "rate_limited" && m.RetryMS > 0:
				refused, retry = refused+1, max(retry, m.RetryMS)
			default:
				t.Fatal(m.raw)
			}
		}
		return acked, refused, retry
	}
	one := e.dial()
	begun := time.Now()
	since := func(perSecond int) int { return int(time.Since(begun).Seconds()*float64(perSecond)) + 1 }
	acked, refused, retry := burst(one, 100)
	if most := 10 + since(5); acked < 10 || acked > most || retry > 250 {
		t.Errorf("%d acked, at most %d may be, %d refused, retry after %d ms", acked, most, refused, retry)
	}
	if n := e.metric("tidewire_limited_total", limitSessionRate); n == 0 || int(n) != refused {
		t.Errorf("%v were counted of %d", n, refused)
	}
	if acked, _, _ := burst(e.dial(), 5); acked != 5 {
		t.Errorf("%d of 5 of another session passed", acked)
	}
	time.Sleep(time.Duration(retry+50) * time.Millisecond)
	if acked, _, _ := burst(one, 1); acked != 1 {
		t.Error("what was told to wait is refused after that")
	}

	// The user, here an address, has 2 at once.
	e = newEdge(t, cache.Config{}, func(c *Config) { c.Limits.UserPublishes, c.MaxBadRequests = 1, 1000 })
	e.node.publish = okPublish
	begun = time.Now()
	total, c := 0, e.dial()
	for _, c := range []*client{c, e.dial(), e.dial()} {
		acked, _, _ := burst(c, 20)
		total += acked
	}
	if total < 2 || total > 2+since(1) || e.metric("tidewire_limited_total", limitUserRate) == 0 {
		t.Errorf("%d of one user passed", total)
	}
	var resp *http.Response
	var b []byte
	until(t, "a publish over HTTP to be refused", func() bool {
		burst(c, 20) // there is nothing left for a second
		resp, b = e.request("POST", "/publish/one/k", strings.NewReader("1"))
		return resp.StatusCode == 429
	})
	if m := e.refusal("a publish over HTTP", resp, b, 429, "rate_limited"); m.RetryMS == 0 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", m)
	}
	other := e.from("127.0.0.6")
	if status, m := answered(t, other, "POST /publish/one/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"); status != 200 {
		t.Errorf("another address: %d %+v", status, m)
	}
}

// Requests over HTTP have the rate of a session's frames.
func TestRequestRate(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Limits.Frames = 1 })
	begun := time.Now()
	ok, refused := 0, 0
	for ok+refused < 20 || refused == 0 && time.Since(begun) < waitTime { // a slow machine keeps to the rate by itself, for a while
		resp, b := e.request("GET", "/history/one/k", nil)
		if resp.StatusCode == 200 {
			ok++
			continue
		}
		refused++
		if m := e.refusal("too fast", resp, b, 429, "rate_limited"); m.RetryMS == 0 {
			t.Errorf("%+v", m)
		}
	}
	if most := 3 + int(time.Since(begun).Seconds()); ok < 2 || ok > most || refused == 0 || int(e.metric("tidewire_limited_total", limitRequests)) != refused {
		t.Errorf("%d passed, at most %d may, %d refused, %v counted", ok, most, refused, e.metric("tidewire_limited_total", limitRequests))
	}
}

func TestRecordHeadersAndPositionsAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) {
		c.Limits.RecordHeaders, c.Limits.RecordHeaderBytes, c.Limits.Positions, c.MaxSubscriptions = 2, 100, 3, 1
	})
	e.node.publish = okPublish
	c := e.dial()
	for _, q := range []struct{ op, want string }{
		{`"pub","subject":"/one/k","data":1,"headers":{"a":"1","b":"2"}`, "acked"},
		{`"pub","subject":"/one/k","data":1,"headers":{"a":"1","b":"2","c":"3"}`, "too_large"},
		{`"pub","subject":"/one/k","data":1,"headers":{"a":"` + strings.Repeat("x", 100) + `"}`, "too_large"},
		{`"sub","subject":"/prices/*","resume":[[0,1,1],[1,1,1],[2,1,1],[3,1,1]]`, "limit"},
		{`"sub","subject":"/prices/*"`, "subbed"},
	} {
		c.send(`{"id":1,"op":%s}`, q.op)
		if m := c.next(); m.Op != q.want && m.Code != q.want {
			t.Errorf("%.60s: %s", q.op, m.raw)
		}
	}
	c.next() // live
	c.send(`{"op":"sub","subject":"/one/k"}`)
	if m := c.next(); m.Code != "limit" {
		t.Error(m.raw)
	}
	resp, b := e.request("POST", "/publish/one/k", strings.NewReader("1"), "Tidewire-Header-A", strings.Repeat("x", 100))
	e.refusal("headers", resp, b, 413, "too_large")
	for limit, want := range map[string]float64{limitRecordHeaders: 3, limitPositions: 1, limitSubscriptions: 1} {
		if n := e.metric("tidewire_limited_total", limit); n != want {
			t.Errorf("%s: %v counted, want %v", limit, n, want)
		}
	}
}

// Subscriptions that have to be fed from Kafka are refused when too many are already, with a time to come back; those who
// are fed go on, and when they are done the next may come.
func TestWaitingReplaysAreBounded(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 10, SegmentBytes: 16 << 10}, func(c *Config) { c.Limits.WaitingReplays, c.SendBuffer = 3, 4<<10 })
	for range 1000 {
		e.node.put("one", 0, []byte("a/b/c/d/e/k"), bytes.Repeat([]byte("x"), 1000))
	}
	slow := e.dialByHand(4 << 10)
	for _, subject := range []string{"/one/*", "/one/a/*", "/one/a/b/*"} {
		slow.op(`{"op":"sub","subject":%q,"resume":[[0,1,1]]}`, subject)
	}
	until(t, "three to be fed", func() bool { return e.srv.replaying.Load() == 3 })
	c := e.dial()
	c.send(`{"op":"sub","subject":"/one/*","resume":[[0,1,1]]}`)
	if m := c.next(); m.Code != "unavailable" || m.RetryMS == 0 {
		t.Error(m.raw)
	}
	c.send(`{"op":"sub","subject":"/one/*"}`) // which needs none
	if m := c.next(); m.Op != "subbed" {
		t.Error(m.raw)
	}
	if e.metric("tidewire_limited_total", limitWaitingReplays) != 1 {
		t.Error("not counted")
	}
	// The two are not read at one time, and a replay moves from one to the other until its client takes nothing more.
	until(t, "the three to be told", func() bool { return e.metric("tidewire_replays", "")+e.metric("tidewire_replays_waiting", "") == 3 })
	slow.conn.Close()
	until(t, "the places to be free", func() bool { return e.srv.replaying.Load() == 0 })
	c.send(`{"op":"sub","subject":"/one/a/*","resume":[[0,1,1]]}`)
	for {
		m := c.next()
		if m.Op == "error" {
			t.Fatal(m.raw)
		}
		if m.Op == "subbed" {
			break
		}
	}
}
