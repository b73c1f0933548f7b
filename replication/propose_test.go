package replication

import (
	"sync"
	"testing"
	"time"
)

// None of those who propose while a node closes is left without an answer, nor a goroutine that waits for one.
func TestProposalsOfANodeThatCloses(t *testing.T) {
	for range 2 {
		c := newCluster(t, 1, 1, inMemory)
		c.waitLeader(0)
		n := c.nodes[0]
		var wg sync.WaitGroup
		over := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						n.Propose(0, []byte("x"))
					}
				}
			})
		}
		eventually(t, "many are on their way", func() bool { return n.groups[0].raft.LastIndex() > 100 })
		c.stop(0, 10*time.Second)
		close(over)
		wg.Wait()
		if left := n.groups[0].proposals.pending.Load(); left != 0 {
			t.Fatalf("%d proposals without an answer", left)
		}
	}
}
