// Package node puts a node of Tidewire together: what `tidewire`, the demo and the cluster tests all
// start.
//
//	Kafka ─▶ topics ─▶ bridge ◀─ feed ◀─ Kafka        in the order of starting:
//	                    │  ▲                           1 admin port     /healthz answers from here on
//	        propose ────┘  └──── apply                 2 listeners      an address in use stops the start
//	                 replication ◀─▶ other nodes       3 bridge, edge   nothing moves yet
//	                    │                              4 replication    ledgers come back, elections
//	                  cache ─▶ edge ─▶ clients         5 Kafka          topics, feed, group, producer
//	                                                   6 clients        accepted at once; ready when filled
//
// Stopping goes the other way: the leaderships are handed over first, so that nobody waits for this
// node; then the clients are sent elsewhere; then the group is left with a last commit; then the
// sources end, and last the storage.
package node

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/replication"
	"github.com/tidewire/tidewire/replication/peertls"
	"github.com/tidewire/tidewire/wsedge"
	"github.com/tidewire/tidewire/wsedge/auth"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
	"github.com/tidewire/tidewire/wsedge/webhook"
)

// Node is one node of a cluster. New makes it, Run runs it once.
type Node struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	begun   time.Time

	store       *cache.Store
	bridge      *bridge.Bridge
	edge        *wsedge.Server
	verifier    *jwtauth.Verifier // nil: no token is asked for
	tokens      *revocationsFirst // the same
	webhook     *webhook.Client   // nil: no service is asked about rights
	replication *replication.Node
	client      *kafkaio.Client
	topics      *kafkaio.Topics
	reach       *kafkaio.Reach
	feed        *kafkaio.Feed
	offsets     *kafkaio.Offsets
	replayer    *kafkaio.Replayer
	producer    *kafkaio.Producer
	group       *kafkaio.Group
	groupTopics groupTopics

	certs                   certSource // nil: no TLS on the clients' port
	clients, admin, cluster net.Listener
	security                peertls.Security // of the cluster port
	httpd                   *http.Server

	ready     chan struct{} // closed when the node was ready for the first time
	readyOnce sync.Once
	topicsIn  chan struct{} // closed when Kafka has told its topics once
	topicsOne sync.Once

	mu sync.Mutex
	up bool // replication and everything that needs it is there
}

// New checks the configuration and binds the node's three addresses, so that one in use is told before
// anything has begun. Close or Run must follow.
func New(cfg Config) (*Node, error) {
	if name, value, right := cfg.Admin.problem(cfg.AdminListen); name != "" {
		return nil, fmt.Errorf("%s=%q: %s", name, value, right)
	}
	n := &Node{cfg: cfg, log: cfg.Log, begun: time.Now(), ready: make(chan struct{}), topicsIn: make(chan struct{})}
	var err error
	if n.security, err = cfg.clusterSecurity(); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		to   *net.Listener
		addr string
		name string
	}{
		{&n.admin, cfg.AdminListen, "TIDEWIRE_ADMIN_LISTEN"},
		{&n.cluster, cfg.ClusterListen, "TIDEWIRE_CLUSTER_LISTEN"},
		{&n.clients, cfg.Listen, "TIDEWIRE_LISTEN"},
	} {
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			n.closeListeners()
			return nil, fmt.Errorf("%s=%q: %w", l.name, l.addr, err)
		}
		*l.to = ln
	}
	if err := n.build(); err != nil {
		n.closeListeners()
		return nil, err
	}
	return n, nil
}

// Ready is closed once the node was ready to serve for the first time.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Addr returns the address that clients connect to, and AdminAddr the one for operators.
func (n *Node) Addr() string      { return n.clients.Addr().String() }
func (n *Node) AdminAddr() string { return n.admin.Addr().String() }

// Close gives up a node that is not run.
func (n *Node) Close() {
	n.closeEdge()
	n.closeListeners()
}

// closeEdge ends what serves clients, and then what it asked.
func (n *Node) closeEdge() {
	n.edge.Close()
	if n.webhook != nil {
		n.webhook.Close()
	}
}

