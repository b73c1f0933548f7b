package wsedge

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// The protocol over TLS is the protocol: whatever a test of it finds out of a plain connection holds here too.
func TestOverTLS(t *testing.T) {
	overTLS = true
	defer func() { overTLS = false }()
	for name, test := range map[string]func(*testing.T){
		"Handshake": TestHandshake, "OpsWithTheHandshake": TestOpsWithTheHandshake, "BadInput": TestBadInput,
		"History": TestHistory, "Publish": TestPublish, "Heartbeats": TestHeartbeats, "Drain": TestDrain,
		"PingDuringBacklog": TestPingDuringBacklog, "CutAndResume": TestCutAndResume,
		"SlowReader": TestSlowReader, "DeadReaderIsCut": TestDeadReaderIsCut, "PartialWritesTearNoFrame": TestPartialWritesTearNoFrame,
		"ReplaysOfOneSessionAreBounded": TestReplaysOfOneSessionAreBounded, "ReplaysOfOneSessionTakeTurns": TestReplaysOfOneSessionTakeTurns,
		"ConflationIsItsTwin": TestConflationIsItsTwin,
		"Stream":              TestStream, "StreamRefused": TestStreamRefused, "StreamDrain": TestStreamDrain,
		"StreamSlowReader": TestStreamSlowReader, "StreamCutAndResume": TestStreamCutAndResume, "StreamAsALaterRequest": TestStreamAsALaterRequest,
		"PublishOverHTTP": TestPublishOverHTTP, "PublishOverHTTPRefused": TestPublishOverHTTPRefused, "LongHistoryOverHTTP": TestLongHistoryOverHTTP,
	} {
		t.Run(name, test)
	}
	if !underRace { // the race detector makes pools forget what they hold, and what is sealed lies in one
		t.Run("DeliveryAllocatesNothing", TestDeliveryAllocatesNothing)
	}
}

// secureEdge is an edge that speaks TLS.
func secureEdge(t testing.TB, change func(*Config)) *edge {
	t.Helper()
	overTLS = true
	defer func() { overTLS = false }()
	return newEdge(t, cache.Config{}, change)
}

// A connection is written to by its worker, without a goroutine that writes beside it: TLS is no way around that.
func TestTLSIsWrittenByTheWorker(t *testing.T) {
	e := secureEdge(t, nil)
	e.dial()
	s := e.onlySession()
	if !canTryWrite {
		t.Skip("writes cannot be tried on this system")
	}
	if s.tls == nil || s.sock == nil || s.raw == nil {
		t.Fatalf("tls %v, socket %v, raw %v", s.tls != nil, s.sock != nil, s.raw != nil)
	}
}

func (e *edge) onlySession() (s *session) {
	e.t.Helper()
	until(e.t, "a session", func() bool {
		e.srv.mu.Lock()
		defer e.srv.mu.Unlock()
		for s = range e.srv.sessions {
			return true
		}
		return false
	})
	return s
}

// A client that stops reading is given one step more than its socket takes, whatever waits for it: the rest stays where
// it can be read again.
func TestSealedIsBounded(t *testing.T) {
	e := secureEdge(t, func(c *Config) { c.SendBuffer = 64 << 10 })
	c := e.dialByHand(64 << 10)
	c.op(`{"op":"sub","subject":"/one/*"}`)
	until(t, "the subscription", func() bool { return e.srv.Stats().Subscriptions == 1 })
	s := e.onlySession()
	v := []byte(`"` + strings.Repeat("x", 30<<10) + `"`)
	const records = 100
	for range records {
		e.node.put("one", 0, []byte("k"), v)
	}
	until(t, "the socket to be full", func() bool { return s.sock.unsent() > 0 })
	if n := s.sock.unsent(); n > sealedStep {
		t.Errorf("%d bytes are sealed and not sent, want at most %d", n, sealedStep)
	}
	for n := 0; n < records; {
		m, err := c.message()
		if err != nil {
			t.Fatal(err)
		}
		if m.Op == "msg" {
			if n++; m.Pos[2] != uint64(n) {
				t.Fatalf("%d, want %d", m.Pos[2], n)
			}
		}
		if k := s.sock.unsent(); k > sealedStep {
			t.Errorf("%d bytes are sealed and not sent, want at most %d", k, sealedStep)
		}
	}
}

