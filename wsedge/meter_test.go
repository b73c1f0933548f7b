package wsedge

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/cache"
)

// However the bytes are cut, each frame is counted once, whatever its length and kind.
func TestMeterCountsFrames(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var stream []byte
		frames := 0
		for range 1 + rng.IntN(20) {
			n := []int{0, 1, 125, 126, 300, 65535, 65536, 70000}[rng.IntN(8)]
			head := []byte{byte(rng.Uint32()), 0}
			switch {
			case n < 126:
				head[1] = byte(n)
			case n < 65536:
				head[1] = 126
				head = binary.BigEndian.AppendUint16(head, uint16(n))
			default:
				head[1] = 127
				head = binary.BigEndian.AppendUint64(head, uint64(n))
			}
			if rng.IntN(2) == 0 {
				head[1] |= 0x80
				head = append(head, 1, 2, 3, 4)
			}
			stream = append(append(stream, head...), make([]byte, n)...)
			frames++
		}
		var m meter
		got := 0
		for len(stream) > 0 {
			k := min(len(stream), 1+rng.IntN(1000))
			got += m.count(stream[:k])
			stream = stream[k:]
		}
		if got != frames {
			t.Fatalf("%d frames were counted of %d", got, frames)
		}
	}
	var m meter
	if n := m.count([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 9, 9}); n != 1 || m.left < 1<<62 {
		t.Errorf("a frame of all bytes there are: %d frames, %d left", n, m.left)
	}
}

// Who sends too many frames, of whatever kind, or too many bytes, is read no faster than it may be, and loses nothing by it;
// the neighbour does not notice.
func TestFloodsAreSlowedDown(t *testing.T) {
	for name, c := range map[string]struct {
		limit  string
		frames int // a second
		bytes  int
		send   string
		times  int
	}{
		"ops":       {limitFrames, 50, -1, masked(1, `{"op":"ping"}`), 150},
		"pings":     {limitFrames, 50, -1, masked(9, "x"), 150},
		"pongs":     {limitFrames, 50, -1, masked(10, ""), 150},
		"fragments": {limitFrames, 50, -1, "\x00\x80\x00\x00\x00\x00", 149},
		"bytes":     {limitBytes, -1, 50_000, masked(1, `{"op":"ping","x":"`+strings.Repeat("x", 982)+`"}`), 150},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, cache.Config{}, func(cfg *Config) { cfg.Limits.Frames, cfg.Limits.Bytes = c.frames, c.bytes })
			neighbour := e.dial()
			flood := e.dialByHand(0)
			first := ""
			if name == "fragments" {
				first = "\x01\x80\x00\x00\x00\x00" // a text frame that goes on
			}
			begun := time.Now()
			var floods sync.WaitGroup
			more := func(first string) {
				floods.Wait()
				floods.Go(func() { _, _ = flood.conn.Write([]byte(first + strings.Repeat(c.send, c.times))) })
			}
			more(first)
			last := begun
			until(t, "the flood to be slowed down", func() bool {
				if time.Since(last) > 2*time.Second { // a busy machine has read it no faster than it may
					more("")
					last = time.Now()
				}
				return e.metric("tidewire_limited_total", c.limit) > 0
			})
			neighbour.send(`{"op":"ping"}`)
			neighbour.expect(`{"op":"pong"}`)
			// 150 of 50 a second, 100 at once: a second. The end of it is known by the answer to one op more.
			end := masked(1, `{"op":"ping","id":77}`)
			if name == "fragments" {
				end = "\x80\x80\x00\x00\x00\x00" + end
			}
			floods.Wait()
			until(t, "the rest to be written", func() bool { _, err := flood.conn.Write([]byte(end)); return err == nil })
			for {
				m, err := flood.message()
				if err != nil {
					t.Fatal(err)
				}
				if m.ID == 77 {
					break
				}
			}
			if took := time.Since(begun); took < 900*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A message that never becomes whole ends its session, and so does one of fragments without end.
func TestSlowMessageIsCut(t *testing.T) {
	for name, more := range map[string]string{"a stalled frame": "", "fragments": "\x00\x81\x00\x00\x00\x00x"} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t, cache.Config{}, func(c *Config) {
				c.Limits.FrameTimeout, c.Limits.Bytes, c.Heartbeat = 300*time.Millisecond, -1, 5*time.Second
				c.CloseTimeout = waitTime
			})
			c := e.dialByHand(0)
			if more == "" {
				c.write("\x81\xfe\x10\x00\x00\x00\x00\x00abc")
			} else {
				c.write("\x01\x81\x00\x00\x00\x00x")
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for more != "" {
					if _, err := c.conn.Write([]byte(more)); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			bye := ""
			for {
				m, err := c.message()
				if err != nil {
					if bye != "frame_too_slow" || fmt.Sprint(err) != "close 4009" {
						t.Errorf("bye %q, then %v", bye, err)
					}
					break
				}
				if m.Op == "bye" {
					bye = m.Reason
				}
			}
			if n := e.metric("tidewire_limited_total", limitFrameTime); n != 1 {
				t.Errorf("counted %v times", n)
			}
			c.conn.Close()
			until(t, "the session to be gone", func() bool { return e.srv.Stats().Connections == 0 })
			<-done
		})
	}
}