func (n *Node) closeListeners() {
	for _, l := range []net.Listener{n.admin, n.cluster, n.clients} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// build makes the parts that need no other node and no Kafka.
func (n *Node) build() error {
	cfg := n.cfg
	n.metrics = newMetrics(cfg.NodeID)
	n.store = cache.NewStore(cache.Config{Budget: cfg.CacheBytes, TTL: cfg.CacheTTL})
	n.metrics.watchCache(n.store)
	clientTLS, source, err := n.buildTLS()
	if err != nil {
		return err
	}
	n.certs = source
	tlsConfig, mechanism, err := cfg.Security.Build()
	if err != nil {
		return err
	}
	n.client, err = kafkaio.NewClient(kafkaio.Config{
		Brokers: cfg.KafkaBrokers, ClientID: "tidewire-" + string(cfg.NodeID), TLS: tlsConfig, SASL: mechanism,
		Log: n.component("kafka"),
	})
	if err != nil {
		return err
	}
	n.topics = kafkaio.NewTopics(n.client, kafkaio.TopicsConfig{Expose: cfg.Topics, Publish: cfg.PublishTopics, Listener: n.topicsChanged})
	n.reach = kafkaio.NewReach(n.client, n.topics, func(tp bridge.TopicPartition) bridge.GroupID { return bridge.GroupOf(tp, cfg.Groups) })
	n.offsets = kafkaio.NewOffsets(n.client, n.topics)
	n.replayer = kafkaio.NewReplayer(n.client, n.topics, n.offsets)
	n.producer, err = kafkaio.NewProducer(kafkaio.ProducerConfig{Client: n.client, Leaders: n.topics, Log: n.component("producer")})
	if err != nil {
		return err
	}
	encoder := wsedge.NewFrameEncoder(cfg.Formats)
	n.bridge = bridge.New(bridge.Config{
		Node: cfg.NodeID, Groups: cfg.Groups,
		Cache: n.store, CacheTTL: cfg.CacheTTL, Encoder: encoder,
		Offsets: n.offsets, TopicIDs: n.topics, Replayer: n.replayer, Producer: n.producer,
		Start: cfg.Start, AnyPartitioner: cfg.AnyPartition,
		Metrics: n.metrics, Log: n.component("bridge"),
	})
	n.feed = kafkaio.NewFeed(n.client, n.topics, n.offsets, n.bridge, kafkaio.FeedConfig{})
	n.bridge.SetFeed(n.feed)
	var tokens wsedge.Authenticator // nil, and not a nil verifier, where nobody is asked for one
	if cfg.Auth != nil {
		if n.verifier, err = jwtauth.New(*cfg.Auth); err != nil {
			return err
		}
		n.tokens = &revocationsFirst{Authenticator: n.verifier, upToDate: n.knowsRevoked}
		tokens = n.tokens
	}
	var decider auth.Decider // the same
	if cfg.Webhook != nil {
		n.webhook = webhook.New(*cfg.Webhook)
		decider = n.webhook
	}
	n.edge, err = wsedge.New(wsedge.Config{
		TLS:     clientTLS,
		Backend: n.bridge, Cache: n.store, Encoder: encoder,
		Node: string(cfg.NodeID), Nodes: cfg.ClientNodes,
		Heartbeat: cfg.Heartbeat, MaxFrameBytes: int64(cfg.MaxFrameBytes), AllowedOrigins: cfg.AllowedOrigins, Compression: cfg.Compression,
		Auth: tokens, Anonymous: cfg.Anonymous, Revoked: n.isRevoked, Decider: decider,
		Limits: cfg.Limits.Limits, HandshakeTimeout: cfg.Limits.HandshakeTimeout, MaxBadRequests: cfg.Limits.BadRequests,
		MaxSubscriptions: cfg.Limits.Subscriptions, MaxPublishes: cfg.Limits.Publishes,
		MaxReplays: cfg.Limits.Replays, SessionReplays: cfg.Limits.SessionReplays,
		HTTP: cfg.HTTP, Logger: cfg.Log, Registerer: n.metrics.registry,
	})
	if err != nil {
		return err
	}
	n.metrics.watchRevocations(n.bridge)
	n.store.OnAppend(n.edge.LogAppended)
	n.bridge.OnTopics(n.edge.TopicsChanged)
	n.bridge.OnRevoked(n.endRevoked)
	return nil
}

// component returns the logger of a part.
func (n *Node) component(name string) zerolog.Logger {
	return n.log.With().Str("component", name).Logger()
}

// topicsChanged is called by the topics' goroutine, which starts after everything it tells is there.
func (n *Node) topicsChanged(topics map[string]bridge.TopicMeta) {
	n.bridge.TopicsChanged(topics)
	exposed := make(map[string]int32)
	var publish []bridge.TopicPartition
	for name, m := range topics {
		if m.Exposed {
			exposed[name] = m.Partitions
		}
		for i := int32(0); m.Publish && i < m.Partitions; i++ {
			publish = append(publish, bridge.TopicPartition{Topic: name, Partition: i})
		}
	}
	n.groupTopics.exposes(exposed)
	n.producer.Warm(publish)
	n.topicsOne.Do(func() { close(n.topicsIn) })
}

// stopTimeout bounds the parts of a clean stop that wait for others: clients to leave, Kafka to take
// the last commit.
const stopTimeout = 10 * time.Second

// Run runs the node until ctx ends, and returns when everything has stopped. The error says why the
// node could not start or had to stop by itself.
func (n *Node) Run(ctx context.Context) error {
	n.log.Info().Str("version", Version()).Str("clients", n.Addr()).Str("admin", n.AdminAddr()).
		Str("cluster", n.cluster.Addr().String()).Msg("starting")
	// Each part has a context of its own, because they stop one after the other.
	var parts sync.WaitGroup
	background := context.Background()
	sources, stopSources := context.WithCancel(background)
	defer stopSources()

	admin, adminCerts, err := n.adminListener()
	if err != nil {
		n.Close()
		_ = n.producer.Close()
		_ = n.client.Close()
		return err
	}
	n.httpd = &http.Server{
		Handler: n.adminHandler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: log.New(&warner{n.component("admin")}, "", 0),
	}
	parts.Go(func() { _ = n.httpd.Serve(admin) })
	if adminCerts != nil {
		parts.Go(func() { adminCerts.Run(sources) })
	}
	defer func() { stopSources(); _ = n.httpd.Close(); parts.Wait() }()

	n.replication, err = replication.Open(replication.Config{
		NodeID: n.cfg.NodeID, Version: Version(), Listener: n.cluster, Advertise: n.cfg.ClusterAdvertise, Peers: n.cfg.Peers,
		Security: n.security, Insecure: n.cfg.ClusterInsecure,
		Groups: n.cfg.Groups, Dir: n.cfg.DataDir, Log: n.log, Machine: n.bridge, Service: (*peerService)(n), Fit: n.reach.Fit,
		HasRevocations: func() bool { return n.bridge.RevocationCount() > 0 },
	})
	if err != nil {
		n.Close()
		_ = n.producer.Close()
		_ = n.client.Close()
		return err
	}
	n.metrics.watchReplication(n.replication)
	n.group, err = kafkaio.NewGroup(kafkaio.GroupConfig{
		Client: n.client, GroupID: n.cfg.KafkaGroupID, Node: n.cfg.NodeID,
		Coordinator: n.bridge.Coordinator, Offsets: n.bridge.Commits, Log: n.component("group"),
	})
	if err != nil {
		return err // its configuration is ours: a mistake in this package
	}
	n.groupTopics.set = n.group.SetTopics
	n.bridge.SetCommitted(n.group)
	n.bridge.Wire(n.replication, n.replication)
	n.mu.Lock()
	n.up = true
	n.mu.Unlock()

	var failed error
	if n.verifier != nil {
		parts.Go(func() { n.verifier.Run(sources) }) // before the first client is let in: it may wait for a key
	}
	parts.Go(func() { n.topics.Run(sources) })
	parts.Go(func() { n.reach.Run(sources) })
	parts.Go(func() { n.feed.Run(sources) })
	parts.Go(func() { n.bridge.Run(sources) })
	parts.Go(func() { n.sweep(sources) })
	parts.Go(func() { n.watch(sources) })
	parts.Go(func() { n.watchIsolation(sources) })
	parts.Go(func() { n.watchMembership(sources) })
	if n.certs != nil {
		parts.Go(func() { n.certs.Run(sources) })
	}
	broken := make(chan error, 1)
	parts.Go(func() {
		if err := n.replication.Run(sources); err != nil {
			broken <- err
		}
	})
	served := make(chan error, 1)
	go func() { served <- n.edge.Serve(n.clients) }()

	select {
	case <-ctx.Done():
		n.log.Info().Msg("stopping")
	case failed = <-served:
		failed = fmt.Errorf("accepting clients: %w", failed)
		served <- nil
	case failed = <-broken:
		n.log.Error().Err(failed).Msg("stopping")
	}

	stop, cancel := context.WithTimeout(background, stopTimeout)
	defer cancel()
	// Leaderships first: from here on nobody's records wait for this node.
	n.note("hand the leaderships over", n.replication.Drain(stop))
	// Clients next, while everything that they may still ask for is there.
	n.note("send the clients elsewhere", n.edge.Drain(stop))
	n.closeEdge()
	if err := <-served; err != nil && failed == nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, wsedge.ErrServerClosed) {
		n.note("accept clients", err)
	}
	// The group gets a last commit before the sources of what it commits end.
	n.note("leave the consumer group", n.group.Close(stop))
	stopSources()
	n.note("close the producer", n.producer.Close())
	n.replayer.Close()
	// Replication ends the coordinator's roles, which ask for offsets, and then the storage beneath everything.
	n.note("close replication", n.replication.Close(stop))
	n.offsets.Close()
	n.note("close the connections to Kafka", n.client.Close())
	_ = n.httpd.Close()
	parts.Wait()
	n.log.Info().Msg("stopped")
	return failed
}

