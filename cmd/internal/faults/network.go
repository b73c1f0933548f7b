package faults

import (
	"math/rand/v2"
	"os/exec"
	"time"
)

// Driver is the name of the host that this process is on: verify's producers and clients.
const Driver = "driver"

// Network is what the processes of a run talk over. Hosts have names: n1… for nodes, k1… for brokers,
// Driver for this process. Its methods may be called by any goroutine.
type Network interface {
	// String says which kind it is, for reports.
	String() string
	// Add makes a host.
	Add(host string) error
	// Command returns a command that will run on a host.
	Command(host, path string, args ...string) *exec.Cmd
	// Listen returns the address at which a process on the host listens for what Dial's callers connect to.
	Listen(host string, port int) (string, error)
	// Dial returns the address at which from reaches that port.
	Dial(from, to string, port int) (string, error)
	// Impair makes the way from one host to another, in this direction only, worse; the zero Impairment
	// makes it whole again. Connections are not closed: their packets are lost or late.
	Impair(from, to string, im Impairment) error
	// Heal makes every way whole again.
	Heal() error
	// Close removes it all. Its processes must have ended.
	Close() error
}

// Impairment is what is wrong with a way.
type Impairment struct {
	Cut   bool          // nothing passes
	Delay time.Duration // of every packet
	Loss  float64       // the share of packets that are lost, 0 to 1
}

// way is one direction between two hosts.
type way struct{ from, to string }

// lucky is true with some probability: which packets are lost is not part of a schedule.
func lucky(p float64) bool { return rand.Float64() < p }

// cutBoth cuts both directions between each of one side and each of the other.
func cutBoth(n Network, left, right []string) error {
	return between(n, left, right, Impairment{Cut: true})
}

// between impairs both directions between two sides.
func between(n Network, left, right []string, im Impairment) error {
	for _, a := range left {
		for _, b := range right {
			if a == b {
				continue
			}
			if err := n.Impair(a, b, im); err != nil {
				return err
			}
			if err := n.Impair(b, a, im); err != nil {
				return err
			}
		}
	}
	return nil
}
