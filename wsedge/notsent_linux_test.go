package wsedge

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tidewire/tidewire/cache"
)

// A client that reads nothing fills no more of the kernel's memory than mostUnsent and what is on its way: 300 of them had 850 MB
// of records waiting there, since a send buffer grows to 4 MB by itself.
func TestUnreadIsLittleInTheKernel(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 20}, nil)
	big := []byte(`"` + strings.Repeat("x", 8000) + `"`)
	const records = 2000
	for range records {
		e.node.put("one", 0, []byte("k"), big)
	}
	c := e.dialByHand(4 << 10)
	c.op(`{"op":"sub","subject":"/one/*","history":-1}`)
	s := e.onlySession()
	tcp := tcpConn(s.conn)
	if tcp == nil {
		t.Fatal("no TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	set := 0
	if cerr := raw.Control(func(fd uintptr) { set, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) }); cerr != nil || err != nil || set != mostUnsent {
		t.Errorf("the socket takes %d bytes that are not sent, want %d: %v, %v", set, mostUnsent, cerr, err)
	}
	until(t, "the client to be blocked", func() bool { return e.srv.Stats().Blocked == 1 })
	unsent := 0
	if cerr := raw.Control(func(fd uintptr) { unsent, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }); cerr != nil || err != nil || unsent == 0 || unsent > 2*mostUnsent {
		t.Errorf("%d bytes wait in the kernel, %d at most: %v, %v", unsent, 2*mostUnsent, cerr, err)
	}
}
