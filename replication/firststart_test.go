package replication

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/freeport"
)

// highestTerm waits until all nodes know the group's leader, and returns the highest term any of them is in. The
// configuration was written in term 1, so an election without a rival ends in term 2.
func (c *cluster) highestTerm(g bridge.GroupID) (term bridge.Term) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("all know who leads group %d", g), func() bool {
		term = 0
		for _, n := range c.nodes {
			if _, ok := n.Leader(g); !ok {
				return false
			}
			term = max(term, n.Groups()[g].Term)
		}
		return true
	})
	return term
}

// fewElections sees that a group whose nodes all see each other since a moment has a leader after one election. There
// may be one more, and one for each turn that was let pass, for a machine that is so busy that elections take longer.
// term is the highest that they were in then.
func (c *cluster) fewElections(g bridge.GroupID, since time.Time, term bridge.Term) {
	c.t.Helper()
	elections := c.highestTerm(g) - term
	if took := time.Since(since); elections > 2+bridge.Term(took/takeoverTurn) {
		c.t.Errorf("group %d: it took %d elections in %v", g, elections, took)
	}
}

// The nodes of a cluster that begins are started one after another, and look for each other now and then. The
// first to have met all others used to stand for election when the others had not met it yet: they gave it no
// vote, again and again, and took it for a node with data when they met it then, so that they had none to give.
func TestFirstStartTakesOneElection(t *testing.T) {
	t.Parallel() // it waits for most of its time
	ms := time.Millisecond
	for _, gaps := range [][]time.Duration{{0, 0}, {50 * ms, 150 * ms}, {150 * ms, 10 * ms}, {190 * ms, 5 * ms}, {300 * ms, 70 * ms}} {
		t.Run(fmt.Sprint(gaps), func(t *testing.T) {
			t.Parallel()
			const groups = 8
			c := newStoppedCluster(t, 3, groups, inMemory)
			for i := range c.configs { // as if their processes were not there yet
				_ = c.configs[i].Listener.Close()
				c.configs[i].Listener = nil
			}
			c.start(0)
			for i, gap := range gaps {
				<-time.After(gap)
				c.start(i + 1)
			}
			all := time.Now()
			for g := range bridge.GroupID(groups) {
				c.fewElections(g, all, 1)
			}
		})
	}
}

// gate is an address at which a node is reached once it is open.
type gate struct {
	addr, to string
	wg       sync.WaitGroup
	mu       sync.Mutex
	closers  []io.Closer
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.keep(ln)
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", g.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			g.keep(in)
			g.keep(out)
			pipe := func(to, from net.Conn) {
				defer g.wg.Done()
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}
			g.wg.Add(2)
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
}

func (g *gate) keep(c io.Closer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closers = append(g.closers, c)
}

func (g *gate) close() {
	g.mu.Lock()
	for _, c := range g.closers {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

// One has met all others, and they do not find it yet: it does not stand, for it would get no vote.
func TestFirstStartWaitsForVoters(t *testing.T) {
	c := newStoppedCluster(t, 3, 2, inMemory)
	ln, err := freeport.Listen()
	if err != nil {
		t.Fatal(err)
	}
	door := &gate{addr: ln.Addr().String(), to: c.peers[2].Addr}
	_ = ln.Close()
	for i := range c.configs {
		c.configs[i].Peers[2].Addr = door.addr
	}
	t.Cleanup(func() { c.stop(2, 0); door.close() })
	c.start(0)
	c.start(1)
	began := time.Now()
	c.start(2)
	n2 := c.nodes[2]
	eventually(t, "n2 has met the others", func() bool { return n2.Groups()[0].Last > 0 && n2.Groups()[1].Last > 0 })
	// It is to do nothing while the others may not have found it. It used to stand after birthPause.
	for time.Since(began) < takeoverPatience {
		if term := max(n2.Groups()[0].Term, n2.Groups()[1].Term); term > 1 && time.Since(began) < takeoverPatience {
			t.Fatalf("n2 stands for election in term %d, and nobody knows it", term)
		}
		time.Sleep(time.Millisecond)
	}
	// From then on it stands in vain, again and again, until the door is open.
	open, before := time.Now(), n2.Groups()
	door.open(t)
	for g := range bridge.GroupID(2) {
		c.fewElections(g, open, max(before[g].Term, 1))
	}
}
