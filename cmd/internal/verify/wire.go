package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// frame is any op of the server.
type frame struct {
	Op          string                     `json:"op"`
	ID          int64                      `json:"id"`
	Node        string                     `json:"node"`
	HeartbeatMS int64                      `json:"heartbeat_ms"`
	Subject     string                     `json:"subject"`
	Pos         []uint64                   `json:"pos"`
	Prev        []uint64                   `json:"prev"`
	TS          int64                      `json:"ts"`
	Data        json.RawMessage            `json:"data"`
	Text        *string                    `json:"text"`
	B64         *[]byte                    `json:"b64"`
	Null        bool                       `json:"null"`
	Headers     map[string]json.RawMessage `json:"headers"`
	At          [][]uint64                 `json:"at"`
	Recovered   *bool                      `json:"recovered"`
	Gap         string                     `json:"gap"`
	Lost        []struct {
		Partition int32    `json:"partition"`
		From      []uint64 `json:"from"`
		To        []uint64 `json:"to"`
	} `json:"lost"`
	Reason    string `json:"reason"`
	Code      string `json:"code"`
	Message   string `json:"message"`
	RetryMS   int64  `json:"retry_ms"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Duplicate bool   `json:"duplicate"`
}

// place reads [partition, epoch, seqno].
func place(v []uint64) (Place, bool) {
	if len(v) != 3 || v[0] > 1<<31-1 {
		return Place{}, false
	}
	return Place{int32(v[0]), Pos{v[1], v[2]}}, true
}

// pair reads [epoch, seqno].
func pair(v []uint64) (Pos, bool) {
	if len(v) != 2 {
		return Pos{}, false
	}
	return Pos{v[0], v[1]}, true
}

func places(v [][]uint64) ([]Place, bool) {
	var list []Place
	for _, p := range v {
		at, ok := place(p)
		if !ok {
			return nil, false
		}
		list = append(list, at)
	}
	return list, true
}

// wire is one connection to a node.
type wire struct {
	c    *websocket.Conn
	node string
	// silence is how long a connection may say nothing before it counts as broken.
	silence time.Duration
}

const (
	dialTimeout   = 3 * time.Second
	maxFrame      = 64 << 20
	writeTimeout  = 10 * time.Second
	leastPatience = 2 * time.Second
)

// dial connects and takes the welcome. pace, if not nil, slows the reading down.
func dial(ctx context.Context, addr, token string, pace *throttle) (*wire, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, network, addr)
		if err == nil && pace != nil {
			c = pace.wrap(c)
		}
		return c, err
	}}
	options := &websocket.DialOptions{Subprotocols: []string{"tidewire.v1.json"}, HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{}}
	if token != "" {
		options.HTTPHeader.Set("Authorization", "Bearer "+token)
	}
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws", options)
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(maxFrame)
	w := &wire{c: c, silence: time.Minute}
	f, err := w.next(ctx)
	if err == nil && f.Op != "welcome" {
		err = fmt.Errorf("the first op is %q, not welcome", f.Op)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	w.node = f.Node
	if f.HeartbeatMS > 0 {
		w.silence = max(2*time.Duration(f.HeartbeatMS)*time.Millisecond, leastPatience)
	}
	return w, nil
}

// errFrame is a frame that is none.
type errFrame struct{ err error }

func (e *errFrame) Error() string { return "not a frame of the protocol: " + e.err.Error() }

// next returns the next op that is not a heartbeat. The error ends the connection.
func (w *wire) next(ctx context.Context) (*frame, error) {
	for {
		rctx, cancel := context.WithTimeout(ctx, w.silence)
		_, b, err := w.c.Read(rctx)
		cancel()
		if err != nil {
			return nil, err
		}
		f := &frame{}
		if err := json.Unmarshal(b, f); err != nil {
			return nil, &errFrame{fmt.Errorf("%w: %.200q", err, b)}
		}
		if f.Op != "hb" {
			return f, nil
		}
	}
}

func (w *wire) send(ctx context.Context, op any) error {
	b, err := json.Marshal(op)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return w.c.Write(ctx, websocket.MessageText, b)
}

// close breaks the connection without a goodbye. Safe to call from anywhere, more than once.
func (w *wire) close() { _ = w.c.CloseNow() }

// throttle is the pace of a slow reader, which can be lifted at once.
type throttle struct{ rate atomic.Int64 } // bytes per second; 0: as fast as they come

func (t *throttle) wrap(c net.Conn) net.Conn {
	buffer(c, 4<<10)
	return &slowConn{Conn: c, pace: t, closed: make(chan struct{})}
}

// buffer sets how much the system reads ahead: little, so that the server feels a slow reader. Where that
// cannot be, it feels it later.
func buffer(c net.Conn, bytes int) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(bytes)
	}
}

type slowConn struct {
	net.Conn
	lifted bool // owned by the reader
	pace   *throttle
	closed chan struct{}
	once   sync.Once
}

func (c *slowConn) Read(b []byte) (int, error) {
	rate := c.pace.rate.Load()
	if rate <= 0 {
		if !c.lifted {
			c.lifted = true
			buffer(c.Conn, 1<<20)
		}
		return c.Conn.Read(b)
	}
	n, err := c.Conn.Read(b[:min(len(b), max(1, int(rate)/20))])
	timer := time.NewTimer(time.Duration(n) * time.Second / time.Duration(rate))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.closed:
	}
	return n, err
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
