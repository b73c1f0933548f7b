package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/bridge"
)

// tidewire is a Tidewire cluster as a system: messages are records of a topic. It was started for one measurement
// (cluster is set), or runs somewhere.
type tidewire struct {
	feed
	prod    *producer
	topic   string
	suffix  string        // of keys: set where the topic is not ours alone
	token   func() string // of the next client; nil: none is shown
	cluster *cluster
	own     *kgo.Client // with which the topic is deleted; nil: it is not ours
	addrs   []netip.AddrPort
	hosts   []string
	tls     []*tls.Config // of the clients of each node; nil: its port is without
	admin   []string      // of a cluster that runs
	http    http.Client
}

// partitions of a topic of ours.
const partitions = 6

// startTidewire starts a cluster with a new topic of its own and waits until it is settled.
func (b *bench) startTidewire(ctx context.Context, keys int, w walls) (*tidewire, error) {
	t, err := b.launchTidewire(ctx, keys, w, func(*producer) error { return nil })
	if err != nil {
		return nil, err
	}
	if err := t.cluster.settled(ctx, t.topic, partitions); err != nil {
		t.close()
		return nil, err
	}
	s, err := t.cluster.status(ctx, t.cluster.nodes[0].admin)
	if err != nil {
		t.close()
		return nil, err
	}
	t.nameKeys(coordinated(s, t.topic, t.cluster.nodes[0].name))
	return t, nil
}

