package node

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/replication"
	"github.com/tidewire/tidewire/replication/peertls"
	"github.com/tidewire/tidewire/wsedge"
	"github.com/tidewire/tidewire/wsedge/auth"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
	"github.com/tidewire/tidewire/wsedge/webhook"
)

// Config of a node: what the variables of `tidewire -h` say, typed. FromEnv makes one; tests and the
// demo begin with Defaults.
type Config struct {
	NodeID           bridge.NodeID
	Listen           string // clients
	AdminListen      string
	Admin            AdminAccess
	ClusterListen    string
	ClusterAdvertise string
	Peers            []replication.Peer // empty: a cluster of one
	// How the cluster port is protected: by a secret, by certificates, or not at all, on loopback or insecurely.
	ClusterSecret   secret.Secret
	ClusterTLS      peertls.Files
	ClusterInsecure bool
	Groups          int
	DataDir         string

	KafkaBrokers  []string
	Topics        kafkaio.Selectors
	PublishTopics kafkaio.Selectors
	KafkaGroupID  string
	Start         bridge.StartPolicy
	Formats       map[string]wsedge.Format
	AnyPartition  bool // producers put keys into any partition
	Security      kafkaio.Security

	TLS    TLSConfig // of the clients' port
	Limits Limits

	CacheTTL       time.Duration
	CacheBytes     int64
	MaxFrameBytes  int
	Heartbeat      time.Duration
	IsolationGrace time.Duration
	AllowedOrigins []string // empty: the same host only

	Auth        *jwtauth.Config // nil: nobody is asked for a token
	Anonymous   auth.Rights     // of everybody; only with Auth
	Webhook     *webhook.Config // nil: no service is asked about rights
	Compression bool            // of WebSocket messages, for clients that ask for it

	// ClientNodes are the addresses that a draining node sends its clients to. Empty: they keep to
	// their own lists.
	ClientNodes []string
	// HTTP serves what the client port is asked besides /ws. Nil: not found.
	HTTP http.Handler
	Log  zerolog.Logger
}

// Defaults returns the configuration that an empty environment gives, without what is required:
// brokers and topics.
func Defaults() Config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "tidewire"
	}
	return Config{
		NodeID:         bridge.NodeID(host),
		Listen:         ":8080",
		AdminListen:    "127.0.0.1:8081",
		ClusterListen:  clusterListenSelf,
		Groups:         8,
		DataDir:        "./data",
		KafkaGroupID:   "tidewire",
		CacheTTL:       10 * time.Minute,
		CacheBytes:     quarterOfMemory(),
		MaxFrameBytes:  1 << 20,
		Heartbeat:      25 * time.Second,
		IsolationGrace: 10 * time.Second,
		Log:            zerolog.Nop(),
	}
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

var formats = map[string]wsedge.Format{"json": wsedge.FormatJSON, "text": wsedge.FormatText, "binary": wsedge.FormatBinary}

// maxGroups bounds the Raft groups: each costs every node about 9 goroutines and 0.5 MB.
const maxGroups = 256

// parse makes a Config, or one error for each problem.
func (e *env) parse() (Config, error) {
	var p problems
	c := Defaults()
	e.readSecrets(&p)
	if e.NodeID != "" {
		c.NodeID = bridge.NodeID(e.NodeID)
	}
	if !nodeName.MatchString(string(c.NodeID)) {
		p.add("TIDEWIRE_NODE_ID", string(c.NodeID), "want 1 to 63 letters, digits, dots, dashes or underscores, such as n1")
	}
	c.Listen = p.address("TIDEWIRE_LISTEN", e.Listen)
	c.AdminListen = p.address("TIDEWIRE_ADMIN_LISTEN", e.AdminListen)
	e.parseAdmin(&c, &p)
	e.parseCluster(&c, &p)
	e.parseKafka(&c, &p)
	e.parseCache(&c, &p)
	e.parseEdge(&c, &p)
	e.parseTLS(&c, &p)
	e.parseLimits(&c, &p)
	c.Log = e.logger(&c, &p)
	e.secrets.log.Store(&c.Log)
	e.parseAuth(&c, &p)
	e.parseWebhook(&c, &p)
	return c, p.err()
}

