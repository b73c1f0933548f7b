package abuse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attacker is one process's part in an attack. Its methods are for any goroutine.
type attacker struct {
	Target
	ctx  context.Context // ends with the attack; all its connections then close
	next atomic.Int64    // source address

	mu  sync.Mutex // guards did
	did map[string]int64
}

// dialTime is how long a connection may take to be made: a server's backlog may be full.
const dialTime = 3 * time.Second

// RunAttacker takes part in an attack until its time is over or stop ends, writes what it did, a line of JSON, and
// returns. It is the whole of an attacker's process.
func RunAttacker(target string, stop context.Context, out io.Writer) error {
	var t Target
	if err := json.Unmarshal([]byte(target), &t); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	// The whole process: threads to come inherit it, those that are there are set one by one.
	if err := lowestPriority(); err != nil {
		return err
	}
	did, err := attack(stop, t)
	if err != nil {
		return err
	}
	did[didCPU] = cpuMillis()
	b, err := json.Marshal(did)
	if err == nil {
		_, err = fmt.Fprintf(out, "%s\n", b)
	}
	return err
}

// attack runs one process's part of an attack and returns what it counted.
func attack(ctx context.Context, t Target) (map[string]int64, error) {
	for _, k := range Attacks() {
		if k.Name != t.Attack {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, t.For)
		defer cancel()
		a := &attacker{Target: t, ctx: ctx, did: map[string]int64{}}
		k.run(a)
		return a.did, nil
	}
	return nil, fmt.Errorf("no attack %q", t.Attack)
}

func lowestPriority() error {
	tasks, err := procTasks("self")
	if err != nil {
		return err
	}
	for _, id := range tasks {
		err := unix.Setpriority(unix.PRIO_PROCESS, id, 19)
		if err == nil {
			// And only when nobody else wants a processor: at nice 19 alone a thread keeps its slice while a node waits for it.
			err = unix.SchedSetAttr(id, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: 19}, 0)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("lowest priority: %w", err)
		}
	}
	return nil
}

// cpuMillis is the processor time that this process has used.
func cpuMillis() int64 {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return (ru.Utime.Nano() + ru.Stime.Nano()) / 1e6
}

func (a *attacker) count(what string, n int64) {
	a.mu.Lock()
	a.did[what] += n
	a.mu.Unlock()
}

// sources is how many addresses an attacker's process has: he has a botnet, and is not stopped by what one address may.
const sources = 16

// dial connects from one of the attacker's addresses, 127.0.32.1 and so on, which are not those of honest clients.
// small gives the socket a small buffer, so that it is soon full. The connection ends with the attack.
func (a *attacker) dial(addr string, small bool) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTime, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(32+a.Process), byte(1+a.next.Add(1)%sources))}}
	d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			// The port is chosen at connect, when the whole address is known: one may serve several servers.
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			if small {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
			}
		})
		return errors.Join(cerr, err)
	}
	c, err := d.DialContext(a.ctx, "tcp4", addr)
	if err != nil {
		if a.ctx.Err() == nil {
			a.count("not connected", 1)
		}
		return nil, err
	}
	a.count("connections", 1)
	return c, nil
}

// closeWithAttack closes a connection when the attack ends, whatever waits in a write to it; the function it returns
// closes it now.
func (a *attacker) closeWithAttack(c io.Closer) (closeNow func()) {
	stop := context.AfterFunc(a.ctx, func() { _ = c.Close() })
	return func() { stop(); _ = c.Close() }
}

// side runs f n times side by side and waits for all.
func (a *attacker) side(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// share is this process's part of n.
func (a *attacker) share(n int) int { return max(1, n/a.Processes) }

const tick = 10 * time.Millisecond

// pace calls f with how much is due at a rate until f returns false or the attack ends. What could not be done in
// time is not made up for beyond a tenth of a second.
func (a *attacker) pace(perSecond float64, f func(due int) bool) {
	t := time.NewTicker(tick)
	defer t.Stop()
	owed, last := 1.0, time.Now()
	for {
		if n := int(owed); n > 0 {
			owed -= float64(n)
			if !f(n) {
				return
			}
		}
		select {
		case <-a.ctx.Done():
			return
		case <-t.C:
		}
		now := time.Now()
		owed = min(owed+perSecond*now.Sub(last).Seconds(), max(1, perSecond/10))
		last = now
	}
}

// one is f as pace wants it, for a single thing at a time.
func one(f func() bool) func(int) bool {
	return func(n int) bool {
		for range n {
			if !f() {
				return false
			}
		}
		return true
	}
}

// alive says whether the other end has not closed a connection on which it says nothing.
func alive(c net.Conn) bool {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	var b [1]byte
	got := error(nil)
	err = raw.Read(func(fd uintptr) bool {
		_, _, got = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err == nil && errors.Is(got, unix.EAGAIN)
}

// request is one that opens a WebSocket; more is further header lines.
func request(addr, token, more string) []byte {
	var b strings.Builder
	b.WriteString("GET /ws HTTP/1.1\r\nHost: " + addr + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tidewire.v1.json\r\n" + more)
	if token != "" {
		b.WriteString("Authorization: Bearer " + token + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

func status(line string) string {
	f := strings.Fields(line)
	if len(f) < 2 {
		return "nothing"
	}
	if _, err := strconv.Atoi(f[1]); err != nil {
		return "nothing"
	}
	return f[1]
}
