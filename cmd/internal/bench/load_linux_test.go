package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// aServer shakes hands and hands connections to a script.
type aServer struct {
	ln net.Listener
	wg sync.WaitGroup
}

func serve(t *testing.T, script func(c net.Conn, r *bufio.Reader)) *aServer {
	t.Helper()
	return serveRaw(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err == nil {
			script(c, r)
		}
	})
}

// serveRaw leaves the handshake to the script.
func serveRaw(t *testing.T, script func(c net.Conn)) *aServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &aServer{ln: ln}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer func() { _ = c.Close() }()
				script(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *aServer) client(d dialect) client {
	a := netip.MustParseAddrPort(s.ln.Addr().String())
	return client{dialect: d, addr: a, host: a.String(), path: "/0", subject: "/t/k"}
}

// welcome is the answer to a handshake, with frames right behind it.
func welcome(frames ...string) []byte {
	b := []byte("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + handshakeAnswer + "\r\n\r\n")
	for _, f := range frames {
		b = append(b, appendServerFrame(nil, []byte(f))...)
	}
	return b
}

func aMsg(n uint64) string {
	return fmt.Sprintf(`{"op":"msg","subject":"/t/k","pos":[3,7,%d],"ts":1,"data":%s}`, n+1, appendValue(nil, time.Now().UnixNano(), n, 64))
}

func aLoad(t *testing.T) *Load {
	t.Helper()
	l, err := newLoad(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func waitContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// clientText reads one frame that a client sent.
func clientText(t *testing.T, r *bufio.Reader) (op byte, text string) {
	var b []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			return 0, ""
		}
		b = append(b, c)
		if len(b) < 2 {
			continue
		}
		plain := append([]byte{b[0], b[1] &^ 0x80}, b[2:]...)
		need, header, _, err := frameNeed(plain)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		if header > 0 && len(b) == need+4 { // the key is not in need
			for i := header + 4; i < len(b); i++ {
				b[i] ^= b[header+(i-header-4)&3]
			}
			return b[0] & 15, string(b[header+4:])
		}
	}
}

// The load tells what a server lost, repeated or mixed in, answers its pings, and notices when it closes.
func TestLoadCountsWhatWentWrong(t *testing.T) {
	ping := make(chan string, 1)
	s := serve(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = c.Write(welcome(`{"op":"welcome"}`))
		if _, text := clientText(t, r); text != `{"op":"sub","id":1,"subject":"/t/k"}` {
			t.Errorf("sub: %s", text)
		}
		var b []byte
		for _, f := range []string{`{"op":"subbed","id":1,"subject":"/t/k","at":[[3,7,0]]}`, `{"op":"live","subject":"/t/k"}`,
			aMsg(0), aMsg(1), aMsg(3), aMsg(3), aMsg(2), aMsg(9), `{"op":"msg","subject":"/t/k","data":{"of":"another"}}`} {
			b = append(b, appendServerFrame(nil, []byte(f))...)
		}
		b = append(b, frameOf(opPing, "are you there")...)
		_, _ = c.Write(b)
		op, text := clientText(t, r)
		ping <- fmt.Sprint(op, " ", text)
		_, _ = c.Write(frameOf(opClose, "\x0f\xa8slow"))
	})
	l := aLoad(t)
	if err := l.open(waitContext(t), []client{s.client(speakTidewire)}); err != nil {
		t.Fatal(err)
	}
	if err := l.until(waitContext(t), func(c counters) (bool, string) { return c.closed == 1, "not closed" }); err != nil {
		t.Fatal(err)
	}
	if got := <-ping; got != "10 are you there" {
		t.Errorf("the pong: %s", got)
	}
	// 2 is missing before 3; 3 and 2 came again, or too late, which is the same; 4 to 8 are missing before 9.
	c := l.counters()
	if c.messages != 6 || c.missing != 1+5 || c.repeated != 2 || c.foreign != 1 || c.open != 0 || c.ready != 0 {
		t.Errorf("%+v", c)
	}
	if w := l.take(); w.groups[0].n != 6 || w.cpu < 0 || w.count.messages != 6 {
		t.Errorf("%d latencies, %v", w.groups[0].n, w.cpu)
	}
	if w := l.take(); w.groups[0].n != 0 {
		t.Error("a second window holds the first one's")
	}
}