// note logs a step of the stop that did not go well; the next one is taken all the same.
func (n *Node) note(step string, err error) {
	if err != nil {
		n.log.Warn().Err(err).Msg("could not " + step)
	}
}

// sweep expires the cache.
func (n *Node) sweep(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			n.store.Sweep()
		case <-ctx.Done():
			return
		}
	}
}

// kafkaPatience is how long a starting node waits for Kafka to tell its topics before it counts as
// away, which does not keep the node from being ready.
const kafkaPatience = 10 * time.Second

// watch notices when the node is ready for the first time.
func (n *Node) watch(ctx context.Context) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		if len(n.notReady()) == 0 {
			n.bridge.Started()
			n.log.Info().Dur("after_ms", time.Since(n.begun)).Msg("ready")
			n.readyOnce.Do(func() { close(n.ready) })
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// notReady returns what keeps the node from being ready, nothing when it is.
func (n *Node) notReady() (why []string) {
	if !n.isUp() {
		return []string{"starting"}
	}
	if _, missing := n.replication.CaughtUp(); len(missing) > 0 {
		why = append(why, "not caught up: "+strings.Join(missing, ", "))
	}
	if n.tokens != nil && !n.tokens.knows() {
		why = append(why, "which tokens were revoked is not known yet")
	}
	select {
	case <-n.topicsIn:
	default:
		if time.Since(n.begun) < kafkaPatience {
			why = append(why, "Kafka has not told its topics yet")
		}
	}
	select {
	case <-n.ready: // partitions that appear later are no reason to take a serving node out
	default:
		if unbegun := n.bridge.Unbegun(); unbegun > 0 && time.Since(n.begun) < kafkaPatience {
			why = append(why, fmt.Sprintf("%d partitions have not been begun by the cluster", unbegun))
		}
	}
	if waiting := n.bridge.Filled(); waiting > 0 {
		why = append(why, fmt.Sprintf("the cache of %d partitions is being filled", waiting))
	}
	return why
}
