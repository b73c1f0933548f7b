package wsedge

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"
)

// gate counts who is in: connections in all and by address, and handshakes in the order in which they began.
type gate struct {
	limits *Limits

	mu        sync.Mutex
	all       int
	addresses map[netip.Addr]int
	shaking   map[net.Conn]*list.Element
	order     list.List // of shaker, the oldest first
}

type shaker struct {
	conn  net.Conn
	began time.Time
}

func (g *gate) init(limits *Limits) {
	g.limits = limits
	g.addresses = make(map[netip.Addr]int)
	g.shaking = make(map[net.Conn]*list.Element)
}

// enter lets a connection in, or says which limit keeps it out. An address that is none is not counted.
func (g *gate) enter(addr netip.Addr) (limit string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.limits.Connections > 0 && g.all >= g.limits.Connections {
		return limitConnections
	}
	if !g.addAddress(addr) {
		return limitAddress
	}
	g.all++
	return ""
}

// enterAddress counts one more for an address alone.
func (g *gate) enterAddress(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addAddress(addr)
}

func (g *gate) addAddress(addr netip.Addr) bool {
	if g.limits.ConnectionsPerAddress < 1 || !addr.IsValid() {
		return true
	}
	key := addressKey(addr)
	if g.addresses[key] >= g.limits.ConnectionsPerAddress {
		return false
	}
	g.addresses[key]++
	return true
}

// leave undoes enter, leaveAddress enterAddress.
func (g *gate) leave(addr netip.Addr) {
	g.mu.Lock()
	g.all--
	g.removeAddress(addr)
	g.mu.Unlock()
}

func (g *gate) leaveAddress(addr netip.Addr) {
	g.mu.Lock()
	g.removeAddress(addr)
	g.mu.Unlock()
}

func (g *gate) removeAddress(addr netip.Addr) {
	if g.limits.ConnectionsPerAddress < 1 || !addr.IsValid() {
		return
	}
	key := addressKey(addr)
	if g.addresses[key]--; g.addresses[key] <= 0 {
		delete(g.addresses, key)
	}
}

func (g *gate) connections() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(g.all)
}

func (g *gate) handshakes() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(len(g.shaking))
}

// handshakeYouth is how long a handshake may count on being let finish.
const handshakeYouth = time.Second

// begin notes a handshake. Where there are too many, the oldest goes: an honest client is done within a moment, and who
// keeps handshakes open must not keep others out with them. If even the oldest is that young, all of them may be honest,
// and the newcomer is refused.
func (g *gate) begin(conn net.Conn) (goes net.Conn, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.limits.Handshakes > 0 && len(g.shaking) >= g.limits.Handshakes {
		oldest := g.order.Front().Value.(shaker)
		if now.Sub(oldest.began) < handshakeYouth {
			return nil, false
		}
		g.remove(oldest.conn)
		goes = oldest.conn
	}
	g.shaking[conn] = g.order.PushBack(shaker{conn, now})
	return goes, true
}

// end notes that a handshake is over; one that had to go is not there any more.
func (g *gate) end(conn net.Conn) {
	g.mu.Lock()
	g.remove(conn)
	g.mu.Unlock()
}

func (g *gate) remove(conn net.Conn) {
	if e := g.shaking[conn]; e != nil {
		g.order.Remove(e)
		delete(g.shaking, conn)
	}
}

// inHandshake returns the connections that are in it.
func (g *gate) inHandshake() (conns []net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.shaking {
		conns = append(conns, c)
	}
	return conns
}

// addressKey is what counts as one address: with IPv6 a /64, which is what a single customer has.
func addressKey(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
