package wsedge

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/klauspost/compress/flate"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

func deflating(c *Config) { c.Compression = true }

var offer = &websocket.DialOptions{CompressionMode: websocket.CompressionNoContextTakeover}

func (e *edge) dialDeflate() *client {
	e.t.Helper()
	c := e.dialRaw(offer)
	if m := c.next(); m.Op != "welcome" {
		e.t.Fatalf("first came %s", m.raw)
	}
	return c
}

// Clients that ask for compression and clients that do not get the same messages, and each record is compressed once
// for all who asked.
func TestCompression(t *testing.T) {
	e := newEdge(t, cache.Config{}, deflating)
	var clients []*client
	for _, dial := range []func() *client{e.dialDeflate, e.dial, e.dialDeflate} {
		for _, subject := range []string{"/one/*", "/one/k", "/one/k/*"} {
			c := dial()
			c.send(`{"op":"sub","subject":%q}`, subject)
			if m := c.next(); m.Op != "subbed" {
				t.Fatal(m.raw)
			}
			if m := c.next(); m.Op != "live" {
				t.Fatal(m.raw)
			}
			clients = append(clients, c)
		}
	}
	noise := make([]byte, 2000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	values := []string{
		`{"n":1}`,
		`{"bid":` + strings.Repeat("1", 300) + `}`,
		`"` + hex.EncodeToString(noise) + `"`,
		string(noise), // as base64 it is shorter when compressed, if not by much
		`[` + strings.TrimSuffix(strings.Repeat(`{"symbol":"EURUSD","bid":1.0845,"ask":1.0847},`, 3000), ",") + `]`,
	}
	worth := 0
	for _, key := range []string{"k", "k/1"} {
		for _, v := range values {
			e.node.put("one", 0, []byte(key), []byte(v))
			if len(v) > 250 {
				worth++
			}
		}
	}
	got := map[string][]string{}
	for i, c := range clients {
		subject, n := []string{"/one/*", "/one/k", "/one/k/*"}[i%3], []int{10, 5, 5}[i%3]
		var all []string
		for range n {
			all = append(all, c.next().raw)
		}
		if want := got[subject]; want == nil {
			got[subject] = all
		} else if strings.Join(all, "\n") != strings.Join(want, "\n") {
			t.Errorf("client %d of %s got something else:\n%.300q\n%.300q", i, subject, all, want)
		}
	}
	d := e.srv.deflated
	if n := d.frames.Load(); n != int64(worth) {
		t.Errorf("%d compressions of %d records worth it", n, worth)
	}
	if in, out := d.before.Load(), d.after.Load(); out*4 > in {
		t.Errorf("%d bytes became %d", in, out)
	}
}

// What a client with a full socket gets at last is whole and in order: frames are cut anywhere by a full socket.
func TestCompressionForASlowReader(t *testing.T) {
	e := newEdge(t, cache.Config{Budget: 64 << 20}, func(c *Config) { deflating(c); c.SendBuffer = 4 << 10 })
	c := e.dialDeflate()
	c.send(`{"op":"sub","subject":"/one/*"}`)
	for c.next().Op != "live" {
	}
	const records = 3000
	r := rand.New(rand.NewPCG(3, 4))
	values := make([]string, records)
	for i := range values {
		values[i] = fmt.Sprintf(`"%d %s"`, i, strings.Repeat(fmt.Sprintf("%x", r.Uint64()), 1+r.IntN(300)))
		e.node.put("one", 0, []byte("k"), []byte(values[i]))
	}
	until(t, "the socket to be full", func() bool { return e.srv.Stats().Blocked > 0 })
	for i, want := range values {
		if m := c.next(); string(m.Data) != want {
			t.Fatalf("record %d: %.100s, want %.100s", i, m.raw, want)
		}
	}
}

// Without the setting an offer is not taken.
func TestCompressionIsOffByDefault(t *testing.T) {
	e := newEdge(t, cache.Config{}, nil)
	c := e.dialDeflate()
	c.send(`{"op":"sub","subject":"/one/*"}`)
	for c.next().Op != "live" {
	}
	e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 10000)+`"`))
	if m := c.next(); m.Op != "msg" || e.srv.deflated.frames.Load() != 0 {
		t.Error(m.raw)
	}
}

