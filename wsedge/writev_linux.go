//go:build linux

package wsedge

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canTryWrite says that a write can be tried without waiting on this system.
const canTryWrite = true

// maxBuffers is how many pieces one write takes (IOV_MAX).
const maxBuffers = 1024

// tryWriter writes many pieces to a socket with one system call that does not wait. It belongs to one
// worker; it allocates nothing once its table has grown.
type tryWriter struct {
	iov []syscall.Iovec
	n   uintptr
	err syscall.Errno
	do  func(fd uintptr)
}

func (w *tryWriter) init() {
	w.do = func(fd uintptr) {
		for {
			w.n, _, w.err = syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iov[0])), uintptr(len(w.iov)))
			if w.err != syscall.EINTR {
				return
			}
		}
	}
}

func (w *tryWriter) add(b []byte) {
	iov := syscall.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	w.iov = append(w.iov, iov)
}

func (w *tryWriter) reset() {
	clear(w.iov)
	w.iov = w.iov[:0]
}

// write tries once. A socket that takes nothing is n = 0 without an error.
func (w *tryWriter) write(raw syscall.RawConn) (n int, err error) {
	// Control and not Write: the socket does not block, and the write lock may be the waiter's.
	if err := raw.Control(w.do); err != nil {
		return 0, err
	}
	switch w.err {
	case 0:
		return int(w.n), nil
	case syscall.EAGAIN:
		return 0, nil
	default:
		return 0, w.err
	}
}

// waitWritable returns when the socket takes bytes again, or with an error when the connection was
// closed. It asks the socket itself each time rather than trusting that a notification is still to
// come: the one for the room that there is now may have been given before anyone waited.
func waitWritable(raw syscall.RawConn) error {
	return raw.Write(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds[:], 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}

// waitReadable returns when there is something to read, or the connection has ended or met its deadline: whoever reads then
// is told. As with waitWritable the socket itself is asked each time.
func waitReadable(raw syscall.RawConn) {
	_ = raw.Read(func(fd uintptr) bool {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds[:], 0)
		return err != nil && err != unix.EINTR || n > 0
	})
}
