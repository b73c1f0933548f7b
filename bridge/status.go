package bridge

// NodeStatus is what one node says of itself at /status; JSON field names are part of the interface.
type NodeStatus struct {
	Node          NodeID            `json:"node"`
	Version       string            `json:"version"`
	Formats       FormatStatus      `json:"formats"`
	UptimeSeconds int64             `json:"uptime_seconds"`
	Ready         bool              `json:"ready"`
	NotReady      []string          `json:"not_ready,omitempty"` // why not
	Away          string            `json:"away,omitempty"`      // why it sends its clients elsewhere, such as "isolated"
	Connections   int64             `json:"connections"`
	Subscriptions int64             `json:"subscriptions"`
	Blocked       int64             `json:"blocked"`                // connections whose socket is full
	Client        string            `json:"client"`                 // where its clients connect, as configured
	ClusterPort   string            `json:"cluster_port,omitempty"` // how it is protected, in words; INSECURE if it is not
	Cache         CacheStatus       `json:"cache"`
	Counters      *Counters         `json:"counters,omitempty"` // nil: the node is of a version that has none
	Groups        []GroupStatus     `json:"groups"`
	Partitions    []PartitionStatus `json:"partitions"`
}

// FormatStatus is which versions of what nodes share a node speaks and writes (replication/version.go). A build
// that does not tell them speaks version 1 of each.
type FormatStatus struct {
	Wire       int `json:"wire"`        // over the cluster port
	OldestWire int `json:"oldest_wire"` // that it goes together with
	Entry      int `json:"entry"`       // of the Raft log
	Snapshot   int `json:"snapshot"`
}

// Counters are what a node has done since it started; their differences are rates. Of the records that a
// cluster takes in every node counts each, of all else only its own clients'.
type Counters struct {
	Records        int64 `json:"records"`         // committed by the cluster and put into this node's cache
	RecordBytes    int64 `json:"record_bytes"`    // of their keys and values
	Delivered      int64 `json:"delivered"`       // messages written to subscribers
	DeliveredBytes int64 `json:"delivered_bytes"` // their bytes, frame headers included
	Publishes      int64 `json:"publishes"`       // acked
	NotPublished   int64 `json:"not_published"`   // publishes that were refused or failed
	SlowCloses     int64 `json:"slow_closes"`     // connections closed with 4008
}

// CacheStatus is the state of a node's cache, in bytes.
type CacheStatus struct {
	Bytes   int64 `json:"bytes"`
	Budget  int64 `json:"budget"`
	Records int64 `json:"records"`
}

// GroupStatus is one Raft group as one node sees it.
type GroupStatus struct {
	Group   GroupID `json:"group"`
	Leader  NodeID  `json:"leader"` // empty: none known
	Term    Term    `json:"term"`
	Applied uint64  `json:"applied"`
	Last    uint64  `json:"last"`
}

// PartitionStatus is one partition as one node sees it. Lag is known on the coordinator alone (-1
// elsewhere).
type PartitionStatus struct {
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Group       GroupID `json:"group"`
	Coordinator NodeID  `json:"coordinator"`
	Epoch       Epoch   `json:"epoch"`
	Seqno       Seqno   `json:"seqno"`
	Next        Offset  `json:"next_offset"`
	Lag         int64   `json:"lag"`
}
