package tidewire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says where a cluster is and how to talk to it. The zero value of every field but Nodes suits
// most.
type Config struct {
	// Nodes are the client addresses of the cluster, any number of them: "host:port", or a URL with
	// the scheme ws or wss (its path is /ws unless it has one). Required.
	Nodes []string
	// InOrder starts with the first of Nodes. Without it the start is chosen at random, so that many
	// clients with one list spread over the cluster.
	InOrder bool
	// Token is sent in the auth op. Empty: none.
	Token string
	// TokenSource is asked for a token at every connection and before the last one expires; it wins
	// over Token. It may be called from several goroutines.
	TokenSource func(context.Context) (string, error)
	// Log gets what an operator may want to know. Nil: nothing is logged.
	Log *slog.Logger
	// OnState is told of every connection made and lost, and of the reason for which a client cannot go
	// on (a fixed token was refused). It is called from the client's own
	// goroutine, in order, and must not block or call Close.
	OnState func(State)
	// HTTPClient makes the handshake. Nil: one of the client's own.
	HTTPClient *http.Client
	// DialTimeout bounds the time from dialling to the server's welcome. Zero: 10 s.
	DialTimeout time.Duration
	// BackoffBase and BackoffMax are those of the full-jitter exponential backoff between
	// connections. Zero: 250 ms and 20 s.
	BackoffBase, BackoffMax time.Duration
	// MaxMessageBytes is the largest frame that is accepted from a server. Zero: 64 MiB.
	MaxMessageBytes int64
	// MaxPublishes is how many publishes may be under way at once; one more waits in Publish and is
	// refused with ErrQueueFull by PublishAsync. Zero: 256.
	MaxPublishes int
}

// State is a change of a client's connection.
type State struct {
	Connected bool
	Node      string        // the node's name; empty if it never said
	Addr      string        // the URL dialled
	Session   string        // the server's name for the connection
	Err       error         // not connected: why
	RetryIn   time.Duration // not connected: when the next node is tried
}

// withDefaults checks the configuration and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	if len(c.Nodes) == 0 {
		return c, errors.New("tidewire: Config.Nodes is empty: name at least one node, as host:port")
	}
	nodes := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		u, err := nodeURL(n)
		if err != nil {
			return c, err
		}
		nodes[i] = u
	}
	c.Nodes = nodes
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnState == nil {
		c.OnState = func(State) {}
	}
	def(&c.DialTimeout, 10*time.Second)
	def(&c.BackoffBase, 250*time.Millisecond)
	def(&c.BackoffMax, 20*time.Second)
	def(&c.MaxMessageBytes, 64<<20)
	def(&c.MaxPublishes, 256)
	if c.BackoffMax < c.BackoffBase {
		return c, fmt.Errorf("tidewire: Config.BackoffMax (%s) is less than BackoffBase (%s)", c.BackoffMax, c.BackoffBase)
	}
	return c, nil
}

func def[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// nodeURL makes the URL to dial of one entry of Config.Nodes.
func nodeURL(node string) (string, error) {
	text := strings.TrimSpace(node)
	if !strings.Contains(text, "://") {
		text = "ws://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Port() == "" && u.Scheme == "ws" && !strings.Contains(node, "://") {
		return "", fmt.Errorf("tidewire: node %q is neither host:port nor a ws:// or wss:// URL", node)
	}
	switch u.Scheme {
	case "ws", "wss":
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	default:
		return "", fmt.Errorf("tidewire: node %q has the scheme %s: use ws or wss", node, u.Scheme)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/ws"
	}
	return u.String(), nil
}
