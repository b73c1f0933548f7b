package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kelseyhightower/envconfig"
)

// env holds the variables as they stand, one field each; parse makes a Config of them. Everything is a
// string here, because envconfig stops at the first value that it cannot read, and prints it: we want
// one line for each problem, and no secret in any.
//
// The tags are the table that `tidewire -h` prints. A default in brackets is described, not a value. A field
// with secret:"true" is masked everywhere and may come from a file: see env_secrets.go.
type env struct {
	NodeID           string `envconfig:"TIDEWIRE_NODE_ID" default:"" show:"host name" desc:"this node's name in the cluster"`
	Listen           string `envconfig:"TIDEWIRE_LISTEN" default:":8080" desc:"clients: WebSocket, SSE, HTTP"`
	AdminListen      string `envconfig:"TIDEWIRE_ADMIN_LISTEN" default:"127.0.0.1:8081" desc:"/healthz, /readyz, /metrics, /status, the console"`
	AdminToken       string `envconfig:"TIDEWIRE_ADMIN_TOKEN" default:"" show:"none" desc:"who shows it may use the admin port: at least 16 characters, such as openssl rand -hex 24 prints; required, or a client certificate, where that port is not on the loopback interface" secret:"true"`
	AdminTLSCert     string `envconfig:"TIDEWIRE_ADMIN_TLS_CERT" default:"" show:"none" desc:"certificate for the admin port, PEM; read again when it changes"`
	AdminTLSKey      string `envconfig:"TIDEWIRE_ADMIN_TLS_KEY" default:"" show:"none" desc:"its key, PEM"`
	AdminTLSClientCA string `envconfig:"TIDEWIRE_ADMIN_TLS_CLIENT_CA" default:"" show:"none" desc:"file of certificates, PEM: client certificates that they signed may use the admin port"`
	ClusterListen    string `envconfig:"TIDEWIRE_CLUSTER_LISTEN" default:"" show:":7070; 127.0.0.1:7070 while nothing protects it" desc:"Raft and node-to-node calls, one port"`
	ClusterAdvertise string `envconfig:"TIDEWIRE_CLUSTER_ADVERTISE" default:"" show:"the listen address" desc:"what peers dial"`
	ClusterPeers     string `envconfig:"TIDEWIRE_CLUSTER_PEERS" default:"" show:"a cluster of one" desc:"n1=host:7070,n2=host:7070,n3=host:7070, this node included: what the cluster begins with, later where to find it"`
	ClusterSecret    string `envconfig:"TIDEWIRE_CLUSTER_SECRET" default:"" show:"none" desc:"protects the cluster port: the same on all nodes, at least 32 characters, such as openssl rand -base64 32 prints" secret:"true"`
	ClusterTLSCA     string `envconfig:"TIDEWIRE_CLUSTER_TLS_CA" default:"" show:"none" desc:"protects the cluster port by certificates: file of the CA that signs the nodes', PEM; files that change are read again"`
	ClusterTLSCert   string `envconfig:"TIDEWIRE_CLUSTER_TLS_CERT" default:"" show:"none" desc:"this node's certificate, for servers and clients, with its node id or the host that peers dial as a name, PEM"`
	ClusterTLSKey    string `envconfig:"TIDEWIRE_CLUSTER_TLS_KEY" default:"" show:"none" desc:"its key, PEM"`
	ClusterTLSNames  string `envconfig:"TIDEWIRE_CLUSTER_TLS_NAMES" default:"" show:"any that the CA signed" desc:"nodes that connect must have one of these names in their certificates: n1,n2,*.tidewire.internal"`
	ClusterInsecure  string `envconfig:"TIDEWIRE_CLUSTER_INSECURE" default:"false" desc:"true: connections without proof are let in, so that whoever reaches the cluster port can do everything"`
	Groups           string `envconfig:"TIDEWIRE_GROUPS" default:"8" desc:"Raft groups; fixed when the cluster first starts"`
	DataDir          string `envconfig:"TIDEWIRE_DATA_DIR" default:"./data" desc:"Raft logs and snapshots"`

	KafkaBrokers       string `envconfig:"TIDEWIRE_KAFKA_BROKERS" default:"" show:"required" desc:"host:9092,…"`
	KafkaTopics        string `envconfig:"TIDEWIRE_KAFKA_TOPICS" default:"" show:"required" desc:"topics to expose: names and /regular expressions/, comma separated; topics that appear later are picked up"`
	KafkaPublishTopics string `envconfig:"TIDEWIRE_KAFKA_PUBLISH_TOPICS" default:"" show:"none" desc:"topics clients may publish to, same form"`
	KafkaGroupID       string `envconfig:"TIDEWIRE_KAFKA_GROUP_ID" default:"tidewire" desc:"consumer group"`
	KafkaStart         string `envconfig:"TIDEWIRE_KAFKA_START" default:"latest" desc:"where a partition that the cluster has never read begins: earliest, latest or an age such as 10m"`
	KafkaFormats       string `envconfig:"TIDEWIRE_KAFKA_FORMATS" default:"" show:"by content" desc:"pins topics to one form of value in msg: prices=json,blobs=binary,notes=text"`
	KafkaPartitioner   string `envconfig:"TIDEWIRE_KAFKA_PARTITIONER" default:"murmur2" desc:"where producers put keys: murmur2 (checked while reading) or any"`
	KafkaTLS           string `envconfig:"TIDEWIRE_KAFKA_TLS" default:"off" desc:"TLS to Kafka: on or off"`
	KafkaTLSCA         string `envconfig:"TIDEWIRE_KAFKA_TLS_CA" default:"" show:"the system's" desc:"file of certificates to trust, PEM"`
	KafkaTLSCert       string `envconfig:"TIDEWIRE_KAFKA_TLS_CERT" default:"" show:"none" desc:"client certificate, PEM"`
	KafkaTLSKey        string `envconfig:"TIDEWIRE_KAFKA_TLS_KEY" default:"" show:"none" desc:"its key, PEM"`
	KafkaSASLMechanism string `envconfig:"TIDEWIRE_KAFKA_SASL_MECHANISM" default:"" show:"none" desc:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM"`
	KafkaSASLUsername  string `envconfig:"TIDEWIRE_KAFKA_SASL_USERNAME" default:"" show:"none" desc:"user name"`
	KafkaSASLPassword  string `envconfig:"TIDEWIRE_KAFKA_SASL_PASSWORD" default:"" show:"none" desc:"password" secret:"true"`
	KafkaOAuthTokenURL string `envconfig:"TIDEWIRE_KAFKA_OAUTH_TOKEN_URL" default:"" show:"none" desc:"OAUTHBEARER: the token endpoint (client credentials); https"`
	KafkaOAuthClientID string `envconfig:"TIDEWIRE_KAFKA_OAUTH_CLIENT_ID" default:"" show:"none" desc:"client id"`
	KafkaOAuthSecret   string `envconfig:"TIDEWIRE_KAFKA_OAUTH_CLIENT_SECRET" default:"" show:"none" desc:"client secret" secret:"true"`
	KafkaOAuthScope    string `envconfig:"TIDEWIRE_KAFKA_OAUTH_SCOPE" default:"" show:"none" desc:"scopes to ask for, with spaces between"`
	KafkaOAuthToken    string `envconfig:"TIDEWIRE_KAFKA_OAUTH_TOKEN" default:"" show:"none" desc:"a token instead of an endpoint; mostly as a file that something else renews" secret:"true"`
	KafkaOAuthExtra    string `envconfig:"TIDEWIRE_KAFKA_OAUTH_EXTENSIONS" default:"" show:"none" desc:"what the brokers want besides the token: logicalCluster=lkc-1,identityPoolId=pool-1"`
	KafkaAWSRegion     string `envconfig:"TIDEWIRE_KAFKA_AWS_REGION" default:"" show:"AWS_REGION" desc:"AWS_MSK_IAM: the cluster's region; credentials as AWS's own tools find them"`

	TLSCert       string `envconfig:"TIDEWIRE_TLS_CERT" default:"" show:"none" desc:"certificate with its chain for the clients' port, PEM: makes it https and wss; read again when it changes"`
	TLSKey        string `envconfig:"TIDEWIRE_TLS_KEY" default:"" show:"none" desc:"its key, PEM"`
	ACMEDomains   string `envconfig:"TIDEWIRE_ACME_DOMAINS" default:"" show:"none" desc:"instead of files: domains for which certificates are got from an ACME authority, which asks back on port 443 of each"`
	ACMEEmail     string `envconfig:"TIDEWIRE_ACME_EMAIL" default:"" show:"none" desc:"where the authority writes to"`
	ACMEDirectory string `envconfig:"TIDEWIRE_ACME_DIRECTORY" default:"" show:"Let's Encrypt" desc:"the authority's directory"`

	CacheTTL   string `envconfig:"TIDEWIRE_CACHE_TTL" default:"10m" desc:"how long a record stays in memory"`
	CacheBytes string `envconfig:"TIDEWIRE_CACHE_BYTES" default:"" show:"25% of memory" desc:"budget of all partitions together, in bytes (also 512MiB, 2GiB)"`

	MaxConnections       string `envconfig:"TIDEWIRE_MAX_CONNECTIONS" default:"" show:"80% of file descriptors" desc:"connections of clients, all together"`
	MaxConnectionsPerIP  string `envconfig:"TIDEWIRE_MAX_CONNECTIONS_PER_IP" default:"" show:"a quarter of TIDEWIRE_MAX_CONNECTIONS" desc:"connections of one client address, with IPv6 of one /64; 0: no limit"`
	MaxHandshakes        string `envconfig:"TIDEWIRE_MAX_HANDSHAKES" default:"8192" desc:"connections in the handshake at once; beyond it the oldest is closed"`
	HandshakeTimeout     string `envconfig:"TIDEWIRE_HANDSHAKE_TIMEOUT" default:"10s" desc:"how long a client may take from connecting until its request is whole, TLS included"`
	MaxHeaderBytes       string `envconfig:"TIDEWIRE_MAX_HEADER_BYTES" default:"16384" desc:"bytes of a request's line and headers"`
	TrustedProxies       string `envconfig:"TIDEWIRE_TRUSTED_PROXIES" default:"" show:"none" desc:"addresses and networks of proxies whose X-Forwarded-For is believed"`
	ProxyProtocol        string `envconfig:"TIDEWIRE_PROXY_PROTOCOL" default:"false" desc:"true: the proxies of TIDEWIRE_TRUSTED_PROXIES begin each connection with the PROXY protocol, version 2"`
	MaxFrames            string `envconfig:"TIDEWIRE_MAX_FRAMES_PER_SECOND" default:"1000" desc:"frames of a session a second, and over HTTP requests of an address a second; 0: no limit"`
	MaxBytes             string `envconfig:"TIDEWIRE_MAX_BYTES_PER_SECOND" default:"4194304" desc:"bytes that a session may send a second; 0: no limit"`
	FrameTimeout         string `envconfig:"TIDEWIRE_FRAME_TIMEOUT" default:"1m" desc:"how long a client may take to complete a message that it has begun"`
	MaxBadRequests       string `envconfig:"TIDEWIRE_MAX_BAD_REQUESTS" default:"100" desc:"bad and rate-limited requests of a session, one a second forgiven; beyond it the session is closed with 4009"`
	MaxSubscriptions     string `envconfig:"TIDEWIRE_MAX_SUBSCRIPTIONS" default:"10000" desc:"subscriptions of a session"`
	MaxPositions         string `envconfig:"TIDEWIRE_MAX_RESUME_POSITIONS" default:"16384" desc:"positions in the vector that a subscription resumes from"`
	MaxRecordHeaders     string `envconfig:"TIDEWIRE_MAX_RECORD_HEADERS" default:"256" desc:"headers of a record that a client publishes"`
	MaxRecordHeaderBytes string `envconfig:"TIDEWIRE_MAX_RECORD_HEADER_BYTES" default:"65536" desc:"names and values of such a record's headers together, in bytes"`
	MaxPublishes         string `envconfig:"TIDEWIRE_MAX_PUBLISHES" default:"4096" desc:"publishes on their way to Kafka at once, of all clients"`
	MaxSessionPublishes  string `envconfig:"TIDEWIRE_MAX_SESSION_PUBLISHES_PER_SECOND" default:"1000" desc:"publishes of a session a second; 0: no limit"`
	MaxUserPublishes     string `envconfig:"TIDEWIRE_MAX_USER_PUBLISHES_PER_SECOND" default:"5000" desc:"publishes of a user a second, or of an address whose clients do not say who they are, on this node; 0: no limit"`
	MaxReplays           string `envconfig:"TIDEWIRE_MAX_REPLAYS" default:"64" desc:"partitions read from Kafka at once, for clients that resume"`
	MaxSessionReplays    string `envconfig:"TIDEWIRE_MAX_SESSION_REPLAYS" default:"4" desc:"partitions read from Kafka at once for one session that resumes"`
	MaxReplayBytes       string `envconfig:"TIDEWIRE_MAX_REPLAY_BYTES_PER_SECOND" default:"" show:"64 MiB a processor" desc:"bytes of records read from Kafka a second for clients that resume, all together; 0: no limit"`
	MaxWaitingReplays    string `envconfig:"TIDEWIRE_MAX_WAITING_REPLAYS" default:"65536" desc:"partitions of all subscriptions that are read from Kafka for their clients or wait to be"`
	MaxPendingBytes      string `envconfig:"TIDEWIRE_MAX_PENDING_BYTES" default:"" show:"10% of memory, at least 16 MiB and four of the largest frames" desc:"bytes kept in all for clients whose sockets do not take them, and of messages that are not whole; as much again of publishes on their way to Kafka"`

	MaxFrameBytes  string `envconfig:"TIDEWIRE_MAX_FRAME_BYTES" default:"1048576" desc:"the largest frame that a client may send, in bytes"`
	Heartbeat      string `envconfig:"TIDEWIRE_HEARTBEAT" default:"25s" desc:"silence after which a client gets a heartbeat"`
	IsolationGrace string `envconfig:"TIDEWIRE_ISOLATION_GRACE" default:"10s" desc:"how long a node cut off from the majority keeps its clients"`
	AllowedOrigins string `envconfig:"TIDEWIRE_ALLOWED_ORIGINS" default:"" show:"same host" desc:"browser origins that may connect; * for any"`
	Compression    string `envconfig:"TIDEWIRE_COMPRESSION" default:"off" desc:"on: records are compressed for WebSocket clients that ask for it (all browsers do), each once; off: never"`

	Auth              string `envconfig:"TIDEWIRE_AUTH" default:"none" desc:"who may do what: none (everybody, everything that is exposed) or jwt (what a client's JSON Web Token says)"`
	AuthJWTSecret     string `envconfig:"TIDEWIRE_AUTH_JWT_SECRET" default:"" show:"none" desc:"key of tokens with HS256, HS384 and HS512: 32, 48 and 64 bytes at least" secret:"true"`
	AuthJWTKeyFile    string `envconfig:"TIDEWIRE_AUTH_JWT_KEY_FILE" default:"" show:"none" desc:"PEM file of public keys or certificates, for tokens with RS…, PS…, ES… and EdDSA; read at the start"`
	AuthJWKSURL       string `envconfig:"TIDEWIRE_AUTH_JWKS_URL" default:"" show:"none" desc:"https address of a JSON Web Key Set, for the same; fetched every 5 minutes and when a token has a key that is not known"`
	AuthJWTAlgorithms string `envconfig:"TIDEWIRE_AUTH_JWT_ALGORITHMS" default:"" show:"all that the keys are for" desc:"signature algorithms that are taken, such as ES256,EdDSA"`
	AuthJWTIssuer     string `envconfig:"TIDEWIRE_AUTH_JWT_ISSUER" default:"" show:"any" desc:"the claim iss that a token must have"`
	AuthJWTAudience   string `envconfig:"TIDEWIRE_AUTH_JWT_AUDIENCE" default:"" show:"any" desc:"of these, one must be in a token's claim aud"`
	AuthJWTLeeway     string `envconfig:"TIDEWIRE_AUTH_JWT_LEEWAY" default:"5s" desc:"how far the issuer's clock may be from this node's"`
	AuthJWTClaim      string `envconfig:"TIDEWIRE_AUTH_JWT_CLAIM" default:"tidewire" desc:"the claim that holds the rights"`
	AuthMaxLifetime   string `envconfig:"TIDEWIRE_AUTH_MAX_LIFETIME" default:"720h" desc:"a token that lives longer than this, or for ever, is refused, and a revocation is kept so long; 0 takes any"`
	AnonymousSub      string `envconfig:"TIDEWIRE_ANONYMOUS_SUB" default:"" show:"none" desc:"with jwt: subjects and patterns that everybody may subscribe to, with or without a token"`
	AnonymousPub      string `envconfig:"TIDEWIRE_ANONYMOUS_PUB" default:"" show:"none" desc:"with jwt: subjects and patterns that everybody may publish to, with or without a token"`

	AuthWebhook        string `envconfig:"TIDEWIRE_AUTH_WEBHOOK" default:"" show:"none" desc:"https address of a service that decides about each session and subject, besides the tokens' rights"`
	AuthWebhookToken   string `envconfig:"TIDEWIRE_AUTH_WEBHOOK_TOKEN" default:"" show:"none" desc:"bearer token that the service is shown" secret:"true"`
	AuthWebhookTimeout string `envconfig:"TIDEWIRE_AUTH_WEBHOOK_TIMEOUT" default:"2s" desc:"how long it may take; then the answer is no"`

	LogLevel  string `envconfig:"TIDEWIRE_LOG_LEVEL" default:"info" desc:"trace, debug, info, warn or error"`
	LogFormat string `envconfig:"TIDEWIRE_LOG_FORMAT" default:"json" desc:"json, or console for people"`

	secrets secrets // filled by parse
}

