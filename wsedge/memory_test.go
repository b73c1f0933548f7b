package wsedge

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/cache"
)

// BenchmarkIdleConnection tells what a connection without subscriptions holds of this process's memory: heap and stacks.
// The clients are in another process. Run it with -benchtime=2000x: an op is a connection.
func BenchmarkIdleConnection(b *testing.B) {
	for _, secure := range []bool{false, true} {
		name := "plain"
		if secure {
			name = "tls"
		}
		b.Run(name, func(b *testing.B) {
			overTLS = secure
			defer func() { overTLS = false }()
			e := newEdge(b, cache.Config{}, nil)
			held := func() uint64 {
				runtime.GC()
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc + m.StackInuse
			}
			before := held()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %v", dialVariable, e.addr, b.N, secure))
			end, err := cmd.StdinPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			until(b, "the connections", func() bool { return e.srv.Stats().Connections == int64(b.N) })
			b.ReportMetric(float64(held()-before)/float64(b.N), "B/conn")
			end.Close()
			if err := cmd.Wait(); err != nil {
				b.Error(err)
			}
		})
	}
}

// dialVariable tells a process of this test binary to be the clients of another one.
const dialVariable = "TIDEWIRE_TEST_DIAL"

// dialed connects as it is told to, and keeps the connections until its input ends.
func dialed(what string) {
	var addr string
	var n int
	var secure bool
	if _, err := fmt.Sscan(what, &addr, &n, &secure); err != nil {
		panic(err)
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			panic(err)
		}
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		}
		fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		r := bufio.NewReaderSize(conn, 16)
		for line := ""; !strings.Contains(line, "welcome"); {
			if line, err = r.ReadString('}'); err != nil {
				panic(err)
			}
		}
		conns[i] = conn
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(conns)
}