// launchTidewire makes a topic, does with it what prepare does, and starts nodes that expose it; it does not wait
// until they are ready.
func (b *bench) launchTidewire(ctx context.Context, keys int, w walls, prepare func(*producer) error) (_ *tidewire, err error) {
	b.topics++
	topic := fmt.Sprintf("bench-%d-%d", b.began.Unix(), b.topics)
	t := &tidewire{feed: feed{keys: keys}, topic: topic, token: w.tokens(topic)}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.prod, err = newProducer(b.brokers, b.o.Kafka, topic, b.o.Size, 0); err != nil {
		return nil, err
	}
	t.own = t.prod.cl
	if _, err := createTopic(ctx, t.own, topic, partitions, true); err != nil {
		return nil, err
	}
	t.nameKeys(nil)
	if err := prepare(t.prod); err != nil {
		return nil, err
	}
	if t.cluster, err = b.startCluster(topic, w.env); err != nil {
		return nil, err
	}
	for _, n := range t.cluster.nodes {
		a, err := netip.ParseAddrPort(n.client)
		if err != nil {
			return nil, err
		}
		if err := t.has(n.client, a, w.tls); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// has adds a node.
func (t *tidewire) has(host string, addr netip.AddrPort, tlsOfAll *tls.Config) error {
	c, err := namedFor(tlsOfAll, host)
	t.addrs, t.hosts, t.tls = append(t.addrs, addr), append(t.hosts, host), append(t.tls, c)
	return err
}

// nameKeys names the keys. Where there is one alone, it lies in a partition that the node under test coordinates,
// so that the node's work is the same in every run, and all of it: reading from Kafka and replicating included.
func (t *tidewire) nameKeys(ours []int32) {
	t.prod.keys = make([][]byte, t.keys)
	for i := range t.prod.keys {
		t.prod.keys[i] = []byte(keyName(i) + t.suffix)
	}
	for i := 0; t.keys == 1 && len(ours) > 0; i++ {
		k := []byte(keyName(i) + t.suffix)
		for _, p := range ours {
			if bridge.PartitionFor(k, partitions) == p {
				t.prod.keys[0] = k
				return
			}
		}
	}
}

// joinTidewire uses a cluster that runs. The topic is that of all measurements, and a record that no client of the
// one before waited for may be pushed when the next one's have subscribed already: so each has keys of its own.
func (b *bench) joinTidewire(ctx context.Context, keys int) (_ *tidewire, err error) {
	b.topics++
	t := &tidewire{feed: feed{keys: keys}, topic: b.o.Topic, suffix: "." + strconv.FormatInt(b.began.Unix(), 36) + "." + strconv.Itoa(b.topics), admin: b.o.Admin, http: http.Client{Timeout: 5 * time.Second, Transport: b.o.AdminTransport}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	for _, host := range b.o.Nodes {
		a, err := resolve(ctx, host)
		if err != nil {
			return nil, err
		}
		if err := t.has(host, a, b.o.TLS); err != nil {
			return nil, err
		}
	}
	if b.o.Token != "" {
		t.token = func() string { return b.o.Token }
	}
	if t.prod, err = newProducer(b.o.Brokers, b.o.Kafka, b.o.Topic, b.o.Size, 0); err != nil {
		return nil, err
	}
	if _, err := createTopic(ctx, t.prod.cl, b.o.Topic, partitions, b.o.Create); err != nil {
		return nil, err
	}
	t.nameKeys(nil)
	if b.o.Create {
		return t, t.exposed(ctx)
	}
	return t, nil
}

// exposed waits until every node has noticed a topic that is new.
func (t *tidewire) exposed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adminWait)
	defer cancel()
	return poll(ctx, func() error {
		load, err := newLoad(1)
		if err != nil {
			return err
		}
		var all []client
		for node := range t.addrs {
			all = append(all, t.client(node, t.subject(0)))
		}
		return errors.Join(load.open(ctx, all), load.Close())
	})
}

func resolve(ctx context.Context, host string) (netip.AddrPort, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("node %q: want host:port: %w", host, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("node %q: want host:port: %w", host, err)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("node %q: %w", host, err)
	}
	return netip.AddrPortFrom(ips[0].Unmap(), uint16(n)), nil
}

func (t *tidewire) subject(key int) string { return "/" + t.topic + "/" + string(t.prod.keys[key]) }

// clients are on the node under test, or spread over the nodes of a cluster that runs.
func (t *tidewire) clients(n int) []client {
	nodes := len(t.addrs)
	if t.cluster != nil {
		nodes = 1
	}
	out := make([]client, n)
	for i := range out {
		out[i] = t.client(i%nodes, t.subject(keyOf(i, n, t.keys)))
	}
	return out
}

func (t *tidewire) client(node int, subject string) client {
	c := client{dialect: speakTidewire, addr: t.addrs[node], host: t.hosts[node], path: "/ws", tls: t.tls[node], subject: subject}
	if t.token != nil {
		c.token = t.token()
	}
	return c
}

func (t *tidewire) send(n int) error {
	for range n {
		t.prod.produce(t.next())
	}
	return t.prod.err()
}

func (t *tidewire) settle(ctx context.Context) error { return t.prod.flush(ctx) }

// usage is that of the node under test, or of all nodes of a cluster that runs, as their /metrics tell.
func (t *tidewire) usage() (usage, bool, error) {
	if t.cluster != nil {
		n := t.cluster.nodes[0]
		text, err := t.metrics(n.admin)
		if err != nil {
			return usage{}, false, err
		}
		u, err := usageOf(n.proc.cmd.Process.Pid)
		if err == nil {
			u.pauses, err = parsePauses(bytes.NewReader(text))
		}
		return u, err == nil, err
	}
	var sum usage
	for _, a := range t.admin {
		text, err := t.metrics(a)
		if err != nil {
			return usage{}, false, err
		}
		u, err := parseMetrics(bytes.NewReader(text))
		if err != nil {
			return usage{}, false, fmt.Errorf("metrics of %s: %w", a, err)
		}
		sum.cpu += u.cpu
		sum.rss += u.rss
	}
	return sum, len(t.admin) > 0, nil
}

// metrics is what a node tells Prometheus at its admin address, host:port or a URL.
func (t *tidewire) metrics(admin string) ([]byte, error) {
	if !strings.Contains(admin, "://") {
		admin = "http://" + admin
	}
	resp, err := t.http.Get(strings.TrimSuffix(admin, "/") + "/metrics")
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", admin, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: HTTP %s: %.200s", admin, resp.Status, bytes.TrimSpace(text))
	}
	return text, nil
}

// parseMetrics takes a process's time and memory out of what Prometheus scrapes.
func parseMetrics(r io.Reader) (u usage, err error) {
	found := 0
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name != "process_cpu_seconds_total" && name != "process_resident_memory_bytes" {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return u, err
		}
		if found++; name == "process_cpu_seconds_total" {
			u.cpu = time.Duration(v * float64(time.Second))
		} else {
			u.rss = int64(v)
		}
	}
	if found != 2 && lines.Err() == nil {
		return u, errors.New("no process_cpu_seconds_total and process_resident_memory_bytes")
	}
	return u, lines.Err()
}

func (t *tidewire) died() error {
	if t.cluster == nil {
		return nil
	}
	return t.cluster.died()
}

func (t *tidewire) close() {
	if t.cluster != nil {
		_ = t.cluster.close()
	}
	if t.own != nil {
		deleteTopic(context.Background(), t.own, t.topic)
	}
	if t.prod != nil {
		t.prod.cl.Close()
	}
	t.http.CloseIdleConnections()
}
