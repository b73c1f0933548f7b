package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// upgrade asks for an upgrade with more headers, by hand, and returns the status.
func upgrade(t *testing.T, addr, target, headers string) int {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(waitTime))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", target, addr, headers)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s %s: %v", target, headers, err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// Browser origins: the same host unless a list says otherwise; programs send none and may always connect.
func TestProtocolOrigins(t *testing.T) {
	t.Parallel()
	for _, node := range []struct {
		allowed         []string
		welcome, denied []string
	}{
		{
			nil, []string{"", "http://HOST", "https://HOST"},
			[]string{"http://evil.example", "http://HOST.evil.example", "null", "http://evil.example?HOST", "HOST", "http://evil.example/HOST", "http://HOST@evil.example"},
		},
		{
			[]string{"https://app.example"}, []string{"", "https://app.example", "http://HOST"},
			[]string{"https://other.example", "https://app.example.evil.example", "https://evil.example?https://app.example", "null"},
		},
		{[]string{"*"}, []string{"", "http://anything.example", "null"}, nil},
	} {
		t.Run(fmt.Sprint(node.allowed), func(t *testing.T) {
			t.Parallel()
			c, _ := protocolNode(t, 1, func(cfg *Config) { cfg.AllowedOrigins = node.allowed })
			try := func(origin string, want int) {
				h := ""
				if origin != "" {
					h = "Origin: " + strings.ReplaceAll(origin, "HOST", c.addr(0)) + "\r\n"
				}
				if got := upgrade(t, c.addr(0), "/ws", h); got != want {
					t.Errorf("%q: %d, want %d", h, got, want)
				}
			}
			for _, origin := range node.welcome {
				try(origin, http.StatusSwitchingProtocols)
			}
			for _, origin := range node.denied {
				try(origin, http.StatusForbidden)
			}
		})
	}
}

// What is not an upgrade of /ws is answered as HTTP says, and a token in the URL counts for nothing.
func protocolHTTP(t *testing.T, c *aCluster, topic string) {
	for _, tc := range []struct {
		method, target string
		status         []int
	}{
		{"GET", "/", []int{404}}, {"GET", "/nothing", []int{404}}, {"GET", "/ws/", []int{404}}, {"GET", "/wsx", []int{404}}, {"GET", "/sse", []int{400}},
		{"POST", "/publish/nothing", []int{404}}, {"GET", "/history/nothing", []int{404}}, {"GET", "/publish/" + topic, []int{405}}, {"GET", "/metrics", []int{404}}, {"GET", "/status", []int{404}},
		{"GET", "/ws", []int{400, 426}}, {"POST", "/ws", []int{400, 405, 426}}, {"GET", "//ws", []int{301, 307, 308, 400, 404}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://"+c.addr(0)+tc.target, nil)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		res, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", tc.method, tc.target, err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !slices.Contains(tc.status, res.StatusCode) {
			t.Errorf("%s %s: %d %s, want %v", tc.method, tc.target, res.StatusCode, body, tc.status)
		}
	}
	for target, want := range map[string]int{"/ws?token=x&access_token=y": 101, "/nothing": 404, "/ws%2f": 404} {
		if got := upgrade(t, c.addr(0), target, ""); got != want {
			t.Errorf("upgrade of %s: %d, want %d", target, got, want)
		}
	}
	if got := upgrade(t, c.addr(0), "/ws", "Authorization: Bearer nonsense\r\n"); got != 101 {
		t.Errorf("a token while none is asked for: %d", got)
	}
	for _, garbage := range []string{"\x16\x03\x01\x02\x00\x01\x00", "GET /ws HTTP/9.9\r\n\r\n", "\r\n\r\n\r\n", "GET /ws HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n"} {
		conn, err := net.Dial("tcp", c.addr(0))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, garbage)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(waitTime))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the connection is kept", garbage)
		}
		_ = conn.Close()
	}
	if f := dial(t, c.addr(0)).ask(`"op":"ping"`); f.Op != "pong" {
		t.Errorf("after all that: %+v", f)
	}
}

// A peer that never finishes its request, or whose headers never end, is let go: it costs a connection
// for a bounded time and memory within bounds, and nobody else notices. The function returned waits until
// all have been let go.
func halfOpenRequests(t *testing.T, c *aCluster) (wait func()) {
	var wg sync.WaitGroup
	open := func(name string, f func(net.Conn)) {
		wg.Go(func() {
			conn, err := net.Dial("tcp", c.addr(0))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			start := time.Now()
			_ = conn.SetDeadline(start.Add(waitTime))
			go f(conn)
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: still open after %v", name, time.Since(start))
			}
		})
	}
	for range 50 {
		open("silence", func(net.Conn) {})
		open("half a request", func(c net.Conn) { _, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\n") })
	}
	open("a header every 100 ms", func(c net.Conn) {
		_, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\n")
		for i := 0; err == nil; i++ {
			time.Sleep(100 * time.Millisecond)
			_, err = fmt.Fprintf(c, "X-%d: x\r\n", i)
		}
	})
	open("headers without end", func(c net.Conn) {
		_, err := io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\n")
		line := "X: " + strings.Repeat("x", 4000) + "\r\n"
		for i := 0; err == nil && i < 100_000; i++ {
			_, err = io.WriteString(c, line)
		}
	})
	open("a body that never comes", func(c net.Conn) {
		_, _ = io.WriteString(c, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	})
	open("a body that never comes, for /ws", func(c net.Conn) {
		_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	})
	return wg.Wait
}
