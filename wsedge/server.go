package wsedge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// Config of a Server. Backend, Cache and Encoder are required; the zero value of any other field means
// its default.
type Config struct {
	Backend Backend
	Cache   *cache.Store
	Encoder *FrameEncoder // for what is replayed from Kafka; the cache holds frames of the same make

	Node  string   // this node's name, told in welcome
	Nodes []string // where clients may go instead, told in bye; default none

	// TLS makes Serve speak TLS, 1.2 at least; it needs certificates and nothing else. Default: plain connections.
	TLS *tls.Config

	Heartbeat      time.Duration // TIDEWIRE_HEARTBEAT, default 25 s
	MaxFrameBytes  int64         // TIDEWIRE_MAX_FRAME_BYTES, default 1 MiB
	AllowedOrigins []string      // TIDEWIRE_ALLOWED_ORIGINS: hosts or origins, may hold *; default the same host
	Compression    bool          // TIDEWIRE_COMPRESSION: agree to permessage-deflate
	DeflatedBytes  int           // compressed frames that are kept for the next who wants them, default 16 MiB

	// Auth verifies tokens; nil: nobody is asked for one, and everybody may read and publish to every topic that
	// Backend says is open. The three below mean something only with it.
	Auth Authenticator
	// Anonymous are the rights of whoever has no token, which all others have too. Empty: a token is required.
	Anonymous auth.Rights
	// Revoked says that a token is not taken any more, though it has not expired. It is asked when somebody
	// authenticates and before a publish that has waited; it must not block. Nil: never. See EndSessions.
	Revoked func(*auth.Identity) bool

	// Decider is asked about everything that a client subscribes to, reads or publishes and that its rights allow,
	// and about everything at all where its token has no rights or nobody is asked for one. Nil: nobody is asked.
	Decider auth.Decider

	// HTTP answers every path but /ws, /sse, /publish and /history. Default: 404.
	HTTP http.Handler

	Logger     zerolog.Logger        // default: silent
	Registerer prometheus.Registerer // default: the metrics are kept but registered nowhere

	MaxSubscriptions int // of one session, default 10000
	MaxBadRequests   int // of one session; forgiven at one a second; default 100
	MaxPublishes     int // of all sessions together, on their way to Kafka; default 4096
	MaxReplays       int // of all sessions together, reading from Kafka; default 64
	SessionReplays   int // of one session, default 4
	Limits           Limits
	Shards           int // workers that write to sockets, default GOMAXPROCS

	HandshakeTimeout time.Duration // until the request is whole, and again until a token that is required is there, default 10 s
	ReadyTimeout     time.Duration // how long a sub waits for the cache to be filled, default 10 s
	CloseTimeout     time.Duration // from the close frame to the end of the connection, default 5 s
	DrainSpread      time.Duration // clients told to go return spread over this time, default 2 s
	StallTimeout     time.Duration // a client that is fed from Kafka and takes nothing for so long is slow, default 30 s
	SendBuffer       int           // bytes of the kernel's send buffer of a connection, default the system's
}

func (c *Config) setDefaults() error {
	if c.Backend == nil || c.Cache == nil || c.Encoder == nil {
		return errors.New("wsedge: Backend, Cache and Encoder are required")
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.Heartbeat, 25 * time.Second}, {&c.HandshakeTimeout, 10 * time.Second}, {&c.ReadyTimeout, 10 * time.Second},
		{&c.CloseTimeout, 5 * time.Second}, {&c.DrainSpread, 2 * time.Second},
		{&c.StallTimeout, 30 * time.Second},
	} {
		if *d.field < 0 {
			return fmt.Errorf("wsedge: a time is negative: %s", *d.field)
		}
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	for _, n := range []struct {
		field *int
		value int
	}{
		{&c.MaxSubscriptions, 10000}, {&c.MaxBadRequests, 100}, {&c.MaxPublishes, 4096}, {&c.MaxReplays, 64},
		{&c.SessionReplays, 4}, {&c.DeflatedBytes, 16 << 20}, {&c.Shards, runtime.GOMAXPROCS(0)},
	} {
		if *n.field <= 0 {
			*n.field = n.value
		}
	}
	if c.MaxFrameBytes <= 0 {
		c.MaxFrameBytes = 1 << 20
	}
	c.Limits.setDefaults(c.MaxFrameBytes)
	for _, o := range c.AllowedOrigins {
		if _, err := path.Match(o, ""); err != nil {
			return fmt.Errorf("wsedge: allowed origin %q is not a pattern: %w", o, err)
		}
	}
	return nil
}

