package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// route is the way to one other node: where it may be, where it was found, and what it speaks.
//
// A node may be in two places at once, as far as this node knows: TIDEWIRE_CLUSTER_PEERS says where this node
// is to look for it, and the Raft configuration what everybody is told. Mostly they are the same. If not, the
// list goes first, for the way from here may differ (a proxy, a translated address); but if somebody else is
// found there, or nobody, the list is out of date, and the configuration is believed. Silence alone says
// little of that, and counts when it has lasted for routeSilence.
type route struct {
	mu     sync.Mutex
	addrs  []string // best first, at least one
	use    int      // in addrs
	silent time.Time
	told   greeting // zero: it was not met yet
	odd    error    // why it was not let in when it was met last
}

// routeSilence is how long an address may be silent before another one is tried.
const routeSilence = 10 * time.Second

func newRoute(addrs ...string) *route {
	r := &route{}
	r.set(addrs...)
	return r
}

// set replaces the addresses; the one in use stays so if it is among them. Empty and repeated ones are left out.
func (r *route) set(addrs ...string) {
	var list []string
	for _, a := range addrs {
		if a != "" && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(list, r.addrs) {
		return
	}
	use := 0
	if r.use < len(r.addrs) {
		use = max(slices.Index(list, r.addrs[r.use]), 0)
	}
	r.addrs, r.use, r.silent = list, use, time.Time{}
}

// addr returns where to look for the node now, and empty when nothing is known.
func (r *route) addr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.addrs) == 0 {
		return ""
	}
	return r.addrs[r.use]
}

// failed notes that the node was not found where it was looked for.
func (r *route) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		if r.silent.IsZero() {
			r.silent = time.Now()
		}
		if time.Since(r.silent) < routeSilence {
			return
		}
	}
	r.silent = time.Time{}
	if len(r.addrs) > 0 {
		r.use = (r.use + 1) % len(r.addrs)
	}
}

// met notes what the node said of itself, and whether it goes together with this one.
func (r *route) met(g greeting, odd error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told, r.odd, r.silent = g, odd, time.Time{}
}

func (r *route) greeting() greeting {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told
}

// preface returns that of a connection to the node, or why there shall be none.
func (r *route) preface(k kind, group uint16, to bridge.NodeID) (preface, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.odd != nil {
		return preface{}, r.odd
	}
	p := preface{kind: k, group: group, to: to}
	if r.told.Wire != 0 && r.told.Wire < addressedWire {
		p.to = "" // it does not know of it
	}
	return p, nil
}

// The library knows nodes by addresses, and keeps connections by address. It is given "id@host:port", so that
// a connection is of one node, and not of a place; stream.Dial takes it apart.
func namedAddress(id bridge.NodeID, addr string) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + addr)
}

func splitAddress(a raft.ServerAddress) (id bridge.NodeID, addr string) {
	if i := strings.LastIndexByte(string(a), '@'); i >= 0 {
		return bridge.NodeID(a[:i]), string(a[i+1:])
	}
	return "", string(a)
}

// addresses tells the library where a node is: of one group, whose configuration may name nodes that the
// membership has not got round to yet.
type addresses struct{ g *group }

func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	node := bridge.NodeID(id)
	if p := a.g.node.members.peer(node); p != nil {
		return namedAddress(node, p.route.addr()), nil
	}
	select {
	case <-a.g.ready:
		for _, s := range a.g.raft.GetConfiguration().Configuration().Servers {
			if s.ID == id {
				return namedAddress(node, string(s.Address)), nil
			}
		}
	default:
	}
	return "", fmt.Errorf("node %q is not in the configuration", id)
}
