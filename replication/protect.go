package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/replication/peertls"
)

// protection is how the cluster port is protected.
//
//	security  plain
//	set       no     both ends of every connection prove themselves
//	nil       yes    nobody proves anything
//	set       yes    who can prove himself does, the others are let in as they are: for a cluster that goes from
//	                 one to the other node by node
type protection struct {
	security peertls.Security
	plain    bool
}

func (c Config) protection() protection {
	return protection{security: c.Security, plain: c.Security == nil || c.Insecure}
}

// dial opens a connection to a node, which has proved itself when it returns; its deadline is then ctx's.
func (p protection) dial(ctx context.Context, conns *connSet, id bridge.NodeID, addr string) (net.Conn, error) {
	open := func() (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		if c, err = conns.add(c); err != nil {
			return nil, err
		}
		if t, ok := ctx.Deadline(); ok {
			_ = c.SetDeadline(t)
		}
		return c, nil
	}
	raw, err := open()
	if err != nil || p.security == nil {
		return raw, err
	}
	host, _, _ := net.SplitHostPort(addr)
	c, err := p.security.Dial(raw, peertls.Peer{ID: string(id), Host: host})
	if err == nil {
		return c, nil
	}
	_ = raw.Close()
	if p.plain && errors.Is(err, peertls.ErrNotProven) {
		return open()
	}
	return nil, fmt.Errorf("node at %s: %w", addr, err)
}

// patience is how long to wait for what takes so long over a connection without proof, from its dialling to the
// first answer: that takes two round trips, and with a proof four. On a network of long ways nodes would else never
// meet again that do so without a proof.
func (p protection) patience(plain time.Duration) time.Duration {
	if p.security != nil {
		return 2 * plain
	}
	return plain
}

// accept has who dialled c prove itself.
func (p protection) accept(c net.Conn) (net.Conn, error) {
	if p.security == nil {
		return c, nil
	}
	if p.plain {
		var first [1]byte
		if _, err := c.Read(first[:]); err != nil {
			return nil, err
		}
		c = &begun{Conn: c, first: first[:]}
		if first[0] == prefaceMagic[0] {
			return c, nil
		}
	}
	return p.security.Accept(c)
}

// begun is a connection of which the first byte was read already.
type begun struct {
	net.Conn
	first []byte // touched by who reads only
}

func (c *begun) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// OnLoopback says whether a host:port is of this machine alone, by its words: of the names only localhost is.
func OnLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip, _ := netip.ParseAddr(host)
	return err == nil && (host == "localhost" || ip.Unmap().IsLoopback())
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// errOpen: nothing protects the cluster port.
var errOpen = errors.New("the cluster port must be protected, or be on loopback")

// remindEvery is how often a node says that its cluster port is open to all.
const remindEvery = time.Hour

// remind says it, now and every hour, until ctx ends.
func (n *Node) remind(ctx context.Context) {
	if !n.protection.plain || loopback(n.mux.ln.Addr()) {
		return
	}
	instead := "set TIDEWIRE_CLUSTER_SECRET, or TIDEWIRE_CLUSTER_TLS_CA, _TLS_CERT and _TLS_KEY, on all nodes"
	if n.protection.security != nil {
		instead = "restart without it as soon as all nodes can prove themselves"
	}
	t := time.NewTicker(remindEvery)
	defer t.Stop()
	for {
		n.log.Warn().Stringer("listen", n.mux.ln.Addr()).
			Msg("ANYBODY who reaches the cluster port can read and change everything (TIDEWIRE_CLUSTER_INSECURE=true): " + instead)
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// Protection says in words how the cluster port is protected.
func (n *Node) Protection() string {
	switch p := n.protection; {
	case p.security != nil && p.plain:
		return "INSECURE: connections without proof are accepted too; " + p.security.String()
	case p.security != nil:
		return p.security.String()
	case loopback(n.mux.ln.Addr()):
		return "none; on loopback only"
	}
	return "INSECURE: none"
}
