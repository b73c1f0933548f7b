//go:build !linux

package wsedge

import (
	"net"
	"time"
)

// setUserTimeout does nothing: a client that was unplugged is noticed when the system gives up.
func setUserTimeout(net.Conn, time.Duration) {}