// Old versions are refused, new ones taken, and the newest preferred.
func TestTLSVersions(t *testing.T) {
	e := secureEdge(t, nil)
	for _, v := range []struct{ most, want uint16 }{{tls.VersionTLS11, 0}, {tls.VersionTLS12, tls.VersionTLS12}, {0, tls.VersionTLS13}} {
		cfg := e.tls.Clone()
		cfg.MinVersion, cfg.MaxVersion, cfg.NextProtos = tls.VersionTLS10, v.most, []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", e.addr, cfg)
		if v.want == 0 {
			if err == nil {
				t.Errorf("version %x was taken", v.most)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if st := conn.ConnectionState(); st.Version != v.want || st.NegotiatedProtocol != "http/1.1" {
			t.Errorf("version %x, protocol %q", st.Version, st.NegotiatedProtocol)
		}
		conn.Close()
	}
	until(t, "the failure to be counted", func() bool { return e.metric("tidewire_tls_handshakes_failed_total", "handshake") == 1 })
}

// Who speaks plain HTTP to the port is told what is wrong, whole, and not kept.
func TestPlainHTTPToATLSPort(t *testing.T) {
	e := secureEdge(t, nil)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 8000) + "\r\n\r\n",
		"POST /publish/one/k HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + strings.Repeat("a", 3000),
	} {
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, request)
		_ = conn.SetDeadline(time.Now().Add(waitTime))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.20q: %v", request, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "https://") {
			t.Errorf("%.20q: %s %q %v", request, resp.Status, b, err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%.20q: the connection ended with %v", request, err)
		}
		conn.Close()
	}
	if n := e.metric("tidewire_tls_handshakes_failed_total", "plain_http"); n != 3 {
		t.Errorf("%v were counted", n)
	}
}

// Clients that begin a handshake and do not go on keep nobody waiting, and are cut when its time is over.
func TestStalledTLSHandshakes(t *testing.T) { inBubble(t, testStalledTLSHandshakes) }

func testStalledTLSHandshakes(t *testing.T) {
	e := secureEdge(t, func(c *Config) { c.HandshakeTimeout = 3 * time.Second })
	var stalled []net.Conn
	for i := range 50 {
		conn := e.plain()
		defer conn.Close()
		_, _ = conn.Write([]byte{22, 3, 1, 2, 0}[:i%6])
		stalled = append(stalled, conn)
	}
	c := e.dial() // while all of them are there
	c.send(`{"op":"ping"}`)
	c.expect(`{"op":"pong"}`)
	for _, conn := range stalled {
		_ = conn.SetReadDeadline(time.Now().Add(waitTime))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("a stalled handshake was not cut: %v", err)
		}
	}
	c.send(`{"op":"ping"}`)
	c.expect(`{"op":"pong"}`)
}

// A new certificate is seen by the next connection; those that are there stay.
func TestNewCertificate(t *testing.T) {
	var now atomic.Pointer[tls.Certificate]
	first, second := newCertificate(t, 11), newCertificate(t, 12)
	now.Store(&first)
	e := secureEdge(t, func(c *Config) {
		c.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return now.Load(), nil }}
	})
	e.tls = trusting(first)
	before := e.dial()
	now.Store(&second)
	if conn, err := tls.Dial("tcp", e.addr, trusting(first)); err == nil {
		conn.Close()
		t.Error("the old certificate is still shown")
	}
	e.tls = trusting(second)
	for _, c := range []*client{before, e.dial()} {
		c.send(`{"op":"ping"}`)
		c.expect(`{"op":"pong"}`)
	}
}

// A stream over TLS ends with TLS's own goodbye, which tells an end from a cut.
func TestSealedStreamEnds(t *testing.T) {
	e := secureEdge(t, nil)
	plain, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetDeadline(time.Now().Add(waitTime))
	tap := &tapConn{Conn: plain}
	cfg := e.tls.Clone()
	cfg.MaxVersion = tls.VersionTLS12 // which shows the types of its records
	conn := tls.Client(tap, cfg)
	fmt.Fprintf(conn, "GET /sse?subject=/one/* HTTP/1.1\r\nHost: x\r\n\r\n")
	r := bufio.NewReader(conn)
	for line := ""; !strings.Contains(line, "subbed"); {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	e.srv.SetAway("elsewhere")
	if rest, err := io.ReadAll(r); err != nil || !strings.Contains(string(rest), "bye") {
		t.Errorf("the stream ended with %v after %q", err, rest)
	}
	last := byte(0)
	for b := tap.read; len(b) >= 5; b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):] {
		last = b[0]
	}
	if last != 21 {
		t.Errorf("the last record is of type %d, not an alert", last)
	}
}

