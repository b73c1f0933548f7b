package bench

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// NodesOptions say which cluster StartNodes starts.
type NodesOptions struct {
	Tidewire   string   // path of the program
	Dir        string   // for logs and data
	Brokers    []string // of Kafka
	Topic      string   // that they expose, and by which their consumer group is named
	Partitions int      // of the topic, which must be there
	Count      int      // of nodes
	CacheBytes int64    // of each
	Env        []string // more variables, NAME=value: they win over what a bench sets
}

// Nodes are the nodes of a bench for another program that loads them: real processes on this machine, which end
// with it at the latest.
type Nodes struct{ c *cluster }

// A Node tells where one of them listens, host:port, and which process it is.
type Node struct {
	Name, Client, Admin, Cluster string
	PID                          int
}

// StartNodes starts a cluster and waits until it is ready and its partitions have coordinators.
func StartNodes(ctx context.Context, o NodesOptions) (*Nodes, error) {
	b := &bench{o: Options{Tidewire: o.Tidewire, Dir: o.Dir, ClusterSize: o.Count, CacheBytes: o.CacheBytes, NodeEnv: o.Env}, brokers: o.Brokers}
	c, err := b.startCluster(o.Topic, nil)
	if err != nil {
		return nil, err
	}
	if err := c.settled(ctx, o.Topic, o.Partitions); err != nil {
		_ = c.close() // always nil
		return nil, err
	}
	return &Nodes{c}, nil
}

// List returns the nodes in the order of their names.
func (n *Nodes) List() []Node {
	var out []Node
	for _, c := range n.c.nodes {
		out = append(out, Node{c.name, c.client, c.admin, c.cluster, c.proc.cmd.Process.Pid})
	}
	return out
}

// Died is the error of a node that ended by itself; nil: all run.
func (n *Nodes) Died() error { return n.c.died() }

// Close ends the nodes in order, and kills those that do not end.
func (n *Nodes) Close() error { return n.c.close() }

// A Child is a program that was started to help, and that ends with this one at the latest.
type Child struct{ p *process }

// StartChild starts a program whose whole environment is env. Its first line is for Line; whatever else it prints goes
// to the file log.
func StartChild(log string, env []string, path string, args ...string) (*Child, error) {
	p, err := spawn(nil, log, env, path, args...)
	if err != nil {
		return nil, err
	}
	return &Child{p}, nil
}

// Line waits for the first line that it prints.
func (c *Child) Line(wait time.Duration) (string, error) { return c.p.line(wait) }

// Stop closes its standard input and asks it to end; after grace it is killed.
func (c *Child) Stop(grace time.Duration) { c.p.stop(grace) }

// CreateTopic creates a topic and waits until all its partitions have leaders.
func CreateTopic(ctx context.Context, cl *kgo.Client, topic string, partitions int) error {
	_, err := createTopic(ctx, cl, topic, partitions, true)
	return err
}

// CPUTime is the processor time that a process has used since it began.
func CPUTime(pid int) (time.Duration, error) {
	u, err := usageOf(pid)
	return u.cpu, err
}
