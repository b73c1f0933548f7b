// Package freeport finds ports of the loopback interface for servers that must be told beforehand where to listen, and that
// must find their port free again after they were stopped.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
)

// Below the range from which kernels give outgoing connections their port (32768 on Linux, 49152 elsewhere): one of those
// would hold a port on which nobody listens yet, or at the moment.
const (
	lowest = 15000
	above  = 30000
)

// Take returns n different ports of 127.0.0.1 on which nothing listens. No port is given out twice in the life of a process,
// nor, on Linux, while another process that took it lives: what runs side by side does not get in each other's way.
// Any goroutine may call it.
func Take(n int) ([]int, error) { return take(n, lowest, above) }

// Listen listens on a port of Take's, for those who will close the listener and listen there again. Any goroutine may call it.
func Listen() (net.Listener, error) {
	ports, err := Take(1)
	if err != nil {
		return nil, err
	}
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0]))
}

var taken = struct {
	sync.Mutex
	ports map[int]net.Listener // nil where there is nothing to hold for others to see
}{ports: map[int]net.Listener{}}

func take(n, from, to int) (ports []int, err error) {
	taken.Lock()
	defer taken.Unlock()
	port := from + rand.IntN(to-from)
	for range to - from {
		if len(ports) == n {
			break
		}
		if free(port) {
			ports = append(ports, port)
		}
		if port++; port == to {
			port = from
		}
	}
	if len(ports) < n {
		return nil, errors.New("no free ports on 127.0.0.1")
	}
	return ports, nil
}

// free says whether a port is, and takes it. taken is locked.
func free(port int) bool {
	if _, ours := taken.ports[port]; ours {
		return false
	}
	var mark net.Listener
	if runtime.GOOS == "linux" {
		// Not the port itself, which its server is to have: a name that no two processes can hold, and that the kernel
		// takes back from one that ends, however it ends.
		var err error
		if mark, err = net.Listen("unix", fmt.Sprintf("@tidewire-port-%d", port)); err != nil {
			return false
		}
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		if mark != nil {
			_ = mark.Close()
		}
		return false
	}
	taken.ports[port] = mark
	return true
}
