package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// netns gives each host a network namespace with one end of a veth pair; the other ends are ports of a
// bridge, which has an address too: that of Driver.
//
// A way is cut by giving the sender a wrong hardware address for the receiver: packets leave and nobody
// takes them, in that direction alone, which is what a broken network does. (A blackhole route would tell
// the sender, and a filter needs programs that are not everywhere.) Delay and loss are made by a process of
// the kernel's where it has one, netem; it is often missing, so packets of an impaired way are routed
// through this process instead: see tun_linux.go.
//
// What it makes has names of leftovers.go.
type netns struct {
	subnet string // of /24: "10.213.7."

	mu       sync.Mutex
	number   map[string]int // host: the last byte of its address
	tuns     *tuns
	impaired map[way]bool
}

const (
	driverNumber = 254
	wrongMAC     = "02:74:77:66:ff:ff"
)

func newNetns() (*netns, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("not root")
	}
	sweepNetns()
	n := &netns{subnet: fmt.Sprintf("10.213.%d.", os.Getpid()%250), number: map[string]int{Driver: driverNumber}, impaired: map[way]bool{}}
	err := ip("", fmt.Sprintf("link add %[1]s type bridge\nlink set %[1]s address %[2]s\nlink set %[1]s up\naddr add %[3]s/24 dev %[1]s\n",
		n.device("br"), mac(driverNumber), n.addr(Driver)))
	if err == nil {
		n.tuns = newTuns(n)
		return n, nil
	}
	return nil, errors.Join(err, n.Close())
}

func (n *netns) String() string { return "network namespaces" }

func (n *netns) device(host string) string { return ownName(host) }

func (n *netns) addr(host string) string { return n.subnet + strconv.Itoa(n.number[host]) }

func mac(number int) string { return fmt.Sprintf("02:74:77:66:00:%02x", number) }

// Add numbers nodes from 1 and brokers from 101, as their names do.
func (n *netns) Add(host string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.number[host] != 0 {
		return fmt.Errorf("host %s is there already", host)
	}
	number, err := strconv.Atoi(host[1:])
	if err != nil || number < 1 || number > 50 {
		return fmt.Errorf("host name %q: want n1 to n50 or k1 to k50", host)
	}
	if host[0] == 'k' {
		number += 100
	}
	n.number[host] = number
	dev := n.device(host)
	if err := ip("", fmt.Sprintf("netns add %[1]s\nlink add %[1]s type veth peer name eth0 netns %[1]s\nlink set %[1]s master %[2]s up\n", dev, n.device("br"))); err != nil {
		return err
	}
	if err := ip(dev, fmt.Sprintf("link set lo up\nlink set eth0 address %s\nlink set eth0 up\naddr add %s/24 dev eth0\n", mac(number), n.addr(host))); err != nil {
		return err
	}
	for other := range n.number {
		if other != host {
			if err := errors.Join(n.neighbour(host, other, false), n.neighbour(other, host, false)); err != nil {
				return err
			}
		}
	}
	return nil
}

// neighbour tells one host another's hardware address, for good, so that nothing is asked for meanwhile.
func (n *netns) neighbour(from, to string, cut bool) error {
	hw := mac(n.number[to])
	if cut {
		hw = wrongMAC
	}
	ns, dev := n.device(from), "eth0"
	if from == Driver {
		ns, dev = "", n.device("br")
	}
	return ip(ns, fmt.Sprintf("neigh replace %s lladdr %s dev %s nud permanent\n", n.addr(to), hw, dev))
}

func (n *netns) Command(host, path string, args ...string) *exec.Cmd {
	if host == Driver {
		return exec.Command(path, args...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", n.device(host), path}, args...)...)
}

func (n *netns) Listen(host string, port int) (string, error) { return n.Dial("", host, port) }

func (n *netns) Dial(_, to string, port int) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.number[to] == 0 {
		return "", fmt.Errorf("no host %s", to)
	}
	return fmt.Sprintf("%s:%d", n.addr(to), port), nil
}

func (n *netns) Impair(from, to string, im Impairment) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.number[from] == 0 || n.number[to] == 0 {
		return fmt.Errorf("impair %s to %s: no such host", from, to)
	}
	n.impaired[way{from, to}] = im != Impairment{}
	return errors.Join(n.neighbour(from, to, im.Cut), n.tuns.set(from, to, im))
}

func (n *netns) Heal() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	for w, bad := range n.impaired {
		if bad {
			errs = append(errs, n.neighbour(w.from, w.to, false), n.tuns.set(w.from, w.to, Impairment{}))
		}
	}
	clear(n.impaired)
	return errors.Join(errs...)
}

func (n *netns) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tuns != nil {
		n.tuns.close()
	}
	var errs []error
	for host := range n.number {
		if host != Driver {
			// The kernel takes a namespace away, with its end of the pair, in its own time; so the pair first.
			errs = append(errs, ip("", fmt.Sprintf("link del %[1]s\nnetns del %[1]s\n", n.device(host))))
		}
	}
	return errors.Join(append(errs, ip("", "link del "+n.device("br")+"\n"))...)
}

// ip runs commands of iproute2 in a namespace, or in this one.
func ip(ns, batch string) error {
	args := []string{"-batch", "-"}
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out), batch)
	}
	return nil
}

// sweepNetns removes what processes that live no more have left. Failing to is no failure: it is in nobody's
// way.
func sweepNetns() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		name := strings.Fields(line + " -")[0]
		if !abandoned(name) {
			continue
		}
		pids, _ := exec.Command("ip", "netns", "pids", name).Output()
		for _, p := range strings.Fields(string(pids)) {
			if pid, err := strconv.Atoi(p); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		if abandoned(l.Name()) {
			_ = exec.Command("ip", "link", "del", l.Name()).Run()
		}
	}
}
