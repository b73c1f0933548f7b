package node

import (
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/tidewire/tidewire/replication"
)

// links are the ways between the nodes of a cluster in this process, one from each to each other: a small
// proxy that can stop to carry anything, as a cable that is pulled does. Nothing is closed by a cut. What
// was on its way never arrives: the connections of before break when the link is mended.
type links struct {
	t  *testing.T
	by map[[2]string]*link // from, to
}

func newLinks(t *testing.T) *links { return &links{t: t, by: map[[2]string]*link{}} }

// between puts a link on the way of one node to each other. It is for startCluster's change.
func (l *links) between(cfg *Config) {
	peers := slices.Clone(cfg.Peers)
	for i, p := range peers {
		if p.ID != cfg.NodeID {
			k := newLink(l.t, p.Addr)
			l.by[[2]string{string(cfg.NodeID), string(p.ID)}] = k
			peers[i] = replication.Peer{ID: p.ID, Addr: k.ln.Addr().String()}
		}
	}
	cfg.Peers = peers
}

// cut stops all links of a node, both ways; mend lets them go on.
func (l *links) cut(node string)  { l.set(node, true) }
func (l *links) mend(node string) { l.set(node, false) }

func (l *links) set(node string, down bool) {
	for ends, k := range l.by {
		if ends[0] == node || ends[1] == node {
			k.set(down)
		}
	}
}

// link is a proxy to one address.
type link struct {
	ln net.Listener
	to string
	wg sync.WaitGroup

	mu    sync.Mutex
	cond  *sync.Cond
	down  bool
	times int // it was cut
	over  bool
	conns map[net.Conn]bool
}

func newLink(t *testing.T, to string) *link {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{ln: ln, to: to, conns: map[net.Conn]bool{}}
	k.cond = sync.NewCond(&k.mu)
	k.wg.Go(k.accept)
	t.Cleanup(k.close)
	return k
}

func (k *link) set(down bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = down
	if down {
		k.times++
		return
	}
	k.cond.Broadcast()
	for c := range k.conns {
		_ = c.Close()
	}
}

// pass waits while the link is down; false when nothing more is carried on a connection that was made
// after so many cuts.
func (k *link) pass(times int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.down && !k.over {
		k.cond.Wait()
	}
	return !k.over && k.times == times
}

func (k *link) keep(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.conns[c] = true
	}
	return !k.over
}

func (k *link) close() {
	k.mu.Lock()
	k.over = true
	k.cond.Broadcast()
	for c := range k.conns {
		_ = c.Close()
	}
	k.mu.Unlock()
	_ = k.ln.Close()
	k.wg.Wait()
}

func (k *link) accept() {
	for {
		c, err := k.ln.Accept()
		if err != nil {
			return
		}
		k.wg.Go(func() { k.carry(c) })
	}
}

func (k *link) carry(c net.Conn) {
	defer func() { _ = c.Close() }()
	k.mu.Lock()
	times := k.times
	k.mu.Unlock()
	if !k.keep(c) || !k.pass(times) {
		return
	}
	d, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer func() { _ = d.Close() }()
	if !k.keep(d) {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, d}, {d, c}} {
		wg.Go(func() {
			k.copy(way[1], way[0], times)
			_ = c.Close() // a side that has gone is gone for both
			_ = d.Close()
		})
	}
	wg.Wait()
	k.mu.Lock()
	delete(k.conns, c)
	delete(k.conns, d)
	k.mu.Unlock()
}

func (k *link) copy(dst io.Writer, src io.Reader, times int) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !k.pass(times) {
			return
		}
		if _, werr := dst.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}
