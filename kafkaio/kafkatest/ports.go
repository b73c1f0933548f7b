package kafkatest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// A broker's ports are named in the configuration of all its peers and must be
// the same after a restart, so port 0 will not do. They are taken below the
// range from which kernels give outgoing connections their port (32768 on
// Linux, 49152 elsewhere), else a connection made while a broker is down could
// hold the port it comes back to.
const (
	lowestPort  = 12000
	highestPort = 32000
)

// freePorts returns n different ports of 127.0.0.1 on which nothing listens.
// Another process may still take one before the caller does.
func freePorts(n int) ([]int, error) {
	var ports []int
	seen := make(map[int]bool)
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		p := lowestPort + rand.IntN(highestPort-lowestPort)
		if seen[p] {
			continue
		}
		seen[p] = true
		l, err := net.Listen("tcp", loopback(p))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	return nil, errors.New("no free ports on 127.0.0.1")
}

// Address returns a host:port of loopback to listen on, to leave, and to listen on again: nothing listens there now, and no
// outgoing connection will have it.
func Address(t testing.TB) string {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return loopback(ports[0])
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