// A small frame that would become a large one is over the limit like a large one, and no more of it is unpacked.
func TestCompressionBomb(t *testing.T) {
	e := newEdge(t, cache.Config{}, func(c *Config) { deflating(c); c.MaxFrameBytes = 64 << 10 })
	c := e.dialDeflate()
	go c.send(`{"op":"ping","id":1,"pad":"%s"}`, strings.Repeat("0", 32<<20))
	if code, _ := c.closes(); code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %d", code)
	}
	c = e.dialDeflate() // a long op below the limit is read
	c.send(`{"op":"ping","id":1,"pad":"%s"}`, strings.Repeat("0", 60<<10))
	if m := c.next(); m.Op != "pong" {
		t.Error(m.raw)
	}
}

// The store of compressed frames keeps to its budget, and whoever asks at the same time gets one compression.
func TestDeflatedStore(t *testing.T) {
	const budget = 64 << 10
	d := newDeflated(budget)
	plain := func(i int) []byte {
		b, at := beginFrame(nil)
		return endFrame(append(b, strings.Repeat(fmt.Sprintf("record %d ", i), 50)...), at)
	}
	var wg sync.WaitGroup
	const records = 2000
	for range 4 {
		wg.Go(func() {
			for i := range records {
				p := plain(i)
				got := d.frame(deflatedKey{pos: bridge.Position{Epoch: 1, Seqno: bridge.Seqno(i)}}, p)
				if string(inflate(t, got)) != string(payloadOf(p)) {
					t.Errorf("record %d is another", i)
				}
			}
		})
	}
	wg.Wait()
	held := 0
	for i := range d.parts {
		p := &d.parts[i]
		n, listed := 0, 0
		for f := p.oldest; f != nil; f = f.next {
			n += f.size()
			listed++
		}
		if n != p.bytes || listed != len(p.kept) {
			t.Errorf("part %d: %d bytes counted, %d held; %d frames listed, %d kept", i, p.bytes, n, listed, len(p.kept))
		}
		held += n
	}
	if held > budget || held < budget/2 {
		t.Errorf("%d bytes are held of %d", held, budget)
	}
	// Two frames that nobody asked for in between are asked for again: the newest are still there.
	before := d.frames.Load()
	d.frame(deflatedKey{pos: bridge.Position{Epoch: 1, Seqno: records - 1}}, plain(records-1))
	if d.frames.Load() != before {
		t.Error("the newest was compressed again")
	}
}

func inflate(t *testing.T, frame []byte) []byte {
	if frame[0]&rsv1 == 0 {
		return payloadOf(frame)
	}
	r := flate.NewReader(io.MultiReader(bytes.NewReader(payloadOf(frame)), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return b
}

func BenchmarkDeflateFrame(b *testing.B) {
	frame, at := beginFrame(nil)
	frame = append(frame, `{"op":"msg","subject":"/prices/EURUSD","pos":[3,7,123456],"prev":[7,123450],"ts":1700000000000,"data":{"symbol":"EURUSD","bid":1.08451,"ask":1.08473,"volume":1250000,"venue":"LDN","time":"2026-11-25T20:31:08.123Z","levels":[[1.08450,500000],[1.08449,750000],[1.08448,1000000],[1.08447,1250000]],"asks":[[1.08474,500000],[1.08475,750000],[1.08476,1000000]],"flags":["firm","streaming"],"sequence":981234567}}`...)
	frame = endFrame(frame, at)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		out = deflateFrame(frame)
	}
	b.ReportMetric(float64(len(out))/float64(len(frame)), "ratio")
}
