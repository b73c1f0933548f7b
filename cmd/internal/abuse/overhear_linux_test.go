package abuse

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a client says to a port is heard, and nothing else. When others say more on the interface at the same time than there
// is time to hear, it may be less, and is tried again.
func TestOverhear(t *testing.T) {
	want := bytes.Repeat([]byte("the client's "), 1000)
	for begun := time.Now(); ; {
		said := overhear(t, want)
		switch {
		case len(said) == 1 && bytes.Equal(said[0], want[:maxOverheard]):
			return
		case len(said) > 1, len(said) == 1 && !bytes.HasPrefix(want, said[0]), time.Since(begun) > waitTime:
			t.Fatalf("heard %d streams: %.100q", len(said), said)
		}
	}
}

// overhear has a client say something to a port, and returns what was heard.
func overhear(t *testing.T, want []byte) [][]byte {
	e, err := listen()
	if errors.Is(err, unix.EPERM) {
		t.Skip("NOT RUN: listening to the loopback interface needs CAP_NET_RAW")
	} else if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Write([]byte("the server's")); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = c.Write(want[:100])
		_, _ = c.Write(want[100:])
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	defer func() { _ = c.Close() }()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	return e.stop([]string{l.Addr().String()})
}
