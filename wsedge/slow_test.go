package wsedge

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// rawClient speaks WebSocket by hand, so that a test decides when its socket is read.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (e *edge) dialByHand(readBuffer int) *rawClient {
	e.t.Helper()
	conn := e.connectWith(readBuffer)
	e.t.Cleanup(func() { conn.Close() })
	c := &rawClient{e.t, conn, bufio.NewReader(conn)}
	c.write("GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			e.t.Fatal(err)
		}
		if line == "\r\n" {
			return c
		}
	}
}

func (c *rawClient) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// masked is a client's frame, with the mask 0 that changes nothing.
func masked(opcode byte, payload string) string {
	head := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n <= 0xffff:
		head = append(head, 0x80|126, byte(n>>8), byte(n))
	default:
		head = append(head, 0x80|127, 0, 0, 0, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return string(head) + "\x00\x00\x00\x00" + payload
}

func (c *rawClient) op(format string, args ...any) { c.write(masked(1, fmt.Sprintf(format, args...))) }

// frame reads one frame of the server.
func (c *rawClient) frame() (opcode byte, payload []byte, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(waitTime))
	head, err := c.r.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("no frame of a server begins with %x", head)
	}
	n := 2
	switch head[1] {
	case 126:
		n = 4
	case 127:
		n = 10
	}
	if head, err = c.r.Peek(n); err != nil {
		return 0, nil, err
	}
	opcode = head[0] & 15
	total := frameLen(head)
	if total > 64<<20 {
		return 0, nil, fmt.Errorf("a frame of %d bytes", total)
	}
	all := make([]byte, total)
	if _, err = io.ReadFull(c.r, all); err != nil {
		return 0, nil, err
	}
	return opcode, all[n:], nil
}

func (c *rawClient) message() (m message, err error) {
	for {
		opcode, payload, err := c.frame()
		if err != nil {
			return m, err
		}
		switch opcode {
		case 8:
			return m, fmt.Errorf("close %d", int(payload[0])<<8|int(payload[1]))
		case 1:
			m.raw = string(payload)
			return m, json.Unmarshal(payload, &m)
		}
	}
}

// A client stops reading while records come in. Its socket fills, its cursor stays, the others get every
// record at once; when its place leaves the cache it is told so with bye and 4008, and comes back with
// its own vector, for which Kafka still has everything.
func TestSlowReader(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 1 << 20, SegmentBytes: 32 << 10}, func(c *Config) {
		c.SendBuffer = 4 << 10
		c.CloseTimeout = waitTime
	})
	slow := e.dialByHand(4 << 10)
	slow.op(`{"op":"sub","subject":"/one/*"}`)
	quick := e.dial()
	quick.send(`{"op":"sub","subject":"/one/*"}`)
	quick.next()
	quick.next()
	until(t, "both to be subscribed", func() bool { return e.srv.Stats().Subscriptions == 2 })

	big := []byte(`"` + strings.Repeat("x", 4000) + `"`)
	n := 0
	for e.srv.Stats().SlowCloses == 0 {
		e.node.put("one", 0, []byte("k"), big)
		n++
		if m := quick.next(); m.Pos[2] != uint64(n) {
			t.Fatalf("the quick one got %v after %d", m.Pos, n)
		}
		if n == 5000 { // it has been left behind long ago: all that is missing is that the sweep looks
			until(t, "the slow one to be closed", func() bool { return e.srv.Stats().SlowCloses > 0 })
		}
		if n%64 == 0 {
			time.Sleep(5 * time.Millisecond) // time for the sweep
		}
	}
	last, bye := uint64(0), false
	for {
		m, err := slow.message()
		if err != nil {
			if err.Error() != "close 4008" || !bye {
				t.Fatalf("ended with %v, bye: %v", err, bye)
			}
			break
		}
		switch m.Op {
		case "msg":
			if m.Pos[2] != last+1 {
				t.Fatalf("%d after %d", m.Pos[2], last)
			}
			last = m.Pos[2]
		case "bye":
			bye = m.Reason == "slow" && m.RetryMS > 0
		}
	}
	if last == 0 || last == uint64(n) {
		t.Fatalf("the slow one had %d of %d", last, n)
	}
	slow.write(masked(8, "\x0f\xa8"))
	until(t, "the slow one to be gone", func() bool { return e.srv.Stats().Connections == 1 })

	again := e.dial()
	again.send(`{"op":"sub","subject":"/one/*","resume":[[0,1,%d]]}`, last)
	if m := again.next(); m.Recovered == nil || !*m.Recovered {
		t.Fatal(m.raw)
	}
	for last < uint64(n) {
		if m := again.next(); m.Op == "msg" {
			if last++; m.Pos[2] != last {
				t.Fatalf("%s after %d", m.raw[:60], last-1)
			}
		}
	}
}

