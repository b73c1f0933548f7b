package replication

import "time"

// A leader whose disk hangs gives its leadership up (logstore.go). Were placement to hand it back as soon as
// the disk goes on, one that hangs now and then would cost its subscribers a silence each time. So a node
// whose disk has hung is given nothing for a while: it tells the others what one that is stopping would. What
// it leads nevertheless, it keeps, and if no other node can lead a group it may still be elected.

// diskDistrust is that while.
const diskDistrust = 30 * time.Second

// slowDisk says whether a write to any group's log was given up within diskDistrust, or still hangs.
func (n *Node) slowDisk() bool {
	since := time.Now().Add(-diskDistrust).UnixNano()
	for _, g := range n.groups {
		if g.log.lastHang.Load() > since || g.log.hangs() {
			return true
		}
	}
	return false
}
