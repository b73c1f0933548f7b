//go:build linux

package wsedge

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout has the kernel end a connection whose peer has acknowledged nothing for so long
// (TCP_USER_TIMEOUT). A stream has no pongs: without it a client that was unplugged would be kept for as long
// as the kernel repeats itself, a quarter of an hour.
func setUserTimeout(conn net.Conn, d time.Duration) {
	tcp := tcpConn(conn)
	if tcp == nil {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}
