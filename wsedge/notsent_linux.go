package wsedge

import (
	"net"

	"golang.org/x/sys/unix"
)

// setMostUnsent has a socket take no more when so many bytes wait in the kernel to be sent (TCP_NOTSENT_LOWAT). What is on
// its way does not count, so a fast client on a long way is as fast as without; but the kernel lets a send buffer grow to
// 4 MB, and filled one for each client that read nothing: memory that no limit of ours saw, and that counts as the container's.
func setMostUnsent(conn *net.TCPConn, bytes int) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	})
}
