package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say what to measure. Sizes are in bytes.
type Options struct {
	Scenarios string        // expression that matches whole names; empty: all that are possible
	Runs      int           // of each scenario; zero: 3
	Duration  time.Duration // of a measured window; zero: 10 s
	Warmup    time.Duration // before it; zero: 2 s
	Size      int           // of a value; zero: 512
	Scale     float64       // multiplies the numbers of clients; zero: 1
	Threads   int           // of the load; zero: 1
	Progress  func(format string, args ...any)

	// A cluster that runs. Topic is written to.
	Nodes []string // clients' addresses, host:port
	Admin []string // admin addresses, host:port or URLs; empty: processor time and memory stay unknown
	// AdminTransport shows the admin ports what they want to be shown; nil: nothing.
	AdminTransport http.RoundTripper
	Brokers        []string
	Kafka          []kgo.Opt // how to reach them, besides their addresses
	Topic          string
	Create         bool // create it if it is missing
	Token          string
	TLS            *tls.Config // of the clients; nil: the nodes' ports are without

	// Or Local: everything on this machine. Then the above, from Nodes on, is not used.
	Local       bool
	ClusterSize int      // nodes; zero: 3
	Servers     []string // to measure: tidewire, floor, centrifuge; empty: all
	ServerCPUs  []int    // of the server under test; nil: the first that we may use
	LoadCPUs    []int    // of everything else; nil: the others, or the same where there is one only
	CacheBytes  int64    // a node's cache; zero: 256 MiB
	NodeEnv     []string // more variables of the nodes, NAME=value
	Records     int      // of the ingest scenario; zero: 1,000,000
	Tidewire    string   // path of the program
	Centrifuge  string   // path of the program; empty: it is left out
	KafkaPath   string   // path of benchkafka; empty: Brokers is used, which must be a Kafka for this alone
	KafkaLine   string   // release line of Kafka; empty: 4
	// FloorCommand runs the floor program; flags are appended.
	FloorCommand []string
	Dir          string // for logs and data
	Profiles     string // folder for processor profiles of the node under test, which cost it a little; empty: none
}

// The servers that a local bench compares.
const (
	ServerTidewire   = "tidewire"
	ServerFloor      = "floor"
	ServerCentrifuge = "centrifuge"
	// Tidewire behind what keeps strangers out, in the scenarios that compare these with Tidewire open to all.
	ServerJWT    = "tidewire+jwt"
	ServerTLS    = "tidewire+tls"
	ServerTLSJWT = "tidewire+tls+jwt"
	// ServerConsumer is a plain consumer of Kafka, in the scenarios that compare with one.
	ServerConsumer = "consumer"
)

// fill sets defaults and says what is wrong.
func (o *Options) fill() error {
	setDefault(&o.Runs, 3)
	setDefault(&o.Duration, 10*time.Second)
	setDefault(&o.Warmup, 2*time.Second)
	setDefault(&o.Size, 512)
	setDefault(&o.Scale, 1)
	setDefault(&o.Threads, 1)
	setDefault(&o.ClusterSize, 3)
	setDefault(&o.CacheBytes, 256<<20)
	setDefault(&o.Records, 1_000_000)
	setDefault(&o.KafkaLine, "4")
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	if len(o.Servers) == 0 {
		o.Servers = []string{ServerTidewire, ServerFloor, ServerCentrifuge}
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Runs < 1 || o.Duration < 0 || o.Warmup < 0 || o.Scale <= 0 || o.Threads < 1 || o.Threads > 64 || o.Records < 1000 {
		wrong("runs, threads, scale and records must be above zero, durations not below: %d runs, %d threads, scale %v, %d records", o.Runs, o.Threads, o.Scale, o.Records)
	}
	if o.Size < MinSize || o.Size > maxFrame/2 {
		wrong("the size of a value is from %d to %d bytes, not %d", MinSize, maxFrame/2, o.Size)
	}
	if _, err := regexp.Compile("^(?:" + o.Scenarios + ")$"); err != nil {
		wrong("the scenarios: %w", err)
	}
	for _, s := range o.Servers {
		if s != ServerTidewire && s != ServerFloor && s != ServerCentrifuge {
			wrong("no server %q: there are tidewire, floor and centrifuge", s)
		}
	}
	switch {
	case o.Local:
		if o.ClusterSize < 1 || o.ClusterSize > 9 {
			wrong("a cluster has 1 to 9 nodes here, not %d", o.ClusterSize)
		}
		if o.KafkaPath == "" && len(o.Brokers) == 0 {
			wrong("no Kafka: give the path of benchkafka or brokers")
		}
	case len(o.Nodes) == 0 || len(o.Brokers) == 0 || o.Topic == "":
		wrong("name the nodes, the brokers and a topic to write to")
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrOptions, errors.Join(errs...))
	}
	return nil
}

// ErrOptions says that options are wrong; nothing was started.
var ErrOptions = errors.New("wrong options")

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
