package kafkaio

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

// balancer gives each partition to the member whose node coordinates it, so that the group's assignment
// shows who reads what. It is run by whichever member the broker chose as the group's leader, with that
// node's view of the coordinators.
//
// What it does in the cases that are not plain:
//
//   - Several members of one node: an old incarnation that has not timed out yet. The newest, by the time
//     it started, stands for the node; the others get nothing.
//   - A partition whose coordinator is not a member (or not known): round-robin over the nodes that are.
//     That is visible and harmless, as nobody reads because of an assignment.
//   - A member without our data, a stranger: nothing. An assignment here only says who reads, and a
//     stranger does not read for us; the partitions it were given would look as if they were stuck.
type balancer struct {
	coordinator func(bridge.TopicPartition) (bridge.NodeID, bool)
	data        func() memberData       // of this member
	topics      func() map[string]int32 // names and numbers of partitions, as this node knows them
}

// balancerName is the protocol's name in JoinGroup. A consumer that does not offer it is refused by the
// broker (INCONSISTENT_GROUP_PROTOCOL).
const balancerName = "tidewire"

// memberData is what a member says of itself when it joins.
type memberData struct {
	Node    bridge.NodeID `json:"node"`
	Started int64         `json:"started"` // unix nanoseconds: which incarnation of the node
	Round   uint64        `json:"round"`   // grows when the member asks for a new assignment
}

const maxMemberData = 1 << 10 // bytes of it that are looked at

var _ kafka.GroupBalancer = (*balancer)(nil)

func (b *balancer) ProtocolName() string { return balancerName }

func (b *balancer) UserData() ([]byte, error) { return json.Marshal(b.data()) }

// AssignGroups implements kafka.GroupBalancer.
func (b *balancer) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	out := make(kafka.GroupMemberAssignments, len(members))
	type incarnation struct {
		member  string
		started int64
	}
	nodes := make(map[bridge.NodeID]incarnation)
	for _, m := range members {
		out[m.ID] = map[string][]int{} // an empty assignment, not none: each member needs one
		var d memberData
		if len(m.UserData) > maxMemberData || json.Unmarshal(m.UserData, &d) != nil || d.Node == "" {
			continue
		}
		old, ok := nodes[d.Node]
		if !ok || d.Started > old.started || (d.Started == old.started && m.ID > old.member) {
			nodes[d.Node] = incarnation{m.ID, d.Started}
		}
	}
	order := slices.Sorted(maps.Keys(nodes))
	if len(order) == 0 {
		return out
	}
	next := 0
	for _, tp := range b.all(partitions) {
		node, ok := b.coordinator(tp)
		if ok {
			_, ok = nodes[node]
		}
		if !ok {
			node = order[next%len(order)]
			next++
		}
		to := out[nodes[node].member]
		to[tp.Topic] = append(to[tp.Topic], int(tp.Partition))
	}
	return out
}

// all is what kafka-go found and what this node knows, sorted. kafka-go finds nothing at all when one of
// the topics does not exist (any more).
func (b *balancer) all(found []kafka.Partition) []bridge.TopicPartition {
	set := make(map[bridge.TopicPartition]bool)
	for _, p := range found {
		set[bridge.TopicPartition{Topic: p.Topic, Partition: int32(p.ID)}] = true
	}
	for topic, n := range b.topics() {
		for i := range n {
			set[bridge.TopicPartition{Topic: topic, Partition: i}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(set), compareTP)
}

func compareTP(x, y bridge.TopicPartition) int {
	switch {
	case x.Topic < y.Topic:
		return -1
	case x.Topic > y.Topic:
		return 1
	}
	return int(x.Partition) - int(y.Partition)
}
