package replication

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tidewire/tidewire/bridge"
)

// errBadMessage: a peer sent a Raft message that no correct node sends.
var errBadMessage = errors.New("malformed Raft message")

// errDraining: this node is stopping and takes no leadership.
var errDraining = errors.New("node is stopping and takes no leadership")

// guard is a group's raft.Transport: the library's own, with a look at every message from outside
// before the library sees it. The library trusts its peers: a nil entry, an unknown entry type or an
// undecodable configuration makes it panic, and entries out of order would be stored. Heartbeats do not
// pass here (they carry nothing).
//
// It is also the door through which this node tells its own group to campaign (tell).
type guard struct {
	*raft.NetworkTransport
	out      chan raft.RPC
	done     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup
	draining func() bool
	mayVote  func() bool // see newcomer.go
	mayLead  func() bool
	heard    func() // of a node that has data
	away     *away
}

func newGuard(t *raft.NetworkTransport, n *Node, id bridge.GroupID) *guard {
	g := &guard{
		NetworkTransport: t, out: make(chan raft.RPC), done: make(chan struct{}), draining: n.draining.Load,
		mayVote: func() bool { return n.newcomer.mayVote(id) }, mayLead: func() bool { return n.newcomer.mayLead(id) },
		heard: n.newcomer.heard, away: newAway(n.PeerAlive, func() bool { _, leads := n.groups[id].leaderTerm(); return leads }, n.stopping),
	}
	g.wg.Add(1)
	go g.run()
	return g
}

func (g *guard) run() {
	defer g.wg.Done()
	for {
		select {
		case rpc := <-g.NetworkTransport.Consumer():
			if err := g.check(rpc); err != nil {
				rpc.Respond(nil, err)
				continue
			}
			if no := g.noVote(rpc); no != nil {
				rpc.Respond(no, nil)
				continue
			}
			select {
			case g.out <- rpc:
			case <-g.done:
				return
			}
		case <-g.done:
			return
		}
	}
}

// Consumer gives the library the messages that passed.
func (g *guard) Consumer() <-chan raft.RPC { return g.out }

// Close ends the transport; the goroutine behind it has ended when it returns.
func (g *guard) Close() error {
	g.once.Do(func() { close(g.done) })
	err := g.NetworkTransport.Close()
	g.NetworkTransport.CloseStreams()
	g.wg.Wait()
	return err
}

// noVote is the answer to a candidate while this node may not vote. It names no term: the candidate learns
// nothing from us. We learn whether it has more than the beginning of a cluster.
func (g *guard) noVote(rpc raft.RPC) any {
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	switch m := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if !g.mayVote() {
			if m.LastLogIndex > 1 {
				g.heard()
			}
			return &raft.RequestVoteResponse{RPCHeader: header}
		}
	case *raft.RequestPreVoteRequest:
		if !g.mayVote() {
			if m.LastLogIndex > 1 {
				g.heard()
			}
			return &raft.RequestPreVoteResponse{RPCHeader: header}
		}
	}
	return nil
}

// EncodePeer is what our messages say of where we are: the address alone (route.go).
func (g *guard) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// AppendEntries sends entries to a follower. To one that is away they are not sent again and again (away.go); a
// heartbeat, which is an AppendEntries without anything, is.
func (g *guard) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if args.PrevLogEntry == 0 && len(args.Entries) == 0 {
		return g.NetworkTransport.AppendEntries(id, target, args, resp)
	}
	g.away.wait(id)
	err := g.NetworkTransport.AppendEntries(id, target, args, resp)
	g.away.sent(id, err)
	return err
}

// InstallSnapshot sends a follower a snapshot, likewise.
func (g *guard) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	g.away.wait(id)
	err := g.NetworkTransport.InstallSnapshot(id, target, args, resp, data)
	g.away.sent(id, err)
	return err
}