// A compressed message costs its session what it unpacks to, and one that unpacks to more than a frame may be is not unpacked.
func TestBombsCostWhatTheyHold(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { c.Compression, c.MaxFrameBytes, c.Limits.Bytes = true, 1<<20, 200<<10 })
	dial := func() *client {
		c := e.dialRaw(&websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover})
		c.next() // welcome
		return c
	}
	c := dial()
	c.send(`{"op":"ping","id":1,"x":"%s"}`, strings.Repeat("x", 900<<10)) // a kilobyte on the wire
	c.expect(`{"op":"pong","id":1}`)
	if e.metric("tidewire_limited_total", limitBytes) == 0 {
		t.Error("it cost what it was compressed to")
	}
	c = dial()
	c.send(`{"op":"ping","id":1,"x":"%s"}`, strings.Repeat("x", 40<<20))
	if code, m := c.closes(); code != 1009 || m.Reason != "frame_too_big" {
		t.Errorf("closed with %d after %s", code, m.raw)
	}
}

// Frames of many ops, and tokens, which cost more than other ops, are no way around the limit on frames.
func TestOpsAreMetered(t *testing.T) {
	for name, c := range map[string]struct {
		op     string
		frames int // of ops of these in each
		each   int
		answer string
	}{
		"many ops in a frame": {`{"op":"ping"}`, 15, 10 * opsPerFrame, `{"op":"pong"}`},
		"tokens":              {`{"op":"auth","token":"t"}`, 150 / authFrames, 1, `{"op":"authed","expires":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			e, a := newAuthEdge(t, cache.Config{}, func(cfg *Config) { cfg.Limits.Frames = 50 })
			a.give(t, "t", "alice", 0)
			flood := e.dialByHand(0)
			if m, err := flood.message(); err != nil || m.Op != "welcome" {
				t.Fatal(err)
			}
			begun := time.Now()
			limited := func() bool { return e.metric("tidewire_limited_total", limitFrames) > 0 }
			for once := true; once || !limited() && time.Since(begun) < waitTime; once = false { // a busy machine reads it no faster than it may
				go func() {
					_, _ = flood.conn.Write([]byte(strings.Repeat(masked(1, strings.Repeat(c.op+"\n", c.each)), c.frames)))
				}()
				for range c.frames * c.each {
					if m, err := flood.message(); err != nil || m.raw != c.answer {
						t.Fatal(err, m.raw)
					}
				}
			}
			// 150 of 50 a second, 100 at once: a second.
			if took := time.Since(begun); took < 900*time.Millisecond || !limited() {
				t.Errorf("it took %v", took)
			}
		})
	}
}