// prefix begins the names of all our variables.
const prefix = "TIDEWIRE_"

// FromEnv reads the configuration from the environment. The error joins one line for each problem.
func FromEnv() (Config, error) {
	e, err := readEnv()
	if err != nil {
		return Config{}, err
	}
	return e.parse()
}

// readEnv reads the variables. One that is set to nothing counts as not set: that is what compose files
// and charts make of a value that nobody gave.
func readEnv() (env, error) {
	var e env
	if err := envconfig.Process("", &e); err != nil {
		return env{}, err
	}
	v := reflect.ValueOf(&e).Elem()
	for _, f := range fields() {
		if f.index >= 0 && v.Field(f.index).String() == "" {
			v.Field(f.index).SetString(v.Type().Field(f.index).Tag.Get("default"))
		}
	}
	return e, nil
}

// Usage prints the table of variables.
func Usage(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "VARIABLE\tDEFAULT\tMEANING")
	for _, f := range fields() {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.Name, f.Default, f.Meaning)
	}
	return t.Flush()
}

// A Variable is one row of the table of variables.
type Variable struct{ Name, Default, Meaning string }

// Variables returns the table of variables, for the documentation's tests.
func Variables() []Variable {
	var out []Variable
	for _, f := range fields() {
		out = append(out, f.Variable)
	}
	return out
}

