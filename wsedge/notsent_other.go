//go:build !linux

package wsedge

import "net"

// setMostUnsent does nothing: the system's send buffer is the bound.
func setMostUnsent(*net.TCPConn, int) {}
