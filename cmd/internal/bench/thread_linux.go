package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// readSize is what one read takes at most.
	readSize = 256 << 10
	// maxEvents is how many sockets one epoll_wait reports.
	maxEvents = 512
	// maxConnecting bounds the connections of a thread that are being made at a time: a server's backlog is
	// finite, and a full one costs a second's wait.
	maxConnecting = 200
	// retryAfter is the pause before a refused connection is tried again.
	retryAfter = 20 * time.Millisecond
)

// thread is an OS thread with an epoll instance and its connections.
type thread struct {
	id        int
	published published
	failed    atomic.Pointer[error]

	mu    sync.Mutex // guards tasks and ended
	tasks []func()
	ended bool

	// The rest belongs to run.
	epoll, wake int
	conns       []*conn
	waiting     []*conn // to be connected, in this order
	connecting  int
	retries     []*conn // wait for retryAfter
	retryAt     time.Time
	buf         []byte
	plain       []byte         // what TLS made of it
	agreed      string         // what a TLS handshake agreed on
	shaking     sync.WaitGroup // the goroutines of TLS handshakes
	out         []byte
	now         int64 // of the read whose frames are being looked at
	cur         *conn // whose they are
	onFrame     func(op byte, payload []byte) error
	latency     [maxGroups]histogram
	got         [maxGroups]int64 // messages
	count       counters
	cpuTaken    time.Duration
	waitTaken   time.Duration
	roaming     bool
	ending      bool
}

func newThread(id int) (*thread, error) {
	t := &thread{id: id, buf: make([]byte, readSize), plain: make([]byte, plainSize)}
	t.onFrame = t.frame // once: a method value allocates
	var err error
	if t.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, t.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	if err != nil {
		_ = unix.Close(t.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return t, nil
}

// do runs f on the thread, between two turns, and waits for it.
func (t *thread) do(f func()) {
	done := make(chan struct{})
	if t.post(func() { f(); close(done) }) {
		<-done
	}
}

// post is do for who does not wait; it returns false, and f is not run, when the thread has ended.
func (t *thread) post(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.tasks = append(t.tasks, f)
	one := [8]byte{1}
	_, _ = unix.Write(t.wake, one[:]) // fails only if it is full, and then the thread wakes anyhow
	return true
}

func (t *thread) runTasks() {
	t.mu.Lock()
	tasks := t.tasks
	t.tasks = nil
	t.mu.Unlock()
	for _, f := range tasks {
		f()
	}
}

func (t *thread) run() {
	// Never unlocked: the thread ends with the goroutine, and so does what was counted of it.
	runtime.LockOSThread()
	events := make([]unix.EpollEvent, maxEvents)
	for !t.ending {
		timeout := -1
		if len(t.retries) > 0 {
			timeout = int(max(1, time.Until(t.retryAt).Milliseconds()))
		}
		n, err := unix.EpollWait(t.epoll, events, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.fail(fmt.Errorf("epoll_wait: %w", err))
			break
		}
		for i := range max(0, n) {
			if events[i].Fd < 0 {
				var drain [8]byte
				_, _ = unix.Read(t.wake, drain[:])
				t.runTasks()
				continue
			}
			t.ready(t.conns[events[i].Fd], events[i].Events)
		}
		t.connectMore()
		t.published.store(&t.count)
	}
	t.mu.Lock()
	t.ended = true
	tasks := t.tasks
	t.tasks = nil
	t.mu.Unlock()
	for _, f := range tasks {
		f()
	}
	for _, c := range t.conns {
		if c.fd >= 0 {
			if c.wire != nil {
				c.wire.close()
			}
			_ = unix.Close(c.fd)
		}
	}
	t.shaking.Wait()
	_, _ = unix.Close(t.epoll), unix.Close(t.wake)
	t.count.open, t.count.ready = 0, 0
	t.published.store(&t.count)
}

// fail keeps the first error for Load.err.
func (t *thread) fail(err error) { t.failed.CompareAndSwap(nil, &err) }

// ready handles what epoll says of a connection.
func (t *thread) ready(c *conn, events uint32) {
	if c.fd < 0 {
		return // closed earlier in this turn
	}
	if c.state == stateConnecting {
		t.connected(c)
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, errno := readNow(c.fd, t.buf)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return
	case errno != 0:
		t.over(c, fmt.Errorf("read: %w", errno))
		return
	case n == 0:
		t.over(c, errServerClosed)
		return
	}
	t.count.reads++
	t.count.bytes += int64(n)
	t.now = time.Now().UnixNano()
	t.cur = c
	if c.sealed != nil {
		t.sealedBytes(c, t.buf[:n])
		return
	}
	t.take(c, t.buf[:n])
}

// take takes what a server said.
func (t *thread) take(c *conn, b []byte) {
	if c.state == stateHandshake {
		var err error
		if b, err = t.handshake(c, b); err != nil {
			t.lost(c, err)
			return
		}
	}
	if err := c.in.feed(b, t.onFrame); err != nil {
		t.lost(c, err)
	}
}

// readNow reads from a socket that does not block. It goes past the scheduler, which a call that cannot wait
// need not be told of: that saves about a tenth of what a small read costs.
func readNow(fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

func (t *thread) add(clients []client) {
	for _, cl := range clients {
		c := &conn{client: cl, fd: -1, slot: int32(len(t.conns)), to: cl.addr}
		t.conns = append(t.conns, c)
		t.waiting = append(t.waiting, c)
	}
}

func (t *thread) connectMore() {
	if len(t.retries) > 0 && !time.Now().Before(t.retryAt) {
		t.waiting = append(t.waiting, t.retries...)
		t.retries = t.retries[:0]
	}
	for len(t.waiting) > 0 && t.connecting < maxConnecting && t.failed.Load() == nil {
		c := t.waiting[0]
		if t.waiting = t.waiting[1:]; len(t.waiting) == 0 {
			t.waiting = nil
		}
		if err := t.connect(c); err != nil {
			t.gone(c, false, err)
		}
	}
}

func (t *thread) retry(c *conn) {
	if len(t.retries) == 0 {
		t.retryAt = time.Now().Add(retryAfter)
	}
	t.retries = append(t.retries, c)
}

func (t *thread) deaden(group uint8) {
	for _, c := range t.conns {
		if c.fd >= 0 && c.group == group {
			// Errors and the end of the connection are still reported.
			_ = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Fd: c.slot})
		}
	}
}

func (t *thread) cut() {
	for _, c := range t.conns {
		if c.fd >= 0 {
			t.lost(c, errCut)
		}
	}
}

// threadWait is how long the calling thread could have run and had no processor; zero where the kernel does not count it.
func threadWait() time.Duration {
	text, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		return 0
	}
	var ran, waited int64 // nanoseconds
	if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
		return 0
	}
	return time.Duration(waited)
}

// threadCPU is the processor time of the calling thread.
func threadCPU() time.Duration {
	var ru unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