// RequestVote asks a peer for its vote, if this node may stand.
func (g *guard) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if !g.mayLead() {
		return errNewcomer
	}
	return again(func() error { return g.NetworkTransport.RequestVote(id, target, args, resp) })
}

// RequestPreVote asks a peer whether it would vote, if this node may stand.
func (g *guard) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if !g.mayLead() {
		return errNewcomer
	}
	return again(func() error { return g.NetworkTransport.RequestPreVote(id, target, args, resp) })
}

// TimeoutNow tells a peer to campaign: the last step of a hand-over.
func (g *guard) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return again(func() error { return g.NetworkTransport.TimeoutNow(id, target, args, resp) })
}

// again makes a call that must come through once more while all that was wrong is its connection. The
// library keeps idle connections to a peer, of which each may be from before the peer's last restart, and
// tries a call on one of them only: a candidate would be without a vote that it had, until the next
// election. All these calls may be made twice: a vote in a term is given once and repeated.
func again(call func() error) (err error) {
	for range transportPool + 1 {
		if err = call(); err == nil || !broken(err) {
			return err
		}
	}
	return err
}

// broken says whether an error is a connection's that the other side has closed.
func broken(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// tell hands a message of our own to this node's group, as if a peer had sent it. It reports whether the
// group took it within timeout. Nobody waits for the answer.
func (g *guard) tell(command any, timeout time.Duration) bool {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case g.out <- raft.RPC{Command: command, RespChan: make(chan raft.RPCResponse, 1)}:
		return true
	case <-t.C:
	case <-g.done:
	}
	return false
}

func (g *guard) check(rpc raft.RPC) error {
	switch m := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		return checkAppend(m)
	case *raft.InstallSnapshotRequest:
		if m.Size < 0 || m.Size > maxRaftMessage {
			return fmt.Errorf("%w: snapshot of %d bytes", errBadMessage, m.Size)
		}
		if m.SnapshotVersion < 1 || m.SnapshotVersion > raft.SnapshotVersionMax {
			return fmt.Errorf("%w: snapshot version %d", errBadMessage, m.SnapshotVersion)
		}
		return checkConfiguration(m.Configuration)
	case *raft.TimeoutNowRequest:
		switch {
		case g.draining():
			return errDraining
		case !g.mayLead():
			return errNewcomer
		}
	}
	return nil
}

func checkAppend(m *raft.AppendEntriesRequest) error {
	if len(m.Entries) > maxAppendEntries {
		return fmt.Errorf("%w: %d entries", errBadMessage, len(m.Entries))
	}
	next := m.PrevLogEntry + 1
	for _, e := range m.Entries {
		switch {
		case e == nil:
			return fmt.Errorf("%w: entry without content", errBadMessage)
		case e.Index != next:
			return fmt.Errorf("%w: entry %d where %d was due", errBadMessage, e.Index, next)
		case e.Term > m.Term:
			return fmt.Errorf("%w: entry of term %d in a message of term %d", errBadMessage, e.Term, m.Term)
		}
		if err := checkEntry(e); err != nil {
			return err
		}
		next++
	}
	return nil
}

// checkEntry says whether the library can take in an entry.
func checkEntry(e *raft.Log) error {
	switch e.Type {
	case raft.LogCommand:
		if len(e.Data) > MaxEntry {
			return fmt.Errorf("%w: entry of %d bytes", errBadMessage, len(e.Data))
		}
	case raft.LogNoop, raft.LogBarrier:
	case raft.LogConfiguration:
		return checkConfiguration(e.Data)
	default:
		return fmt.Errorf("%w: entry of type %d", errBadMessage, e.Type)
	}
	return nil
}

// checkConfiguration: the library offers no decoder that returns an error.
func checkConfiguration(data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: configuration: %v", errBadMessage, r)
		}
	}()
	c := raft.DecodeConfiguration(data)
	if len(c.Servers) == 0 {
		return fmt.Errorf("%w: configuration without servers", errBadMessage)
	}
	return nil
}