// Clients that lost their server resume on the other with what they have.
func TestLoadResumes(t *testing.T) {
	resumed := make(chan string, 1)
	second := serve(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = c.Write(welcome(`{"op":"welcome"}`))
		_, text := clientText(t, r)
		resumed <- text
		_, _ = c.Write(appendServerFrame(appendServerFrame(nil, []byte(`{"op":"subbed","at":[[3,7,2]],"recovered":true}`)), []byte(aMsg(2))))
		_, _ = io.Copy(io.Discard, r)
	})
	stop := make(chan struct{})
	first := serve(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = c.Write(welcome(`{"op":"welcome"}`))
		_, _ = clientText(t, r)
		_, _ = c.Write(appendServerFrame(appendServerFrame(nil, []byte(`{"op":"subbed","at":[[3,7,0]]}`)), []byte(aMsg(1))))
		<-stop
	})
	l := aLoad(t)
	cl := first.client(speakTidewire)
	cl.other, cl.resumes = second.client(speakTidewire).addr, true
	if err := l.open(waitContext(t), []client{cl}); err != nil {
		t.Fatal(err)
	}
	if err := l.until(waitContext(t), func(c counters) (bool, string) { return c.messages == 1, "no message" }); err != nil {
		t.Fatal(err)
	}
	l.roam()
	close(stop)
	err := l.until(waitContext(t), func(c counters) (bool, string) { return c.messages == 2 && c.ready == 1, "not back" })
	if err != nil {
		t.Fatal(err)
	}
	if got := <-resumed; got != `{"op":"sub","id":1,"subject":"/t/k","resume":[[3,7,2]]}` {
		t.Error(got)
	}
	if c := l.counters(); c.resumed != 1 || c.notResumed != 0 || c.closed != 1 || c.missing != 0 || c.repeated != 0 {
		t.Errorf("%+v", c)
	}
	_ = l.Close()
}

func TestLoadTellsWhyItCannotOpen(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string
	}{
		"refused sub": {string(welcome(`{"op":"error","id":1,"code":"bad_subject","message":"no such topic"}`)), "bad_subject: no such topic"},
		"handshake":   {"HTTP/1.1 503 Service Unavailable\r\n\r\nisolated", "503 Service Unavailable"},
		"not ours":    {"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n", "101 Switching"},
		"no end":      {strings.Repeat("x", maxHandshake+10), "has no end"},
		"bad frame":   {string(welcome()) + "\x01\x00", errFrame.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(conn net.Conn, r *bufio.Reader) {
				_, _ = conn.Write([]byte(c.answer))
				_, _ = io.Copy(io.Discard, r)
			})
			l := aLoad(t)
			err := l.open(waitContext(t), []client{s.client(speakTidewire)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Error(err)
			}
			_ = l.Close()
		})
	}
	l := aLoad(t)
	gone := netip.MustParseAddrPort("127.0.0.1:1")
	if err := l.open(waitContext(t), []client{{addr: gone}}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mute := serve(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	l2 := aLoad(t)
	if err := l2.open(ctx, []client{mute.client(speakTidewire)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = l2.Close()
}

// Several publications in a frame, Centrifuge's ping, and replies.
func TestLoadSpeaksCentrifuge(t *testing.T) {
	pong := make(chan string, 1)
	s := serve(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = c.Write(welcome())
		if _, text := clientText(t, r); text != "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"/t/k\"}}" {
			t.Errorf("%q", text)
		}
		push := func(n uint64) string {
			return `{"push":{"channel":"k","pub":{"data":` + string(appendValue(nil, 1, n, 64)) + `}}}`
		}
		_, _ = c.Write(appendServerFrame(nil, []byte(`{"id":1,"connect":{"client":"x","ping":25}}`+"\n"+`{"id":2,"subscribe":{}}`+"\n"+push(0))))
		_, _ = c.Write(appendServerFrame(nil, []byte(push(1)+"\n"+push(2)+"\n"+push(3))))
		_, _ = c.Write(appendServerFrame(nil, []byte(`{}`)))
		_, text := clientText(t, r)
		pong <- text
		_, _ = io.Copy(io.Discard, r)
	})
	l := aLoad(t)
	if err := l.open(waitContext(t), []client{s.client(speakCentrifuge)}); err != nil {
		t.Fatal(err)
	}
	if got := <-pong; got != "{}" {
		t.Error(got)
	}
	if c := l.counters(); c.messages != 4 || c.missing != 0 || c.repeated != 0 {
		t.Errorf("%+v", c)
	}
	_ = l.Close()
}
