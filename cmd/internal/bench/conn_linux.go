package bench

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one client's connection; it belongs to its thread.
type conn struct {
	client
	to     netip.AddrPort
	fd     int
	slot   int32
	state  connState
	next   uint64 // the count of the record that comes next; 0: any
	in     stream
	vector []byte // as JSON, for a resume
	opened bool   // has been subscribed once
	wire   *wire  // with TLS, as sealed
	sealed *tls.Conn
}

type connState uint8

const (
	stateConnecting connState = iota
	stateSecuring             // TLS's handshake
	stateHandshake            // what came of the answer is in conn.in.carry
	stateOpening              // subscribed not yet
	stateLive
)

var (
	errServerClosed = errors.New("the server closed the connection")
	errCut          = errors.New("cut from here")
)

// The handshake's key need not differ between connections: it only proves that the server speaks WebSocket.
// This one and its answer are those of RFC 6455, section 1.3.
const (
	handshakeKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	handshakeAnswer = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	// maxHandshake bounds the answer.
	maxHandshake = 8 << 10
	// connsPerSource is how many connections come from one loopback address: below what the ports that the
	// system gives out to connections allow for (28,232 by default).
	connsPerSource = 20000
)

// connect begins to connect.
func (t *thread) connect(c *conn) error {
	family := unix.AF_INET
	if !c.to.Addr().Is4() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if c.small {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	}
	var to unix.Sockaddr
	if family == unix.AF_INET {
		to = &unix.SockaddrInet4{Port: int(c.to.Port()), Addr: c.to.Addr().As4()}
		if c.to.Addr().IsLoopback() {
			// With the port chosen at connect, when the whole address is known, one may serve several servers.
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			source := int(c.slot) / connsPerSource
			if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, byte(1 + t.id), byte(source >> 8), byte(1 + source)}}); err != nil {
				_ = unix.Close(fd)
				return fmt.Errorf("bind: %w", err)
			}
		}
	} else {
		to = &unix.SockaddrInet6{Port: int(c.to.Port()), Addr: c.to.Addr().As16()}
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return fmt.Errorf("connect to %v: %w", c.to, err)
	}
	if err := unix.EpollCtl(t.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: c.slot}); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	c.fd, c.state = fd, stateConnecting
	c.in.carry = nil
	t.connecting++
	t.count.open++
	return nil
}

// connected begins the handshake, TLS's first, or finds that there is no connection.
func (t *thread) connected(c *conn) {
	code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err == nil {
		err = unix.EpollCtl(t.epoll, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: c.slot})
	}
	if err != nil {
		t.lost(c, fmt.Errorf("connect to %v: %w", c.to, err))
		return
	}
	if c.tls != nil {
		t.secure(c)
		return
	}
	t.request(c)
}

// request sends the WebSocket handshake.
func (t *thread) request(c *conn) {
	c.state = stateHandshake
	t.out = fmt.Appendf(t.out[:0], "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
		c.path, c.host, handshakeKey)
	if c.dialect == speakTidewire {
		t.out = append(t.out, "Sec-WebSocket-Protocol: tidewire.v1.json\r\n"...)
	}
	if c.token != "" {
		t.out = fmt.Appendf(t.out, "Authorization: Bearer %s\r\n", c.token)
	}
	t.send(c, append(t.out, '\r', '\n'))
}

// handshake takes the answer; it returns the frames that came with it.
func (t *thread) handshake(c *conn, b []byte) ([]byte, error) {
	c.in.carry = append(c.in.carry, b...)
	end := bytes.Index(c.in.carry, []byte("\r\n\r\n"))
	if end < 0 {
		if len(c.in.carry) > maxHandshake {
			return nil, errors.New("the answer to the handshake has no end")
		}
		return nil, nil
	}
	head, rest := c.in.carry[:end], c.in.carry[end+4:]
	c.in.carry = nil
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) || !bytes.Contains(head, []byte(handshakeAnswer)) {
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		return nil, fmt.Errorf("the handshake was answered with %q %q", line, rest[:min(len(rest), 200)])
	}
	c.state = stateOpening
	switch c.dialect {
	case speakFloor:
		t.opened(c)
	case speakCentrifuge:
		t.sendText(c, []byte(`{"id":1,"connect":{}}`+"\n"+`{"id":2,"subscribe":{"channel":"`+c.subject+`"}}`))
	case speakTidewire:
		op := struct {
			Op      string          `json:"op"`
			ID      int             `json:"id"`
			Subject string          `json:"subject"`
			Resume  json.RawMessage `json:"resume,omitempty"`
		}{"sub", 1, c.subject, nil}
		if c.opened && c.resumes {
			op.Resume = c.vector
		}
		text, err := json.Marshal(op)
		if err != nil {
			return nil, err
		}
		t.sendText(c, text)
	}
	return rest, nil
}

// opened counts a connection as subscribed.
func (t *thread) opened(c *conn) {
	c.state, c.opened = stateLive, true
	t.connecting--
	t.count.ready++
	t.count.opened++
	t.count.lastReady = time.Now().UnixNano()
}

func (t *thread) sendText(c *conn, text []byte) {
	t.out = appendClientFrame(t.out[:0], opText, text)
	t.send(c, t.out)
}