type field struct {
	Variable
	secret bool
	index  int // of the field in env; -1: there is none, the variable names the file of a secret
}

func fields() []field {
	t := reflect.TypeFor[env]()
	out := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		name, secret := tag.Get("envconfig"), tag.Get("secret") != ""
		if name == "" {
			continue
		}
		def := tag.Get("default")
		if show := tag.Get("show"); show != "" {
			def = show
		}
		out = append(out, field{Variable{name, def, tag.Get("desc")}, secret, i})
		if secret {
			out = append(out, field{Variable{name + fileSuffix, "none", "a file that holds " + name + " instead; read again when it changes"}, false, -1})
		}
	}
	return out
}

// Print writes the values in force, one NAME=value a line, secrets masked.
func Print(w io.Writer) error {
	e, err := readEnv()
	if err != nil {
		return err
	}
	cfg, err := e.parse()
	if err != nil {
		return err
	}
	e.inForce(cfg)
	v := reflect.ValueOf(e)
	for _, f := range fields() {
		s := os.Getenv(f.Name)
		if f.index >= 0 {
			s = v.Field(f.index).String()
		}
		if f.secret && s != "" {
			s = mask
		}
		if _, err := fmt.Fprintf(w, "%s=%s\n", f.Name, s); err != nil {
			return err
		}
	}
	return nil
}