// tapConn keeps what was read.
type tapConn struct {
	net.Conn
	read []byte
}

func (c *tapConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read = append(c.read, p[:n]...)
	return n, err
}

// The question of an ACME authority is answered by the certificate alone: no request follows.
func TestACMEQuestion(t *testing.T) {
	e := secureEdge(t, func(c *Config) { c.TLS.NextProtos = []string{"http/1.1", "acme-tls/1"} })
	cfg := e.tls.Clone()
	cfg.NextProtos = []string{"acme-tls/1"}
	conn, err := tls.Dial("tcp", e.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p := conn.ConnectionState().NegotiatedProtocol; p != "acme-tls/1" {
		t.Errorf("protocol %q", p)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(waitTime))
	if b, err := io.ReadAll(conn); len(b) > 0 || err != nil && isTimeout(err) {
		t.Errorf("%q, %v", b, err)
	}
	e.dial() // and others go on as ever
}

// A client that asks for new keys again and again, and reads nothing, is cut before what it asks for fills the memory.
func TestKeyUpdatesAreBounded(t *testing.T) {
	sock := &clientConn{Conn: discardConn{}}
	sock.hold()
	n := 0
	for ; n < 1<<20; n++ {
		if _, err := sock.Write(make([]byte, 40)); err != nil {
			break
		}
	}
	if n == 0 || n*40 > maxSealed {
		t.Errorf("%d bytes were kept", n*40)
	}
}

type discardConn struct{ net.Conn }

// What TLS has sealed and the socket has not taken is not sent once the right to it is lost, as little as what was not
// sealed yet: neither by the worker nor by the end of the connection, which says goodbye. The record is as long as what
// is sealed at a time, so that no rest of it waits elsewhere.
func TestRightsLostOverTLS(t *testing.T) {
	for _, how := range []string{"renewed", "revoked"} {
		t.Run(how, func(t *testing.T) {
			overTLS = true
			defer func() { overTLS = false }()
			e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
				c.SendBuffer, c.CloseTimeout = 4<<10, 200*time.Millisecond
			})
			a.give(t, "more", "alice", time.Hour, "/one/*", "/prices/*")
			a.give(t, "less", "alice", time.Hour, "/prices/*")
			c := e.dialByHand(4 << 10)
			c.op(`{"op":"auth","token":"more"}`)
			c.op(`{"op":"sub","subject":"/one/*"}`)
			read := func(want string) {
				for op := ""; op != want; {
					m, err := c.message()
					if err != nil {
						t.Fatal(err)
					}
					op = m.Op
				}
			}
			read("live")
			e.node.put("one", 0, []byte("k"), []byte("1"))
			read("msg")
			s := e.onlySession()
			value := []byte(`"` + strings.Repeat("x", sealStep) + `"`)
			frame := e.node.enc.AppendMsg(nil, bridge.TopicPartition{Topic: "one"}, bridge.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("k"), Value: value},
				bridge.Position{Epoch: 1, Seqno: 2}, bridge.Position{Epoch: 1, Seqno: 1}, true)
			value = append(value[:len(value)-1-(len(frame)-sealStep)], '"')
			for range 8 { // all as long, up to position 9
				e.node.put("one", 0, []byte("k"), value)
			}
			until(t, "the socket to be full", func() bool { return e.srv.Stats().Blocked > 0 && s.sock.unsent() > 0 })
			s.mu.Lock()
			if len(s.rest) > 0 {
				t.Errorf("%d bytes are not sealed", len(s.rest))
			}
			s.mu.Unlock()
			if how == "renewed" {
				c.op(`{"op":"auth","token":"less"}`)
			} else {
				e.srv.EndSessions(func(*auth.Identity) bool { return true })
			}
			lostAll(t, s)
			sealed := e.srv.Stats().Bytes
			if n := s.sock.unsent(); n > 0 {
				t.Errorf("%d bytes are still to be sent", n)
			}
			// It reads again. The reset may not get through to a socket that was full: when the node is done with it, it ends.
			var reading sync.WaitGroup
			var all []byte
			reading.Go(func() { all, _ = io.ReadAll(onlyReader{c.r}) })
			until(t, "the session to be gone", func() bool { return e.srv.Stats().Connections == 0 })
			c.conn.Close()
			reading.Wait()
			if first := sealed % sealStep; int64(len(all)) > sealed-first-sealStep { // the last one was not to come
				t.Errorf("%d bytes came of %d that were sealed, %d of them read before", len(all), sealed, first)
			}
		})
	}
}
