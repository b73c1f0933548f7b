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
	data        func() memberData // of this member
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
	partitions = slices.Clone(partitions)
	slices.SortFunc(partitions, func(x, y kafka.Partition) int {
		return compareTP(tpOf(x), tpOf(y))
	})
	next := 0
	for _, kp := range partitions {
		tp := tpOf(kp)
		node, ok := b.coordinator(tp)
		if ok {
			_, ok = nodes[node]
		}
		if !ok {
			node = order[next%len(order)]
			next++
		}
		to := out[nodes[node].member]
		to[tp.Topic] = append(to[tp.Topic], kp.ID)
	}
	return out
}

func tpOf(p kafka.Partition) bridge.TopicPartition {
	return bridge.TopicPartition{Topic: p.Topic, Partition: int32(p.ID)}
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