// inForce puts in what a default was worked out to be.
func (e *env) inForce(cfg Config) {
	e.NodeID = string(cfg.NodeID)
	e.ClusterListen, e.ClusterAdvertise = cfg.ClusterListen, cfg.ClusterAdvertise
	e.CacheBytes = fmt.Sprint(cfg.CacheBytes)
	e.MaxConnections, e.MaxConnectionsPerIP = fmt.Sprint(cfg.Limits.Connections), fmt.Sprint(max(0, cfg.Limits.ConnectionsPerAddress))
	e.MaxReplayBytes = fmt.Sprint(max(0, cfg.Limits.ReplayBytes))
	e.MaxPendingBytes = fmt.Sprint(cfg.Limits.PendingBytes)
}

// Unknown returns the variables that look like ours and are not, each with the name that was probably
// meant, if there is one near. It is for a warning: Kubernetes puts variables such as
// TIDEWIRE_SERVICE_HOST into every container beside a service named tidewire.
func Unknown() []string {
	var out []string
	all := fields()
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, prefix+"TEST_") ||
			slices.ContainsFunc(all, func(f field) bool { return f.Name == name }) {
			continue
		}
		for _, f := range all {
			if near(name, f.Name) {
				name += " (did you mean " + f.Name + "?)"
				break
			}
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// near says whether one name becomes the other by adding, removing or changing at most two letters.
func near(a, b string) bool {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)] <= 2
}

// problems collects what is wrong, one line each.
type problems []error

// add adds a problem. The value of a secret variable is masked, whatever is given for it.
func (p *problems) add(name, value, right string, args ...any) {
	if value != "" && slices.ContainsFunc(fields(), func(f field) bool { return f.secret && f.Name == name }) {
		value = mask
	}
	*p = append(*p, fmt.Errorf("%s=%q: %s", name, value, fmt.Sprintf(right, args...)))
}

func (p problems) err() error { return errors.Join(p...) }
