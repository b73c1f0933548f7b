package kafkatest

import (
	"net"
	"strconv"
	"testing"

	"github.com/tidewire/tidewire/internal/freeport"
)

// freePorts returns n different ports of 127.0.0.1 on which nothing listens. A broker's are named in the configuration of
// all its peers and must be the same after a restart, so port 0 will not do.
func freePorts(n int) ([]int, error) { return freeport.Take(n) }

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