// Server is the edge of a node: it accepts connections and serves their subscriptions from the node's
// cache. It is started with New, fed connections by Serve, told of new records by LogAppended and of
// changed topics by TopicsChanged, and ended by Drain and Close.
//
// Goroutines: one a connection, which reads; one a shard, which writes; one a cache log, which finds
// the sessions that a record is for; one sweep and one wheel, for what is due. A connection whose socket is full, a replay from Kafka
// and a publish on its way have one more for as long as that lasts. Close waits for all of them.
//
// Locks, in the order in which they are taken: session.mu, topicHub.mu, then one of the small ones
// (subscription.mu, shard.mu, wheel.mu, Server.mu, those of the cache), and within Server.mu that of the gate. Dispatchers never take a session.mu, so
// that one busy session holds up no dispatch.
type Server struct {
	// Set once.
	cfg     Config
	tls     *tls.Config // nil: none
	begun   time.Time
	log     zerolog.Logger
	metrics *metrics
	hub     hub
	wheel   wheel
	shards  []*shard
	httpd   *http.Server
	httpIn  *connQueue
	replays chan struct{} // a slot for each replay that reads from Kafka

	replayPace *replayPace
	deflated   *deflated
	gate       gate
	turned     turnAway
	users      paces[string]     // publishes, by user or address
	asking     paces[netip.Addr] // requests, by address
	ctx        context.Context
	cancel     context.CancelFunc

	turns           atomic.Uint64 // gives sessions to shards in turn
	publishing      atomic.Int64  // on their way to Kafka
	publishingBytes atomic.Int64  // of them
	compressing     atomic.Int64  // answers
	replaying       atomic.Int64  // cursors that are fed from Kafka, or wait to be
	askers          atomic.Int32  // goroutines that ask the Decider beside their session's own
	held            atomic.Int64  // bytes that sessions keep for sockets that do not take them, see weigh
	wg              sync.WaitGroup

	mu        sync.Mutex
	listeners map[net.Listener]bool
	sessions  map[*session]bool
	blocked   map[*session]bool // whose socket is full
	draining  bool
	away      string // why no clients are served for now, see SetAway
	closed    bool
	left      chan struct{} // closed when draining and no session is left
}

// New makes a server and starts what it runs on its own. The caller must Close it.
func New(cfg Config) (*Server, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	srv := &Server{
		cfg:       cfg,
		tls:       tlsConfig(cfg.TLS),
		begun:     time.Now(),
		log:       cfg.Logger.With().Str("component", "edge").Str("node", cfg.Node).Logger(),
		replays:   make(chan struct{}, cfg.MaxReplays),
		deflated:  newDeflated(cfg.DeflatedBytes),
		listeners: make(map[net.Listener]bool),
		sessions:  make(map[*session]bool),
		blocked:   make(map[*session]bool),
		left:      make(chan struct{}),
	}
	srv.replayPace = newReplayPace(cfg.Limits.ReplayBytes, func() time.Duration { return time.Since(srv.begun) })
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	srv.gate.init(&srv.cfg.Limits)
	srv.hub.init(srv)
	srv.wheel.init(srv)
	for i := range cfg.Shards {
		sh := newShard(srv, i)
		srv.shards = append(srv.shards, sh)
	}
	srv.metrics = newMetrics(srv)
	if cfg.Registerer != nil {
		if err := srv.metrics.register(cfg.Registerer); err != nil {
			srv.cancel()
			return nil, fmt.Errorf("wsedge: register metrics: %w", err)
		}
	}
	for _, sh := range srv.shards {
		srv.wg.Go(sh.run)
	}
	if srv.cfg.HTTP == nil {
		srv.cfg.HTTP = http.HandlerFunc(srv.nothingHere)
	}
	srv.httpIn = newConnQueue()
	srv.httpd = srv.newHTTPServer()
	srv.wg.Go(func() { _ = srv.httpd.Serve(srv.httpIn) })
	srv.wg.Go(srv.sweep)
	srv.wg.Go(srv.wheel.run)
	return srv, nil
}

// LogAppended tells the server that a log has changed. It returns at once; it is what cache.Store.OnAppend
// wants.
func (srv *Server) LogAppended(l *cache.Log) { srv.hub.appended(l) }

// TopicsChanged tells the server that the set of topics, or what one of them is, has changed:
// subscriptions to topics that are gone end. Any goroutine may call it.
func (srv *Server) TopicsChanged() {
	for _, th := range srv.hub.all() {
		view, ok := srv.cfg.Backend.Topic(th.name)
		if ok && view.Exposed {
			srv.hub.follow(th, view.Partitions)
			continue
		}
		// Dropped first: a subscription that comes after is refused, and none comes in between.
		srv.hub.drop(th)
		for _, sub := range th.subscriptions() {
			sub.s.topicGone(sub)
		}
	}
}

// Stats is one look at a server.
type Stats struct {
	Connections   int64
	Subscriptions int64
	Delivered     int64 // messages
	Bytes         int64 // of messages, frames' headers included
	SlowCloses    int64
	Blocked       int64  // connections whose socket is full now
	Away          string // why clients are sent elsewhere; empty: they are not
	Acked         int64  // publishes
	NotAcked      int64  // publishes that were refused or failed
}

// Stats counts. Any goroutine may call it.
func (srv *Server) Stats() Stats {
	var st Stats
	srv.mu.Lock()
	st.Connections, st.Blocked, st.Away = int64(len(srv.sessions)), int64(len(srv.blocked)), srv.away
	srv.mu.Unlock()
	st.Subscriptions = srv.metrics.subscriptions.Load()
	st.SlowCloses = srv.metrics.slow.Load()
	st.Acked, st.NotAcked = srv.metrics.acked.Load(), srv.metrics.notAcked.Load()
	for _, sh := range srv.shards {
		st.Delivered += sh.delivered.Load()
		st.Bytes += sh.bytes.Load()
	}
	return st
}

// register adds a session; false when the server takes none any more.
func (srv *Server) register(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closed || srv.draining || srv.away != "" {
		return false
	}
	srv.sessions[s] = true
	return true
}

func (srv *Server) unregister(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
	delete(srv.blocked, s)
	srv.noteLeft()
}

// noteLeft is called with mu held.
func (srv *Server) noteLeft() {
	if srv.draining && len(srv.sessions) == 0 {
		select {
		case <-srv.left:
		default:
			close(srv.left)
		}
	}
}
