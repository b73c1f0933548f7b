package freeport

import (
	"fmt"
	"net"
	"runtime"
	"testing"
)

// Neither what listens, nor what this process or another took, is given out.
func TestNoPortIsGivenTwice(t *testing.T) {
	const from, to = 11100, 11106 // nobody else takes these
	if runtime.GOOS == "linux" {
		mark, err := net.Listen("unix", fmt.Sprintf("@tidewire-port-%d", from)) // as another process would
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = mark.Close() }()
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", from+1))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	seen := map[int]bool{from: runtime.GOOS == "linux", from + 1: true}
	for {
		ports, err := take(1, from, to)
		if err != nil {
			break
		}
		if seen[ports[0]] {
			t.Fatalf("%d is given out", ports[0])
		}
		seen[ports[0]] = true
	}
	if len(seen) != to-from {
		t.Errorf("given out: %v", seen)
	}
	if ports, err := take(1, from, to); err == nil {
		t.Errorf("there is none, and %v are given out", ports)
	}
}
