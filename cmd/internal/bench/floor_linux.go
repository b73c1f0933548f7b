package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The floor is what a server cannot go below: it answers the handshake, and writes frames that lie ready, of the
// size that Tidewire's have, one write(2) a client, on one thread. It knows nothing of subscriptions, positions,
// resuming, heartbeats or Kafka.
//
// Lines on its standard input tell it what to write, see [sender]; at its end it ends.

// FloorOptions are the flags of the floor program.
type FloorOptions struct {
	Listen string // host:port
	Size   int    // of a value, in bytes
	Keys   int    // 0: every message goes to every client; else message i goes to the clients at /i%Keys
}

type floor struct {
	o     FloorOptions
	frame []byte // ready; the stamp is set before it is sent
	at    int    // where the value is
	many  []byte // floodBatch frames
	seq   uint64

	reader *bufio.Reader // of the handshakes, one after the other

	mu      sync.Mutex // guards joined, which the handshakes fill
	joined  []floorConn
	clients []floorConn
	byKey   [][]int // of the fds
}

type floorConn struct {
	fd  int
	key int
	// rest is how much of many is still to be sent when flooding: a frame must not be left half sent.
	rest int
}

// floodBatch is how many messages go into one write when flooding.
const floodBatch = 32

// Floor runs the floor program until its input ends or ctx does. It prints its address, a line, once it listens.
func Floor(ctx context.Context, o FloorOptions, in io.Reader, out io.Writer) error {
	if o.Size < MinSize {
		return fmt.Errorf("a value has at least %d bytes", MinSize)
	}
	f := &floor{o: o, byKey: make([][]int, max(1, o.Keys)), reader: bufio.NewReader(nil)}
	f.frame, f.at = floorFrame(o.Size)
	for range floodBatch {
		f.many = append(f.many, f.frame...)
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = ln.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			// In turn: a handshake is small, and its client sends it at once.
			if err := f.shake(c); err != nil {
				fmt.Fprintln(os.Stderr, "floor: handshake:", err)
			}
		}
	})
	if _, err := fmt.Fprintln(out, ln.Addr()); err != nil {
		return err
	}
	defer f.close()
	return f.obey(ctx, in)
}

// floorFrame is a frame as Tidewire would send it, and where its value begins.
func floorFrame(size int) ([]byte, int) {
	payload := append([]byte(`{"op":"msg","subject":"/bench/k0000","pos":[0,1,1000000],"prev":[1,999999],"ts":1700000000000,"data":`), appendValue(nil, 0, 0, size)...)
	frame := appendServerFrame(nil, append(payload, '}'))
	return frame, bytes.Index(frame, stampBytes)
}

// shake answers one handshake and takes the socket out of Go's hands: the poller would be woken for it.
func (f *floor) shake(c net.Conn) error {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	f.reader.Reset(c)
	req, err := http.ReadRequest(f.reader)
	if err != nil {
		return err
	}
	key, err := strconv.Atoi(strings.TrimPrefix(req.URL.Path, "/"))
	if err != nil || key < 0 || f.o.Keys > 0 && key >= f.o.Keys {
		return fmt.Errorf("no key %q", req.URL.Path)
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(s uintptr) { fd, dupErr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dupErr != nil {
		return errors.Join(err, dupErr)
	}
	// Before the answer: who has it may be sent messages.
	f.mu.Lock()
	f.joined = append(f.joined, floorConn{fd: fd, key: key})
	f.mu.Unlock()
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", handshakeAnswer)
	return err
}

func (f *floor) join() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.joined {
		f.clients = append(f.clients, c)
		f.byKey[c.key%len(f.byKey)] = append(f.byKey[c.key%len(f.byKey)], c.fd)
	}
	f.joined = f.joined[:0]
}

func (f *floor) close() {
	f.join()
	for _, c := range f.clients {
		_ = unix.Close(c.fd)
	}
}

// obey does what the lines of its input say.
func (f *floor) obey(ctx context.Context, in io.Reader) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		f.join()
		word, arg, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(arg)
		if err != nil {
			return fmt.Errorf("line %q: %w", lines.Text(), err)
		}
		switch word {
		case "send":
			f.send(n)
		case "flood":
			f.flood(ctx, time.Duration(n)*time.Millisecond)
		default:
			return fmt.Errorf("line %q: want send or flood", lines.Text())
		}
	}
	return lines.Err()
}

// send sends n messages.
func (f *floor) send(n int) {
	now := time.Now().UnixNano()
	for range n {
		count, to := f.seq, f.byKey[0]
		if f.o.Keys > 0 {
			count, to = f.seq/uint64(f.o.Keys), f.byKey[f.seq%uint64(f.o.Keys)]
		}
		f.seq++
		setStamp(f.frame, f.at, now, count)
		for _, fd := range to {
			// A full socket loses the message: the floor promises nothing, and the load counts it as missing.
			_, _ = writeNow(fd, f.frame)
		}
	}
}

// flood writes to whichever client takes it, floodBatch messages at a time, for so long.
func (f *floor) flood(ctx context.Context, long time.Duration) {
	end := time.Now().Add(long)
	for time.Now().Before(end) && ctx.Err() == nil {
		now := time.Now().UnixNano()
		for i := range floodBatch {
			setStamp(f.many, i*len(f.frame)+f.at, now, 0)
		}
		wrote := false
		for i := range f.clients {
			c := &f.clients[i]
			b := f.many[len(f.many)-c.rest:]
			if c.rest == 0 {
				b = f.many
			}
			n, errno := writeNow(c.fd, b)
			if errno != 0 {
				continue
			}
			c.rest = len(b) - n
			wrote = true
		}
		if !wrote { // all are full: let the reader have a turn
			time.Sleep(50 * time.Microsecond)
		}
	}
	// What was begun is finished.
	for i := range f.clients {
		for c := &f.clients[i]; c.rest > 0 && ctx.Err() == nil; {
			n, errno := writeNow(c.fd, f.many[len(f.many)-c.rest:])
			if errno == unix.EAGAIN {
				time.Sleep(50 * time.Microsecond)
				continue
			} else if errno != 0 {
				break
			}
			c.rest -= n
		}
	}
}

// writeNow writes to a socket without waiting; see readNow.
func writeNow(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
