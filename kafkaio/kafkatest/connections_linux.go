package kafkatest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// ConnectionsTo returns the local ends, as the kernel writes them, of this machine's open connections to an address on
// loopback, host:port.
func ConnectionsTo(t testing.TB, addr string) map[string]bool {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) > 3 && strings.HasSuffix(field[2], fmt.Sprintf(":%04X", n)) && field[3] == "01" { // established
			out[field[1]] = true
		}
	}
	return out
}