func (e *env) parseCluster(c *Config, p *problems) {
	before := len(*p)
	self := false
	seen := map[string]bool{}
	for _, item := range list(e.ClusterPeers) {
		id, addr, ok := strings.Cut(item, "=")
		id, addr = strings.TrimSpace(id), strings.TrimSpace(addr)
		if !ok || !nodeName.MatchString(id) || !dialable(addr) {
			p.add("TIDEWIRE_CLUSTER_PEERS", item, "want name=host:port for each node, such as n1=10.0.0.1:7070")
			continue
		}
		if seen[id] || seen[addr] {
			p.add("TIDEWIRE_CLUSTER_PEERS", item, "the name and the address of each node must be its own")
			continue
		}
		seen[id], seen[addr] = true, true
		c.Peers = append(c.Peers, replication.Peer{ID: bridge.NodeID(id), Addr: addr})
		if bridge.NodeID(id) == c.NodeID {
			self = true
			c.ClusterAdvertise = addr
		}
	}
	if len(c.Peers) > 0 && !self {
		p.add("TIDEWIRE_CLUSTER_PEERS", e.ClusterPeers, "this node, %s (TIDEWIRE_NODE_ID), is missing: the list names this node too", c.NodeID)
	}
	if e.ClusterAdvertise != "" {
		c.ClusterAdvertise = e.ClusterAdvertise
		if !dialable(e.ClusterAdvertise) {
			p.add("TIDEWIRE_CLUSTER_ADVERTISE", e.ClusterAdvertise, "want host:port that the other nodes can dial")
		}
	}
	if e.ClusterListen != "" {
		c.ClusterListen = p.address("TIDEWIRE_CLUSTER_LISTEN", e.ClusterListen)
	}
	e.protect(c, p)
	if len(*p) == before {
		e.place(c, p)
	}
	if c.ClusterAdvertise == "" {
		c.ClusterAdvertise = c.ClusterListen
	}
	var err error
	if c.Groups, err = strconv.Atoi(e.Groups); err != nil || c.Groups < 1 || c.Groups > maxGroups {
		p.add("TIDEWIRE_GROUPS", e.Groups, "want a number from 1 to %d", maxGroups)
	}
	c.DataDir = e.DataDir
}

func (e *env) parseKafka(c *Config, p *problems) {
	for _, b := range list(e.KafkaBrokers) {
		if !dialable(b) {
			p.add("TIDEWIRE_KAFKA_BROKERS", b, "want host:port, such as kafka:9092")
		}
		c.KafkaBrokers = append(c.KafkaBrokers, b)
	}
	if len(c.KafkaBrokers) == 0 {
		p.add("TIDEWIRE_KAFKA_BROKERS", e.KafkaBrokers, "required: the addresses of some brokers, such as kafka:9092")
	}
	var err error
	if c.Topics, err = kafkaio.ParseSelectors(e.KafkaTopics); err != nil {
		p.add("TIDEWIRE_KAFKA_TOPICS", e.KafkaTopics, "%v", err)
	} else if c.Topics.Empty() {
		p.add("TIDEWIRE_KAFKA_TOPICS", e.KafkaTopics, "required: topics to expose, such as prices,/^public\\..*/")
	}
	if c.PublishTopics, err = kafkaio.ParseSelectors(e.KafkaPublishTopics); err != nil {
		p.add("TIDEWIRE_KAFKA_PUBLISH_TOPICS", e.KafkaPublishTopics, "%v", err)
	}
	c.KafkaGroupID = e.KafkaGroupID
	if c.Start, err = bridge.ParseStart(e.KafkaStart); err != nil {
		p.add("TIDEWIRE_KAFKA_START", e.KafkaStart, "want earliest, latest or an age such as 10m")
	}
	for _, item := range list(e.KafkaFormats) {
		topic, form, ok := strings.Cut(item, "=")
		f, known := formats[strings.TrimSpace(form)]
		if !ok || topic == "" || !known {
			p.add("TIDEWIRE_KAFKA_FORMATS", item, "want topic=json, topic=text or topic=binary")
			continue
		}
		if c.Formats == nil {
			c.Formats = map[string]wsedge.Format{}
		}
		c.Formats[strings.TrimSpace(topic)] = f
	}
	switch e.KafkaPartitioner {
	case "murmur2":
	case "any":
		c.AnyPartition = true
	default:
		p.add("TIDEWIRE_KAFKA_PARTITIONER", e.KafkaPartitioner, "want murmur2 or any")
	}
	c.Security = e.security(p)
}

