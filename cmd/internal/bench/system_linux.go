package bench

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"
)

// system is a server under test and what feeds it. Its methods belong to one goroutine.
//
// Message i, counted from zero, has the key i % keys and in it the count i / keys.
type system interface {
	// clients returns n clients, spread over the keys.
	clients(n int) []client
	// send emits the next n messages.
	send(n int) error
	// settle waits until what was sent is where the server can have it.
	settle(ctx context.Context) error
	// usage is what the server under test used; known is false if that cannot be said.
	usage() (u usage, known bool, err error)
	// died tells whether the server has ended.
	died() error
	close()
}

// feed is the flow of messages into a system.
type feed struct {
	keys int
	sent uint64
}

// next returns the key and the count of the next message.
func (f *feed) next() (key int, count uint64) {
	key, count = int(f.sent%uint64(f.keys)), f.sent/uint64(f.keys)
	f.sent++
	return key, count
}

// keyOf spreads n clients over keys.
func keyOf(client, n, keys int) int {
	if n < keys {
		return client * keys / n
	}
	return client % keys
}

// expected is how many messages n clients get of sent.
func expected(sent uint64, n, keys int) int64 {
	full, part := int64(sent/uint64(keys)), int(sent%uint64(keys))
	sum := full * int64(n)
	for i := range n {
		if keyOf(i, n, keys) < part {
			sum++
		}
	}
	return sum
}

// piped is a system whose server makes its messages itself, when told to on its standard input: the floor and the
// centrifuge server.
//
//	send N    sends the next N messages
//	flood MS  sends as much as sockets take, for so many milliseconds (the floor alone)
type piped struct {
	feed
	name    string
	dialect dialect
	proc    *process
	addr    netip.AddrPort
}

const startWait = 20 * time.Second

// startFloor runs this program again as the floor.
func (b *bench) startFloor(keys int) (system, error) {
	args := append(b.o.FloorCommand[1:], "-listen", "127.0.0.1:0", "-size", strconv.Itoa(b.o.Size), "-keys", strconv.Itoa(keys))
	return b.startPiped("floor", speakFloor, keys, b.o.FloorCommand[0], args...)
}

// startCentrifuge runs the small server of testdata/bench/centrifuge.
func (b *bench) startCentrifuge(keys int) (system, error) {
	return b.startPiped("centrifuge", speakCentrifuge, keys, b.o.Centrifuge,
		"-listen", "127.0.0.1:0", "-size", strconv.Itoa(b.o.Size), "-keys", strconv.Itoa(keys))
}

func (b *bench) startPiped(name string, d dialect, keys int, path string, args ...string) (system, error) {
	proc, err := spawn(b.o.ServerCPUs, filepath.Join(b.o.Dir, name+".log"), b.environ(), path, args...)
	if err != nil {
		return nil, err
	}
	s := &piped{feed: feed{keys: keys}, name: name, dialect: d, proc: proc}
	line, err := proc.line(startWait)
	if err == nil {
		s.addr, err = netip.ParseAddrPort(line)
	}
	if err != nil {
		proc.kill()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func (s *piped) clients(n int) []client {
	out := make([]client, n)
	for i := range out {
		key := keyOf(i, n, s.keys)
		out[i] = client{dialect: s.dialect, addr: s.addr, host: s.addr.String(), path: "/" + strconv.Itoa(key)}
		if s.dialect == speakCentrifuge {
			out[i].path, out[i].subject = "/connection/websocket", keyName(key)
		}
	}
	return out
}

func (s *piped) tell(word string, n int) error {
	if _, err := io.WriteString(s.proc.stdin, word+" "+strconv.Itoa(n)+"\n"); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

func (s *piped) send(n int) error {
	s.sent += uint64(n)
	return s.tell("send", n)
}

func (s *piped) flood(d time.Duration) error { return s.tell("flood", int(d.Milliseconds())) }

func (s *piped) settle(context.Context) error { return nil }

func (s *piped) usage() (usage, bool, error) {
	u, err := usageOf(s.proc.cmd.Process.Pid)
	return u, err == nil, err
}

func (s *piped) died() error { return s.proc.died() }

func (s *piped) close() { s.proc.stop(5 * time.Second) }

// keyName is the key of a record, and the channel of the centrifuge server.
func keyName(key int) string { return fmt.Sprintf("k%05d", key) }
