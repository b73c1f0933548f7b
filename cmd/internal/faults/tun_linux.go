package faults

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tuns delays and loses packets. Each host that an impaired way begins or ends at gets a TUN device; a way
// is impaired by routing it into the sender's device, where this process reads the packets, and loses them,
// or hands them, later, to the receiver's. Both ends keep their addresses, and open connections go on.
type tuns struct {
	net *netns

	// Guarded by net.mu.
	dev map[string]*tun

	wg   sync.WaitGroup
	done chan struct{}
}

// tun is one host's device and the ways that begin there, by the receiver's IPv4 address.
type tun struct {
	file *os.File
	ways sync.Map // uint32 -> *impairedWay
}

type impairedWay struct {
	im    atomic.Pointer[Impairment]
	to    *os.File
	queue chan packet
}

type packet struct {
	due  time.Time
	data []byte
}

const (
	tunName = leftoverPrefix + "0"
	tunMTU  = 1500
	// tunQueue is how many packets may be under way on one way: more than a window's worth. What comes on
	// top is lost, as a router would.
	tunQueue = 4096
)

func newTuns(n *netns) *tuns {
	return &tuns{net: n, dev: map[string]*tun{}, done: make(chan struct{})}
}

// set is called with net.mu held.
func (t *tuns) set(from, to string, im Impairment) error {
	soft := im
	if im.Cut { // the hardware address sees to it
		soft = Impairment{}
	}
	key := t.key(to)
	src := t.dev[from]
	if (soft == Impairment{}) {
		if src == nil {
			return nil
		}
		if _, there := src.ways.LoadAndDelete(key); !there {
			return nil
		}
		return ip(t.net.device(from), fmt.Sprintf("route del %s/32 dev %s\n", t.net.addr(to), tunName))
	}
	if from == Driver || to == Driver {
		return fmt.Errorf("delay and loss between %s and %s: only between hosts with a namespace", from, to)
	}
	src, err := t.device(from)
	if err != nil {
		return err
	}
	dst, err := t.device(to)
	if err != nil {
		return err
	}
	if w, there := src.ways.Load(key); there {
		w.(*impairedWay).im.Store(&soft)
		return nil
	}
	w := &impairedWay{to: dst.file, queue: make(chan packet, tunQueue)}
	w.im.Store(&soft)
	src.ways.Store(key, w)
	t.wg.Go(func() { w.deliver(t.done) })
	return ip(t.net.device(from), fmt.Sprintf("route replace %s/32 dev %s src %s\n", t.net.addr(to), tunName, t.net.addr(from)))
}

func (t *tuns) key(host string) uint32 {
	var a, b, c, d uint32
	_, _ = fmt.Sscanf(t.net.addr(host), "%d.%d.%d.%d", &a, &b, &c, &d)
	return a<<24 | b<<16 | c<<8 | d
}

// device returns a host's device, made on first use.
func (t *tuns) device(host string) (*tun, error) {
	if d := t.dev[host]; d != nil {
		return d, nil
	}
	f, err := openTun(t.net.device(host))
	if err != nil {
		return nil, fmt.Errorf("a TUN device on %s: %w", host, err)
	}
	if err := ip(t.net.device(host), fmt.Sprintf("link set %s mtu %d up\n", tunName, tunMTU)); err != nil {
		_ = f.Close()
		return nil, err
	}
	d := &tun{file: f}
	t.dev[host] = d
	t.wg.Go(d.read)
	return d, nil
}

// read takes what the host sends into its device until this is closed.
func (d *tun) read() {
	buf := make([]byte, tunMTU+100)
	for {
		n, err := d.file.Read(buf)
		if err != nil {
			return
		}
		if n < 20 || buf[0]>>4 != 4 {
			continue
		}
		v, ok := d.ways.Load(binary.BigEndian.Uint32(buf[16:20]))
		if !ok {
			continue
		}
		w := v.(*impairedWay)
		im := w.im.Load()
		if lucky(im.Loss) {
			continue
		}
		select {
		case w.queue <- packet{time.Now().Add(im.Delay), append([]byte(nil), buf[:n]...)}:
		default:
		}
	}
}

// deliver hands packets to the receiver when they are due. It lives as long as the network does: a way that
// was healed has nothing in its queue.
func (w *impairedWay) deliver(done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case p := <-w.queue:
			timer := time.NewTimer(time.Until(p.due))
			select {
			case <-done:
				timer.Stop()
				return
			case <-timer.C:
			}
			_, _ = w.to.Write(p.data) // a packet that cannot be handed over is lost
		}
	}
}

func (t *tuns) close() {
	close(t.done)
	for _, d := range t.dev {
		_ = d.file.Close()
	}
	t.wg.Wait()
}

// openTun makes a TUN device in a network namespace.
func openTun(ns string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result, 1)
	go func() {
		// The thread changes its namespace and is not given back: it ends with this goroutine.
		runtime.LockOSThread()
		f, err := openTunHere(ns)
		c <- result{f, err}
	}()
	r := <-c
	return r.f, r.err
}

func openTunHere(ns string) (*os.File, error) {
	h, err := os.Open("/run/netns/" + ns)
	if err != nil {
		return nil, err
	}
	defer func() { _ = h.Close() }()
	if err := unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	// A packet of an impaired way comes in by another device than its answer leaves by.
	for _, dev := range []string{"all", "default", "eth0"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/rp_filter", []byte("0"), 0); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], tunName)
	req.flags = unix.IFF_TUN | unix.IFF_NO_PI
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
		_ = unix.Close(fd)
		return nil, errno
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}
