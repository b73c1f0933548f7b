package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tidewire/tidewire/internal/certtest"
)

// serveTLS is serve behind TLS; what the server writes goes out in pieces of so many bytes.
func serveTLS(t *testing.T, ca *certtest.CA, piece int, script func(c net.Conn, r *bufio.Reader)) client {
	pair := ca.Pair(t, 2)
	s := serveRaw(t, func(raw net.Conn) {
		c := tls.Server(&inPieces{raw, piece}, &tls.Config{Certificates: []tls.Certificate{pair}})
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err == nil {
			script(c, r)
		}
	})
	cl := s.client(speakTidewire)
	cl.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}
	return cl
}

// inPieces writes a few bytes at a time.
type inPieces struct {
	net.Conn
	size int
}

func (c *inPieces) Write(b []byte) (n int, err error) {
	for p := range slices.Chunk(b, c.size) {
		if _, err := c.Conn.Write(p); err != nil {
			return n, err
		}
		n += len(p)
	}
	return n, nil
}

// counting counts what is written.
type counting struct {
	net.Conn
	sent *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// What is said does not depend on how TLS and TCP cut it, and is counted as without.
func TestLoadSpeaksTLS(t *testing.T) {
	ca := certtest.NewCA(t)
	for _, piece := range []int{1, 7, 1 << 20} {
		pong := make(chan string, 1)
		cl := serveTLS(t, ca, piece, func(c net.Conn, r *bufio.Reader) {
			_, _ = c.Write(welcome(`{"op":"welcome"}`))
			if _, text := clientText(t, r); text != `{"op":"sub","id":1,"subject":"/t/k"}` {
				t.Errorf("sub: %s", text)
			}
			b := appendServerFrame(nil, []byte(`{"op":"subbed","id":1,"subject":"/t/k","at":[[3,7,0]]}`))
			for n := range uint64(50) {
				b = appendServerFrame(b, []byte(aMsg(n)))
			}
			b = appendServerFrame(b, []byte(aMsg(51)))
			b = append(b, frameOf(opPing, "are you there")...)
			for record := range slices.Chunk(b, 100) { // frames in several records, and several in one
				_, _ = c.Write(record)
			}
			_, text := clientText(t, r)
			pong <- text
			_, _ = c.Write(frameOf(opClose, "\x0f\xa8slow"))
		})
		l := aLoad(t)
		if err := l.open(waitContext(t), []client{cl}); err != nil {
			t.Fatal(err)
		}
		if err := l.until(waitContext(t), func(c counters) (bool, string) { return c.closed == 1, "not closed" }); err != nil {
			t.Fatal(err)
		}
		if got := <-pong; got != "are you there" {
			t.Errorf("the pong: %s", got)
		}
		if c := l.counters(); c.messages != 51 || c.missing != 1 || c.repeated != 0 || c.foreign != 0 || c.open != 0 {
			t.Errorf("pieces of %d: %+v", piece, c)
		}
		if got := l.agreed(); !strings.HasPrefix(got, "TLS 1.3, ") {
			t.Errorf("agreed on %q", got)
		}
		_ = l.Close()
	}
}

// Many at a time, each with its own stream.
func TestLoadSpeaksTLSWithMany(t *testing.T) {
	cl := serveTLS(t, certtest.NewCA(t), 1<<20, func(c net.Conn, r *bufio.Reader) {
		_, _ = c.Write(welcome())
		_, _ = clientText(t, r)
		b := appendServerFrame(nil, []byte(`{"op":"subbed","id":1,"subject":"/t/k","at":[[3,7,0]]}`))
		for n := range uint64(20) {
			_, _ = c.Write(appendServerFrame(b, []byte(aMsg(n))))
			b = nil
		}
		_, _ = io.Copy(io.Discard, r)
	})
	l := aLoad(t)
	clients := slices.Repeat([]client{cl}, 300)
	if err := l.open(waitContext(t), clients); err != nil {
		t.Fatal(err)
	}
	err := l.until(waitContext(t), func(c counters) (bool, string) { return c.messages == 20*300, "not all came" })
	if c := l.counters(); err != nil || c.missing != 0 || c.repeated != 0 || c.ready != 300 {
		t.Errorf("%v: %+v", err, c)
	}
	_ = l.Close()
}

func TestLoadTellsWhyTLSFails(t *testing.T) {
	ca := certtest.NewCA(t)
	idle := func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }
	stranger := serveTLS(t, certtest.NewCA(t), 1<<20, idle)
	stranger.tls.RootCAs = ca.Pool()
	misnamed := serveTLS(t, ca, 1<<20, idle)
	misnamed.tls = misnamed.tls.Clone()
	misnamed.tls.ServerName = "example.com"
	answering := func(answer []byte) client {
		cl := serveRaw(t, func(c net.Conn) {
			_, _ = c.Write(answer)
			_, _ = io.Copy(io.Discard, c)
		}).client(speakTidewire)
		cl.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}
		return cl
	}
	hangup := serveRaw(t, func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 5)) }).client(speakTidewire)
	hangup.tls = stranger.tls.Clone()
	for want, cl := range map[string]client{
		"certificate signed by unknown authority": stranger,
		"wanted to match example.com":             misnamed,
		"does not look like a TLS handshake":      answering([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")),
	} {
		l := aLoad(t)
		if err := l.open(waitContext(t), []client{cl}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
		_ = l.Close()
	}
	l := aLoad(t)
	if err := l.open(waitContext(t), []client{hangup}); err == nil || !strings.Contains(err.Error(), "TLS with 127.0.0.1:") {
		t.Errorf("a server that hangs up in the handshake: %v", err)
	}
	_ = l.Close()

	// Nobody answers: the load ends all the same, and its goroutines with it.
	ctx, cancel := context.WithCancel(t.Context())
	mute := answering(nil)
	l = aLoad(t)
	cancel()
	if err := l.open(ctx, slices.Repeat([]client{mute}, 10)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = l.Close()
}

// What comes right behind a handshake, before the thread has the connection back, is not lost: tickets, or what a server
// says unasked.
func TestLoadTakesWhatCameWithTheHandshake(t *testing.T) {
	ca, said := certtest.NewCA(t), make(chan struct{})
	pair := ca.Pair(t, 2)
	const messages = 100
	var sent atomic.Int64
	got := int64(0)
	cl := serveRaw(t, func(raw net.Conn) {
		c := tls.Server(&counting{raw, &sent}, &tls.Config{Certificates: []tls.Certificate{pair}})
		b := appendServerFrame(welcome(), []byte(`{"op":"subbed","id":1,"subject":"/t/k","at":[[3,7,0]]}`))
		for n := range uint64(messages) {
			b = appendServerFrame(b, []byte(aMsg(n)))
		}
		_, _ = c.Write(b)
		close(said)
		_, _ = io.Copy(io.Discard, c)
	}).client(speakTidewire)
	cl.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}

	// The thread does not run: its steps are taken here, in the order in which they do harm.
	th, err := newThread(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		th.ending = true
		ended := make(chan struct{})
		go func() { th.run(); close(ended) }()
		<-ended
	}()
	th.add([]client{cl})
	th.connectMore()
	c := th.conns[0]
	wait := func(events int16) {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: events}}, 30_000); err != nil {
			t.Fatal(err)
		}
	}
	wait(unix.POLLOUT)
	th.connected(c)
	// What was written need not be there to read yet.
	for all := false; !all || got < sent.Load(); {
		select {
		case <-said:
			all = true
		default:
		}
		for {
			n, err := unix.Read(c.fd, th.buf)
			if n <= 0 {
				if !errors.Is(err, unix.EAGAIN) {
					t.Fatalf("%d bytes, %v", n, err)
				}
				break
			}
			got += int64(n)
			if err := c.wire.push(th.buf[:n]); err != nil {
				t.Fatal(err)
			}
		}
	}
	th.shaking.Wait()
	th.runTasks()
	if th.count.messages != messages || th.count.missing != 0 || th.count.ready != 1 {
		t.Errorf("%+v, failed: %v", th.count, th.failed.Load())
	}
}

// A wire whose connection was closed does not write to whoever has the descriptor next.
func TestWireIsClosed(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }()
	w := newWire(fds[0])
	if n, err := w.Write([]byte("a")); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	w.close()
	if _, err := w.Write([]byte("b")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	var got [8]byte
	if n, err := unix.Read(fds[1], got[:]); n != 1 || err != nil {
		t.Errorf("%q, %v", got[:max(0, n)], err)
	}
}

func TestWireIsBounded(t *testing.T) {
	w := newWire(-1)
	for range 4 {
		if err := w.push(make([]byte, maxShake/4)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.push([]byte{1}); err == nil {
		t.Error("more than the bound was taken")
	}
}
