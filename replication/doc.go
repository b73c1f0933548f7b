// Package replication keeps the nodes of a cluster in agreement.
//
// A Node takes part in a fixed number of Raft groups, each with a log, snapshots and elections of its
// own, all of them over one TCP port. It drives a bridge.StateMachine with what the groups commit, runs
// its lead role while this node leads a group, spreads the leaderships over the nodes, notices the death
// of a node by its connections, and carries the calls that nodes make to each other.
//
//	        one port ──▶ mux ──┬── raft, group 0 … N-1 ──▶ group: transport, log, snapshots, machine
//	                           ├── gRPC ─────────────────▶ peerServer ──▶ PeerService
//	                           └── liveness ─────────────▶ answers
//	other nodes ◀── liveness ── takeover, placement, nudges, peerClient
//
// hashicorp/raft does the agreement. What it lacks for our use stands beside it, each in its own file:
// nudge.go (followers learn of a commit at once), logstore.go (a disk that hangs costs the leadership),
// guard.go (a message that would make the library panic is refused), takeover.go (an election when
// connections break), placement.go (who leads what).
package replication