// A client that never reads again is cut after the time that a close may take.
func TestDeadReaderIsCut(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 512 << 10, SegmentBytes: 16 << 10}, func(c *Config) {
		c.SendBuffer = 4 << 10
		c.CloseTimeout = 100 * time.Millisecond
	})
	dead := e.dialByHand(4 << 10)
	dead.op(`{"op":"sub","subject":"/one/*"}`)
	until(t, "the subscription", func() bool { return e.srv.Stats().Subscriptions == 1 })
	big := []byte(`"` + strings.Repeat("x", 4000) + `"`)
	until(t, "the dead one to be cut", func() bool {
		e.node.put("one", 0, []byte("k"), big)
		return e.srv.Stats().Connections == 0
	})
	if e.srv.Stats().SlowCloses != 1 {
		t.Fatal("cut for another reason")
	}
}

// Tiny socket buffers cut frames everywhere; records of all sizes, over several subscriptions, with pings
// of both kinds in between. Every frame arrives whole, and each partition in order.
func TestPartialWritesTearNoFrame(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 20}, func(c *Config) { c.SendBuffer = 2 << 10 })
	c := e.dialByHand(0)
	c.op(`{"op":"sub","subject":"/prices/*"}` + "\n" + `{"op":"sub","subject":"/prices/a"}` + "\n" + `{"op":"sub","subject":"/one/b/*"}`)
	until(t, "the subscriptions", func() bool { return e.srv.Stats().Subscriptions == 3 })
	const n = 1500
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range n {
			v := append([]byte{'"'}, bytes.Repeat([]byte{'x'}, i*7919%3000)...)
			e.node.put("prices", bridge.PartitionFor([]byte("a"), 4), []byte("a"), append(v, '"'))
			e.node.put("one", 0, []byte("b/c"), append(v, '"'))
		}
	})
	writers.Go(func() {
		for i := range 200 {
			c.op(`{"op":"ping","id":%d}`, i+1)
			c.write(masked(9, "hello"))
		}
	})
	got := map[string]int{}
	last := map[string]uint64{}
	pongs, wsPongs := 0, 0
	for pongs < 200 || wsPongs < 200 || got["/prices/a"] < 2*n || got["/one/b/c"] < n {
		opcode, payload, err := c.frame()
		if err != nil {
			t.Fatalf("%v after %v, %d, %d", err, got, pongs, wsPongs)
		}
		if opcode == 10 {
			if string(payload) != "hello" {
				t.Fatalf("pong %q", payload)
			}
			wsPongs++
			continue
		}
		var m message
		if err := json.Unmarshal(payload, &m); err != nil {
			t.Fatalf("%v in %.80q", err, payload)
		}
		switch m.Op {
		case "pong":
			if pongs++; m.ID != uint64(pongs) {
				t.Fatalf("%s after %d", m.raw, pongs)
			}
		case "msg":
			got[m.Subject]++
			if m.Subject == "/one/b/c" && m.Pos[2] != last[m.Subject]+1 {
				t.Fatalf("%s: %d after %d", m.Subject, m.Pos[2], last[m.Subject])
			}
			last[m.Subject] = max(last[m.Subject], m.Pos[2])
		}
	}
	writers.Wait()
	if last["/prices/a"] != n || last["/one/b/c"] != n || got["/prices/a"] != 2*n {
		t.Fatal(got, last)
	}
}
