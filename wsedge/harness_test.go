package wsedge

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/cache"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(dialVariable); what != "" {
		dialed(what)
		return
	}
	goleak.VerifyTestMain(m)
}

// edge is a server on a loopback port with a fake node behind it.
type edge struct {
	t    testing.TB
	node *fakeNode
	srv  *Server
	addr string
	tls  *tls.Config // of its clients; nil: none
	reg  *prometheus.Registry

	pipes *connQueue // not nil: there is no port, see overPipes
}

func newEdge(t testing.TB, cc cache.Config, change func(*Config)) *edge {
	t.Helper()
	node := newFakeNode(cc)
	node.topic("prices", TopicView{Partitions: 4, Exposed: true, Publish: true})
	node.topic("one", TopicView{Partitions: 1, Exposed: true, Publish: true})
	reg := prometheus.NewRegistry()
	cfg := Config{Backend: node, Cache: node.store, Encoder: node.enc, Node: "n1", Registerer: reg}
	var clients *tls.Config
	if overTLS {
		cfg.TLS, clients = &tls.Config{Certificates: []tls.Certificate{testCertificate()}}, trusting(testCertificate())
	}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	node.store.OnAppend(srv.LogAppended)
	var ln net.Listener
	var pipes *connQueue
	if overPipes {
		pipes = newConnQueue()
		ln = pipes
	} else if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return &edge{t: t, node: node, srv: srv, addr: ln.Addr().String(), tls: clients, reg: reg, pipes: pipes}
}

// metric is the value of a counter or gauge; of those with labels, of the one that has this value of any.
func (e *edge) metric(name, label string) float64 {
	e.t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			found := label == ""
			for _, l := range m.GetLabel() {
				found = found || l.GetValue() == label
			}
			if found {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// client is a WebSocket client that understands nothing but frames of JSON.
type client struct {
	t  testing.TB
	ws *websocket.Conn
}

type message struct {
	Op        string          `json:"op"`
	ID        uint64          `json:"id"`
	Subject   string          `json:"subject"`
	At        [][3]uint64     `json:"at"`
	Recovered *bool           `json:"recovered"`
	Gap       string          `json:"gap"`
	Lost      json.RawMessage `json:"lost"`
	Pos       [3]uint64       `json:"pos"`
	Prev      *[2]uint64      `json:"prev"`
	TS        int64           `json:"ts"`
	Data      json.RawMessage `json:"data"`
	Text      *string         `json:"text"`
	B64       *string         `json:"b64"`
	Null      bool            `json:"null"`
	Headers   json.RawMessage `json:"headers"`
	Reason    string          `json:"reason"`
	Code      string          `json:"code"`
	Message   string          `json:"message"`
	RetryMS   int64           `json:"retry_ms"`
	Nodes     []string        `json:"nodes"`
	Version   int             `json:"version"`
	Node      string          `json:"node"`
	Auth      string          `json:"auth"`
	Expires   *int64          `json:"expires"`
	Session   string          `json:"session"`
	Heartbeat int64           `json:"heartbeat_ms"`
	MaxFrame  int64           `json:"max_frame_bytes"`
	Partition *int32          `json:"partition"`
	Offset    int64           `json:"offset"`
	Duplicate bool            `json:"duplicate"`
	raw       string
}

func (e *edge) dial() *client {
	e.t.Helper()
	c := e.dialRaw(nil)
	if m := c.next(); m.Op != "welcome" {
		e.t.Fatalf("first came %s", m.raw)
	}
	return c
}

func (e *edge) dialRaw(opts *websocket.DialOptions) *client {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	with := websocket.DialOptions{HTTPClient: &http.Client{Transport: e.transport()}}
	if opts != nil {
		with.Subprotocols, with.HTTPHeader, with.CompressionMode = opts.Subprotocols, opts.HTTPHeader, opts.CompressionMode
	}
	ws, resp, err := websocket.Dial(ctx, e.url("ws", "/ws"), &with)
	if err != nil {
		e.t.Fatalf("dial: %v (%v)", err, resp)
	}
	ws.SetReadLimit(64 << 20)
	e.t.Cleanup(func() { ws.CloseNow() })
	return &client{t: e.t, ws: ws}
}

func (c *client) send(format string, args ...any) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) read() (message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	defer cancel()
	typ, b, err := c.ws.Read(ctx)
	if err != nil {
		return message{}, err
	}
	var m message
	if typ != websocket.MessageText || json.Unmarshal(b, &m) != nil {
		return m, fmt.Errorf("a frame that is no JSON text: %q", b)
	}
	m.raw = string(b)
	return m, nil
}

func (c *client) next() message {
	c.t.Helper()
	m, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return m
}

// expect reads one frame and compares it as text.
func (c *client) expect(want string) {
	c.t.Helper()
	if m := c.next(); m.raw != want {
		c.t.Fatalf("got  %s\nwant %s", m.raw, want)
	}
}

// closes reads until the connection ends and returns the close code and the op before it.
func (c *client) closes() (websocket.StatusCode, message) {
	c.t.Helper()
	var last message
	for {
		m, err := c.read()
		if err != nil {
			return websocket.CloseStatus(err), last
		}
		last = m
	}
}

func (e *edge) get(path string) (*http.Response, string) {
	e.t.Helper()
	resp, err := (&http.Client{Transport: e.transport()}).Get(e.url("http", path))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := resp.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return resp, b.String()
		}
	}
}
