package replication

import (
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// A candidate that had spoken with a node before that node was restarted used to ask for its vote on a
// connection of that time, got an error instead, and lost an election that it would have won: at most
// transportPool times in a row, each with a timeout of its own.
func TestVotesAreAskedForOnLivingConnections(t *testing.T) {
	c := newCluster(t, 3, 1, calm)
	c.waitConnected()
	c.waitMayLead(0, 0) // else it asks for no vote
	g := c.nodes[0].groups[0]
	self, id, addr := raft.ServerID("n0"), raft.ServerID("n1"), raft.ServerAddress(c.peers[1].Addr)
	ask := func() error {
		var resp raft.RequestPreVoteResponse
		return g.transport.RequestPreVote(id, addr, &raft.RequestPreVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(self), Addr: g.transport.EncodePeer(self, g.transport.LocalAddr())},
			Term:      1,
		}, &resp)
	}
	var wg sync.WaitGroup
	errs := make([]error, 4*transportPool)
	for i := range errs {
		wg.Go(func() { errs[i] = ask() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	c.kill(1)
	c.start(1)
	c.waitConnected()
	if err := ask(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}
