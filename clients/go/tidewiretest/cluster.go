// Package tidewiretest is a small cluster in memory that speaks Tidewire's protocol, for tests of code
// that uses a client: several nodes, one log, faults on demand. It keeps every record for ever, knows
// nothing of Kafka or Raft and checks no limits.
package tidewiretest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/internal/freeport"
)

// Record is one record of the cluster.
type Record struct {
	Subject   string
	Partition int32
	Epoch     uint64
	Seqno     uint64
	Value     json.RawMessage // the msg's fields after ts, for example `"data":1`
	Headers   map[string]string
}

// Op is one op that a client sent.
type Op struct {
	Op      string            `json:"op"`
	ID      int64             `json:"id"`
	Token   string            `json:"token"`
	Subject string            `json:"subject"`
	History int               `json:"history"`
	Resume  *[][3]uint64      `json:"resume"`
	Data    json.RawMessage   `json:"data"`
	Text    *string           `json:"text"`
	B64     *string           `json:"b64"`
	Headers map[string]string `json:"headers"`
	Mid     string            `json:"mid"`
	Ack     string            `json:"ack"`
}

// Cluster is a set of nodes with one log. Its fields may be set before Start.
type Cluster struct {
	Partitions  int32         // of every topic; zero: 1
	HeartbeatMS int64         // zero: 25000
	Auth        string        // zero: "none"
	MaxFrame    int64         // zero: 1048576
	OnOp        func(*Op) any // not nil and returns something: that is the answer, or with Silent nothing
	Delay       time.Duration // before each delivered record

	mu      sync.Mutex
	records []Record
	mids    map[string]Record
	epoch   uint64
	next    map[int32]uint64
	grew    chan struct{}
	ops     []Op
	nodes   []*Node
}

// Silent is the answer of an OnOp that gives none.
const Silent = "silent"

// Node is one node of a Cluster.
type Node struct {
	Name string
	Addr string // host:port

	cluster *Cluster
	server  *http.Server
	mu      sync.Mutex
	conns   map[*conn]struct{}
	wg      sync.WaitGroup
}

// Start starts n nodes named n1, n2, … on free ports of the loopback interface.
func (c *Cluster) Start(n int) error {
	c.mu.Lock()
	c.epoch, c.next, c.mids, c.grew = 1, map[int32]uint64{}, map[string]Record{}, make(chan struct{})
	c.Partitions = cmp.Or(c.Partitions, 1)
	c.mu.Unlock()
	ports, err := freeport.Take(n) // a node that starts again finds its own free
	if err != nil {
		return err
	}
	for i, port := range ports {
		node := &Node{Name: fmt.Sprintf("n%d", i+1), Addr: fmt.Sprintf("127.0.0.1:%d", port), cluster: c}
		c.nodes = append(c.nodes, node)
		if err := node.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Close stops every node.
func (c *Cluster) Close() {
	for _, n := range c.nodes {
		n.Stop()
	}
}

// Node is the i-th node, from 0.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Addrs are the addresses of all nodes, in order.
func (c *Cluster) Addrs() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

// Ops is what clients have sent so far.
func (c *Cluster) Ops() []Op {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ops)
}

// Records is the log.
func (c *Cluster) Records() []Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.records)
}

// NextEpoch makes later records belong to a new epoch, as after the death of a coordinator.
func (c *Cluster) NextEpoch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	clear(c.next)
}

// Append writes a record with a JSON value and returns it with its position.
func (c *Cluster) Append(subject string, partition int32, value any) Record {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return c.append(Record{Subject: subject, Partition: partition, Value: json.RawMessage(`"data":` + string(b))})
}

// AppendRaw writes a record whose value is given as the fields of its msg.
func (c *Cluster) AppendRaw(subject string, partition int32, fields string) Record {
	return c.append(Record{Subject: subject, Partition: partition, Value: json.RawMessage(fields)})
}

func (c *Cluster) append(r Record) Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.appendLocked(r)
}

func (c *Cluster) appendLocked(r Record) Record {
	c.next[r.Partition]++
	r.Epoch, r.Seqno = c.epoch, c.next[r.Partition]
	c.records = append(c.records, r)
	close(c.grew)
	c.grew = make(chan struct{})
	return r
}

// Start (again) listens on the node's address.
func (n *Node) Start() error {
	l, err := net.Listen("tcp", n.Addr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", n.ws)
	n.mu.Lock()
	n.conns = map[*conn]struct{}{}
	n.server = &http.Server{Handler: mux}
	server := n.server
	n.mu.Unlock()
	n.wg.Go(func() { server.Serve(l) })
	return nil
}

// Stop closes the node's listener and cuts its connections, as a kill does. It waits for its goroutines.
func (n *Node) Stop() {
	n.mu.Lock()
	server := n.server
	n.server = nil
	n.mu.Unlock()
	if server != nil {
		server.Close()
	}
	n.Cut()
	n.wg.Wait()
}

// Cut breaks the node's connections without a word; it goes on accepting new ones.
func (n *Node) Cut() {
	n.each(func(c *conn) { c.ws.CloseNow() })
}

// Conns is the number of connections.
func (n *Node) Conns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// Send sends a frame to every client of the node.
func (n *Node) Send(frame string) {
	n.each(func(c *conn) { c.write(json.RawMessage(frame)) })
}

// CloseWith closes every connection of the node with a close code.
func (n *Node) CloseWith(code int, reason string) {
	n.each(func(c *conn) { go c.ws.Close(websocket.StatusCode(code), reason) })
}

func (n *Node) each(f func(*conn)) {
	n.mu.Lock()
	conns := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		conns = append(conns, c)
	}
	n.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}

func (n *Node) ws(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"tidewire.v1.json"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{node: n, ws: ws, ctx: ctx, subs: map[string]func(){}}
	n.mu.Lock()
	stopped := n.server == nil
	n.conns[c] = struct{}{}
	n.wg.Add(1)
	n.mu.Unlock()
	if stopped {
		ws.CloseNow()
	}
	c.serve()
	cancel()
	c.wg.Wait()
	ws.CloseNow()
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
	n.wg.Done()
}

// matches says whether a subscription to sub receives records of subject.
func matches(sub, subject string) bool {
	prefix, ok := strings.CutSuffix(sub, "/*")
	if !ok {
		return sub == subject
	}
	return strings.HasPrefix(subject, prefix+"/") || strings.Count(prefix, "/") == 1 && subject == prefix
}