// send writes what a client says. It is little and its socket empty, so that one that does not take it at once
// is broken.
func (t *thread) send(c *conn, b []byte) {
	if c.sealed != nil {
		if _, err := c.sealed.Write(b); err != nil {
			t.lost(c, fmt.Errorf("write: %w", err))
		}
		return
	}
	if n, err := unix.Write(c.fd, b); err != nil || n < len(b) {
		t.lost(c, fmt.Errorf("write: %d of %d bytes: %w", n, len(b), errors.Join(err, errServerClosed)))
	}
}

// lost ends a connection that was being made, or made.
func (t *thread) lost(c *conn, why error) {
	if c.fd < 0 {
		return // ended already, with the frame before
	}
	if c.wire != nil {
		c.wire.close()
		c.wire, c.sealed = nil, nil
	}
	_ = unix.Close(c.fd) // which takes it out of epoll, too
	c.fd = -1
	c.in.carry = nil
	t.count.open--
	if c.state == stateLive {
		t.count.ready--
		t.count.closed++
	} else {
		t.connecting--
	}
	t.gone(c, c.state == stateLive, why)
}

// gone decides what becomes of a client without a connection. One that was never subscribed is an error, unless
// it may go elsewhere.
func (t *thread) gone(c *conn, live bool, why error) {
	switch {
	case t.roaming:
		if c.other.IsValid() {
			c.to = c.other
		}
		t.retry(c)
	case !live:
		t.fail(why)
	}
}

// frame handles one frame of the current connection.
func (t *thread) frame(op byte, p []byte) error {
	c := t.cur
	if c.fd < 0 {
		return errCut // by the frame before
	}
	switch op {
	case opText:
		if bytes.HasPrefix(p, msgPrefix) && c.dialect != speakCentrifuge {
			t.message(c, p)
			return nil
		}
		return t.text(c, p)
	case opPing:
		t.out = appendClientFrame(t.out[:0], opPong, p)
		t.send(c, t.out)
		return nil
	case opPong:
		return nil
	case opClose:
		code := uint16(1005)
		if len(p) >= 2 {
			code = binary.BigEndian.Uint16(p)
			p = p[2:]
		}
		return fmt.Errorf("%w: %d %s", errServerClosed, code, p)
	default:
		return fmt.Errorf("%w: opcode %d", errFrame, op)
	}
}

var (
	msgPrefix    = []byte(`{"op":"msg"`)
	posMark      = []byte(`"pos":[`)
	centPing     = []byte(`{}`)
	centPush     = []byte(`{"push":`)
	centRefused  = []byte(`"error":{`)
	centAnswered = []byte(`"subscribe":`)
)

// message counts the record in a msg frame.
func (t *thread) message(c *conn, p []byte) {
	at, n, _, found, err := nextStamp(p)
	if !found || err != nil {
		t.count.foreign++
	} else {
		t.record(c, at, n)
	}
	if c.resumes {
		if i := bytes.Index(p, posMark); i >= 0 {
			if end := bytes.IndexByte(p[i:], ']'); end >= 0 {
				c.vector = append(append(append(c.vector[:0], '['), p[i+len(posMark)-1:i+end+1]...), ']')
			}
		}
	}
}

// record counts a record made at a time with a count of its key.
func (t *thread) record(c *conn, at int64, n uint64) {
	t.count.messages++
	t.got[c.group]++
	t.latency[c.group].add(t.now - at)
	switch {
	case c.several:
		return
	case c.next == 0 || n == c.next:
	case n > c.next:
		t.count.missing += int64(n - c.next)
	default:
		t.count.repeated++
		return
	}
	c.next = n + 1
}

// text handles what is not a msg frame.
func (t *thread) text(c *conn, p []byte) error {
	if c.dialect == speakCentrifuge {
		return t.centrifuge(c, p)
	}
	var m struct {
		Op        string          `json:"op"`
		ID        int             `json:"id"`
		At        json.RawMessage `json:"at"`
		Recovered *bool           `json:"recovered"`
		Code      string          `json:"code"`
		Message   string          `json:"message"`
	}
	if err := json.Unmarshal(p, &m); err != nil {
		return fmt.Errorf("the server sent what is not JSON: %w", err)
	}
	switch m.Op {
	case "subbed":
		c.vector = append(c.vector[:0], m.At...)
		if m.Recovered != nil && *m.Recovered {
			t.count.resumed++
		} else if m.Recovered != nil {
			t.count.notResumed++
		}
		t.opened(c)
	case "gap":
		t.count.notResumed++
	case "error":
		return fmt.Errorf("sub %s was refused: %s: %s", c.subject, m.Code, m.Message)
	}
	return nil
}

// centrifuge handles a frame of that protocol: objects separated by newlines.
func (t *thread) centrifuge(c *conn, p []byte) error {
	if c.state == stateLive && bytes.HasPrefix(p, centPush) {
		for len(p) > 0 {
			at, n, rest, found, err := nextStamp(p)
			if err != nil {
				t.count.foreign++
			}
			if !found || err != nil {
				return nil
			}
			t.record(c, at, n)
			p = rest
		}
		return nil
	}
	for line := range bytes.SplitSeq(p, []byte("\n")) {
		switch {
		case bytes.Equal(line, centPing):
			t.sendText(c, centPing)
		case bytes.HasPrefix(line, centPush):
			if at, n, _, found, err := nextStamp(line); found && err == nil {
				t.record(c, at, n)
			}
		case bytes.Contains(line, centRefused):
			return fmt.Errorf("subscribe %s was refused: %s", c.subject, line)
		case c.state == stateOpening && bytes.Contains(line, centAnswered):
			t.opened(c)
		}
	}
	return nil
}
