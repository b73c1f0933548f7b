package replication

import (
	"net"
	"net/netip"
	"sync"
)

// unproven are the connections that have not shown yet that they are of a node: what strangers can hold. There are
// at most maxUnproven. For one more the oldest goes of the network that has most of them: a crowd that connects
// and says nothing is in its own way, and a node that comes meanwhile, which needs some milliseconds, finds room.
type unproven struct {
	mu    sync.Mutex
	hosts map[netip.Addr][]net.Conn // oldest first
	count int
}

// maxUnproven bounds them.
const maxUnproven = 256

func newUnproven() *unproven { return &unproven{hosts: map[netip.Addr][]net.Conn{}} }

// add takes in a connection, and returns the one that has to go for it, nil if none has. The caller closes that.
func (u *unproven) add(c net.Conn) (out net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	host := networkOf(c)
	u.hosts[host] = append(u.hosts[host], c)
	if u.count++; u.count <= maxUnproven {
		return nil
	}
	most := host
	for h, cs := range u.hosts {
		if len(cs) > len(u.hosts[most]) {
			most = h
		}
	}
	out = u.hosts[most][0]
	u.drop(most, 0)
	return out
}

// remove ends what add began; it is nothing for a connection that had to go.
func (u *unproven) remove(c net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	host := networkOf(c)
	for i, other := range u.hosts[host] {
		if other == c {
			u.drop(host, i)
			return
		}
	}
}

func (u *unproven) drop(host netip.Addr, i int) {
	cs := append(u.hosts[host][:i:i], u.hosts[host][i+1:]...)
	if len(cs) == 0 {
		delete(u.hosts, host)
	} else {
		u.hosts[host] = cs
	}
	u.count--
}

// networkOf is the address that a connection comes from, and with IPv6 the first half of it: the rest is for its
// owner to choose.
func networkOf(c net.Conn) netip.Addr {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	host := at.Addr().Unmap().WithZone("")
	if host.Is6() {
		if p, err := host.Prefix(64); err == nil {
			return p.Masked().Addr()
		}
	}
	return host
}
