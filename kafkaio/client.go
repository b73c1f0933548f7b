package kafkaio

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
)

// Config says how to reach Kafka. Only Brokers is required.
type Config struct {
	Brokers     []string       // bootstrap addresses, host:port
	ClientID    string         // sent with each request; default "tidewire"
	TLS         *tls.Config    // nil: no TLS. An empty ServerName stands for each broker's host
	SASL        sasl.Mechanism // nil: none
	DialTimeout time.Duration  // for TCP, TLS, versions and SASL together; default 5 s
	Log         zerolog.Logger
}

// Client opens connections to brokers: dialled, secured, authenticated and with the protocol versions
// agreed on. All of this package shares one. Its methods may be called from any goroutine.
type Client struct {
	cfg Config

	mu        sync.Mutex
	closed    bool
	cancel    context.CancelFunc // of the transport's goroutines
	transport *kafka.Transport   // made when it is first asked for
}

// ErrClosed is returned by everything of this package that has been closed.
var ErrClosed = errors.New("kafkaio: closed")

const (
	defaultClientID    = "tidewire"
	defaultDialTimeout = 5 * time.Second
)

// NewClient checks cfg and returns a Client. It opens no connection.
func NewClient(cfg Config) (*Client, error) {
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("kafkaio: no brokers")
	}
	for _, b := range cfg.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("kafkaio: broker address %q is not host:port", b)
		}
	}
	if cfg.ClientID == "" {
		cfg.ClientID = defaultClientID
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = defaultDialTimeout
	}
	return &Client{cfg: cfg}, nil
}

// Dial returns a connection to the broker at addr (host:port) that is ready for requests. The caller
// owns it: one request at a time, and Close at the end. Errors: *AuthError when the broker refused the
// credentials, *VersionError when it speaks none of our versions of a request that we need.
func (c *Client) Dial(ctx context.Context, addr string) (*protocol.Conn, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	raw, versions, err := c.open(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial Kafka broker %s: %w", addr, err)
	}
	conn := protocol.NewConn(raw, c.cfg.ClientID)
	conn.SetVersions(versions)
	return conn, nil
}

// DialAny returns a connection to the first bootstrap broker that can be reached. When none can, the
// error joins the reasons of all.
func (c *Client) DialAny(ctx context.Context) (*protocol.Conn, error) {
	var errs []error
	for _, addr := range c.cfg.Brokers {
		conn, err := c.Dial(ctx, addr)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// dialNet opens the TCP connection and, when configured, TLS on it.
func (c *Client) dialNet(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 15 * time.Second}
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if c.cfg.TLS == nil {
		return &frameGuard{Conn: raw}, nil
	}
	tc := c.cfg.TLS
	if tc.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			_ = raw.Close()
			return nil, err
		}
		tc = tc.Clone()
		tc.ServerName = host
	}
	sec := tls.Client(raw, tc)
	if err := sec.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return &frameGuard{Conn: sec}, nil
}

// open returns a connection that is authenticated, and stays so, and the versions that were agreed on.
func (c *Client) open(ctx context.Context, network, addr string) (net.Conn, map[protocol.ApiKey]int16, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	raw, err := c.dialNet(ctx, network, addr)
	if err != nil {
		return nil, nil, err
	}
	conn, versions, err := c.handshake(ctx, raw, addr)
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	return conn, versions, nil
}

// handshake agrees on versions and authenticates, within ctx's deadline.
func (c *Client) handshake(ctx context.Context, raw net.Conn, addr string) (net.Conn, map[protocol.ApiKey]int16, error) {
	conn := protocol.NewConn(raw, c.cfg.ClientID)
	versions, err := negotiate(ctx, conn, c.cfg.SASL != nil)
	if err != nil || c.cfg.SASL == nil {
		return raw, versions, err
	}
	conn.SetVersions(versions)
	session, first, err := startSASL(ctx, addr, c.cfg.SASL)
	if err != nil {
		return nil, nil, err
	}
	lifetime, err := authenticate(ctx, conn, c.cfg.SASL, session, first)
	if err != nil {
		return nil, nil, err
	}
	return newSessionConn(c, raw, addr, versions, lifetime), versions, nil
}

// RoundTrip sends req over conn and returns the answer. It ends with ctx: the connection must be
// closed after any error, as an answer may still be on its way. A broken answer is an error, not a
// panic of the decoder.
func RoundTrip(ctx context.Context, conn *protocol.Conn, req protocol.Message) (res protocol.Message, err error) {
	deadline, _ := ctx.Deadline() // the zero time means none
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, fmt.Errorf("decode Kafka's answer to %v: %v", req.ApiKey(), p)
		}
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
	}()
	return conn.RoundTrip(req)
}

// Dialer is for kafka-go's ConsumerGroup. Its connections are authenticated by us, as kafka-go would not keep them so.
func (c *Client) Dialer() *kafka.Dialer {
	return &kafka.Dialer{ClientID: c.cfg.ClientID, Timeout: c.cfg.DialTimeout, DialFunc: c.dial}
}

// dial opens connections for kafka-go, which agrees on versions itself.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.cfg.SASL == nil {
		return c.dialNet(ctx, network, addr)
	}
	conn, _, err := c.open(ctx, network, addr)
	return conn, err
}

// Transport is kafka-go's pool of connections for administrative requests. It asks for the metadata of
// one topic name only: without any it would fetch that of all the cluster's topics, every half second.
func (c *Client) Transport() *kafka.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport == nil {
		ctx, cancel := context.WithCancel(context.Background())
		if c.closed {
			cancel()
		}
		c.cancel = cancel
		c.transport = &kafka.Transport{
			Dial:           c.dial,
			DialTimeout:    c.cfg.DialTimeout,
			MetadataTTL:    500 * time.Millisecond,
			MetadataTopics: []string{"__consumer_offsets"},
			ClientID:       c.cfg.ClientID,
			Context:        ctx,
		}
	}
	return c.transport
}

// KafkaClient is kafka-go's client over Transport, for requests that need no particular topic's leader.
func (c *Client) KafkaClient() *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(c.cfg.Brokers...), Transport: c.Transport()}
}

// Brokers returns the bootstrap addresses.
func (c *Client) Brokers() []string { return append([]string(nil), c.cfg.Brokers...) }

// Close makes further dials fail and closes the transport and the SASL mechanism. Connections returned by Dial belong to their
// callers.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if m, ok := c.cfg.SASL.(interface{ close() }); ok {
		m.close()
	}
	if c.transport != nil {
		c.cancel()
		c.transport.CloseIdleConnections()
	}
	return nil
}
