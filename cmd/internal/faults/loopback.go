package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/tidewire/tidewire/internal/freeport"
)

// loopback is the network where namespaces are not allowed: every process listens on a port of 127.0.0.1, and
// each way between two hosts leads through a proxy in this process, which can hold back what it carries.
//
// It is coarser than namespaces. A cut holds bytes back instead of losing packets, so that after healing what
// was sent before still arrives; a lost packet is a pause of the retransmission's length; and new connections
// over a cut way are taken, and then hear nothing. Brokers reach each other directly.
type loopback struct {
	mu      sync.Mutex
	changed *sync.Cond
	hosts   map[string]bool
	ports   map[string]string // "host:port" to the real address
	proxies map[string]*proxy // "from>to:port"
	ways    map[way]Impairment
	closed  bool
	wg      sync.WaitGroup
}

type proxy struct {
	ln       net.Listener
	from, to string
	target   string
	conns    map[net.Conn]bool // guarded by loopback.mu
}

// retransmission is how long a lost packet holds a connection up.
const retransmission = 200 * time.Millisecond

func newLoopback() *loopback {
	l := &loopback{hosts: map[string]bool{Driver: true}, ports: map[string]string{}, proxies: map[string]*proxy{}, ways: map[way]Impairment{}}
	l.changed = sync.NewCond(&l.mu)
	return l
}

func (l *loopback) String() string {
	return "loopback with TCP proxies (network namespaces are not allowed here)"
}

func (l *loopback) Add(host string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[host] = true
	return nil
}

func (l *loopback) Command(_, path string, args ...string) *exec.Cmd {
	return exec.Command(path, args...)
}

// Listen chooses a free port the first time that it is asked for a host's.
func (l *loopback) Listen(host string, port int) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listen(host, port)
}

func (l *loopback) listen(host string, port int) (string, error) {
	key := fmt.Sprintf("%s:%d", host, port)
	if a := l.ports[key]; a != "" {
		return a, nil
	}
	if !l.hosts[host] {
		return "", fmt.Errorf("no host %s", host)
	}
	ports, err := freeport.Take(1) // it must find it again after it was killed
	if err != nil {
		return "", err
	}
	l.ports[key] = fmt.Sprintf("127.0.0.1:%d", ports[0])
	return l.ports[key], nil
}

func (l *loopback) Dial(from, to string, port int) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	target, err := l.listen(to, port)
	if err != nil || from == to || from == Driver || from[0] == 'k' {
		return target, err
	}
	key := fmt.Sprintf("%s>%s:%d", from, to, port)
	if p := l.proxies[key]; p != nil {
		return p.ln.Addr().String(), nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	p := &proxy{ln: ln, from: from, to: to, target: target, conns: map[net.Conn]bool{}}
	l.proxies[key] = p
	l.wg.Go(func() { l.accept(p) })
	return ln.Addr().String(), nil
}

func (l *loopback) accept(p *proxy) {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.DialTimeout("tcp", p.target, time.Second)
		if err != nil {
			_ = in.(*net.TCPConn).SetLinger(0) // as if nobody had listened
			_ = in.Close()
			continue
		}
		l.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		closed := l.closed
		l.mu.Unlock()
		if closed {
			_, _ = in.Close(), out.Close()
			return
		}
		l.wg.Go(func() { l.carry(p, in, out, p.from, p.to) })
		l.wg.Go(func() { l.carry(p, out, in, p.to, p.from) })
	}
}

// carry copies one direction. The end of one connection ends the other, once the way lets it pass.
func (l *loopback) carry(p *proxy, src, dst net.Conn, from, to string) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !l.pass(way{from, to}) {
			break
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			break
		}
	}
	_, _ = src.Close(), dst.Close()
	l.mu.Lock()
	delete(p.conns, src)
	delete(p.conns, dst)
	l.mu.Unlock()
}

// pass waits until something may pass on a way; false: never, the network is closed.
func (l *loopback) pass(w way) bool {
	l.mu.Lock()
	for l.ways[w].Cut && !l.closed {
		l.changed.Wait()
	}
	im, closed := l.ways[w], l.closed
	l.mu.Unlock()
	wait := im.Delay
	if im.Loss > 0 && lucky(im.Loss) {
		wait += retransmission
	}
	if wait > 0 && !closed {
		time.Sleep(wait)
	}
	return !closed
}

func (l *loopback) Impair(from, to string, im Impairment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.hosts[from] || !l.hosts[to] {
		return fmt.Errorf("impair %s to %s: no such host", from, to)
	}
	l.ways[way{from, to}] = im
	l.changed.Broadcast()
	return nil
}

func (l *loopback) Heal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.ways)
	l.changed.Broadcast()
	return nil
}

func (l *loopback) Close() error {
	l.mu.Lock()
	l.closed = true
	var errs []error
	for _, p := range l.proxies {
		errs = append(errs, p.ln.Close())
		for c := range p.conns {
			_ = c.Close()
		}
	}
	l.changed.Broadcast()
	l.mu.Unlock()
	l.wg.Wait()
	return errors.Join(errs...)
}