func (e *env) parseCache(c *Config, p *problems) {
	c.CacheTTL = p.duration("TIDEWIRE_CACHE_TTL", e.CacheTTL, time.Second, 7*24*time.Hour)
	const minCache = 1 << 20
	if e.CacheBytes != "" {
		n, ok := parseBytes(e.CacheBytes)
		if !ok || n < minCache {
			p.add("TIDEWIRE_CACHE_BYTES", e.CacheBytes, "want at least 1048576 (1MiB): a number of bytes, or one with KiB, MiB or GiB")
		}
		c.CacheBytes = n
	}
}

func (e *env) parseEdge(c *Config, p *problems) {
	n, ok := parseBytes(e.MaxFrameBytes)
	if !ok || n < 1024 || n > 64<<20 {
		p.add("TIDEWIRE_MAX_FRAME_BYTES", e.MaxFrameBytes, "want a number of bytes from 1024 to 67108864")
	}
	c.MaxFrameBytes = int(n)
	c.Heartbeat = p.duration("TIDEWIRE_HEARTBEAT", e.Heartbeat, 100*time.Millisecond, time.Hour)
	c.IsolationGrace = p.duration("TIDEWIRE_ISOLATION_GRACE", e.IsolationGrace, 0, 24*time.Hour)
	if c.Compression, ok = onOff(e.Compression); !ok {
		p.add("TIDEWIRE_COMPRESSION", e.Compression, "want on or off")
	}
	for _, o := range list(e.AllowedOrigins) {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || strings.Trim(u.Path, "/") != "") {
			p.add("TIDEWIRE_ALLOWED_ORIGINS", o, "want * or origins such as https://app.example.com")
			continue
		}
		c.AllowedOrigins = append(c.AllowedOrigins, strings.TrimSuffix(o, "/"))
	}
}

func (e *env) logger(c *Config, p *problems) zerolog.Logger {
	level, err := zerolog.ParseLevel(e.LogLevel)
	if err != nil || e.LogLevel == "" {
		p.add("TIDEWIRE_LOG_LEVEL", e.LogLevel, "want trace, debug, info, warn or error")
	}
	log := zerolog.New(os.Stderr)
	switch e.LogFormat {
	case "json":
	case "console":
		log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly})
	default:
		p.add("TIDEWIRE_LOG_FORMAT", e.LogFormat, "want json or console")
	}
	return log.Level(level).With().Timestamp().Str("node", string(c.NodeID)).Logger()
}

func (p *problems) address(name, s string) string {
	if _, port, err := net.SplitHostPort(s); err != nil || !validPort(port) {
		p.add(name, s, "want host:port or :port")
	}
	return s
}

func (p *problems) duration(name, s string, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil || d < low || d > high {
		p.add(name, s, "want a duration such as 30s, from %v to %v", low, high)
	}
	return d
}

// dialable says whether s is host:port with both.
func dialable(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && validPort(port) && port != "0"
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n <= 65535
}

// list splits a comma-separated value, leaving out what is empty.
func list(s string) []string {
	var out []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

func onOff(s string) (on, ok bool) {
	switch strings.ToLower(s) {
	case "on", "true", "1", "yes":
		return true, true
	case "off", "false", "0", "no", "":
		return false, true
	}
	return false, false
}

// parseBytes reads a number of bytes, with KiB, MiB or GiB if one is there.
func parseBytes(s string) (int64, bool) {
	shift := 0
	for suffix, by := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, shift = strings.TrimSpace(rest), by
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<(62-shift) {
		return 0, false
	}
	return n << shift, true
}
