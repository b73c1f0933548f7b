package replication

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// A build of before greetings reads the old hello, and what comes back on the connection without looking at it.
func TestOlderBuildUnderstandsTheHello(t *testing.T) {
	c := newCluster(t, 1, 1, inMemory)
	conn, err := net.Dial("tcp", c.peers[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("TDWR\x01\x03\x00\x00")); err != nil {
		t.Fatal(err)
	}
	var size [1]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, int(size[0])+9)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatal(err)
	}
	if id := string(b[:size[0]]); id != "n0" || binary.BigEndian.Uint64(b[size[0]:]) != c.nodes[0].incarnation {
		t.Errorf("node %q, hello %x", id, b)
	}
	for range 3 { // its pings are answered
		if _, err := conn.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
	}
	rest := make([]byte, 64)
	for zeros := 0; zeros < 3; {
		n, err := conn.Read(rest)
		if err != nil {
			t.Fatal(err)
		}
		zeros += bytes.Count(rest[len(bytes.TrimRight(rest[:n], "\x00")):n], []byte{0})
	}
}

// What an older build says is understood, and it is spoken to as it expects.
func TestOlderBuildIsSpokenToAsItExpects(t *testing.T) {
	p := newFakePeer(t) // says nothing of versions
	w, _ := watch(t, p, zerolog.Nop())
	eventually(t, "it is alive", func() bool { _, ok := w.alive(); return ok })
	if pre, err := w.route.preface(kindRaft, 3, "b"); err != nil || string(pre.encode()) != "TDWR\x01\x01\x00\x03" {
		t.Errorf("Raft to it begins with %q, %v", pre.encode(), err)
	}
	p.set(func() { p.told = newGreeting(Config{}) })
	p.cut()
	eventually(t, "it was met again", func() bool { return w.route.greeting().Wire == wireVersion })
	if pre, err := w.route.preface(kindRaft, 3, "b"); err != nil || string(pre.encode()) != "TDWR\x01\x81\x00\x03\x01b" {
		t.Errorf("Raft to a newer one begins with %q, %v", pre.encode(), err)
	}
}

// watch runs a watcher of a fake peer.
func watch(t *testing.T, p *fakePeer, log zerolog.Logger) (w *watcher, deaths chan death) {
	deaths = make(chan death, 10)
	w = &watcher{
		id: "b", route: newRoute(p.ln.Addr().String()), dialer: dialer{conns: newConnSet()}, log: log,
		cfg: Config{Version: "v9.9.9", Groups: 4, PingEvery: 10 * time.Millisecond, Silence: 2 * time.Second},
		met: func(hello) {}, born: func() {}, died: func(d death) { deaths <- d },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w, deaths
}

// A node that does not go together with this one is named with both versions, once, and counts as not there.
func TestIncompatibleNodeIsLeftOut(t *testing.T) {
	future := newGreeting(Config{Version: "v12.0.0", Groups: 4})
	future.Wire, future.OldestWire = 9, 8
	var log bytes.Buffer
	p := newFakePeer(t)
	p.set(func() { p.told = future })
	lines := make(chan string, 100)
	w, deaths := watch(t, p, zerolog.New(writerFunc(func(b []byte) { lines <- string(b) })))
	log.WriteString(<-lines)
	for _, part := range []string{`"level":"error"`, "wire version 3 (down to 1) here, 9 (down to 8) there", "v9.9.9", "v12.0.0"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %s: %s", part, log.String())
		}
	}
	if _, err := w.route.preface(kindRaft, 0, "b"); !errors.Is(err, ErrIncompatible) {
		t.Errorf("Raft speaks to it: %v", err)
	}
	if _, ok := w.alive(); ok {
		t.Error("it counts as alive")
	}
	// A build that goes together is let in, and lost again when it is exchanged for one that does not.
	p.set(func() { p.told = newGreeting(Config{Groups: 4}) })
	eventually(t, "it is alive", func() bool { _, ok := w.alive(); return ok })
	p.set(func() { p.told.Entry++; p.inc++ })
	began := time.Now()
	p.cut()
	if d := <-deaths; d != deathClosed && time.Since(began) < handshakeTimeout { // else the answer came too late
		t.Errorf("lost as %v", d)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestWhichBuildsGoTogether(t *testing.T) {
	own := newGreeting(Config{Version: "own", Groups: 8})
	for name, c := range map[string]struct {
		change func(*greeting)
		ok     bool
	}{
		"itself":                    {func(*greeting) {}, true},
		"before versions were told": {func(g *greeting) { *g = oldGreeting() }, true},
		"newer, knows ours":         {func(g *greeting) { g.Wire, g.OldestWire = 5, wireVersion }, true},
		"newer, has forgotten ours": {func(g *greeting) { g.Wire, g.OldestWire = 5, wireVersion+1 }, false},
		"older than we know":        {func(g *greeting) { g.Wire = oldestWire - 1 }, false},
		"other entries":             {func(g *greeting) { g.Entry++ }, false},
		"other snapshots":           {func(g *greeting) { g.Snapshot++ }, false},
		"other groups":              {func(g *greeting) { g.Groups++ }, false},
	} {
		other := newGreeting(Config{Version: "other", Groups: 8})
		c.change(&other)
		if err := own.goesWith(other); (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "own") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a node tells of itself is read up to a bound, and rubbish is no greeting.
func TestGreetingIsBounded(t *testing.T) {
	head := append(binary.BigEndian.AppendUint64([]byte{1, 'b'}, 7), helloGreeting)
	for name, rest := range map[string][]byte{
		"too long":  append(binary.BigEndian.AppendUint16(nil, maxHello+1), append([]byte("{}"), bytes.Repeat([]byte(" "), maxHello-1)...)...),
		"rubbish":   append(binary.BigEndian.AppendUint16(nil, 3), "abc"...),
		"cut short": append(binary.BigEndian.AppendUint16(nil, 9), "{}"...),
	} {
		if _, _, err := readHello(bytes.NewReader(append(bytes.Clone(head), rest...))); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	many := Config{}
	for range 1000 {
		many.Peers = append(many.Peers, Peer{ID: bridge.NodeID(strings.Repeat("n", maxNodeID))})
	}
	if b := newGreeting(many).encode(); len(b) > maxHello {
		t.Errorf("%d bytes are told", len(b))
	}
}

// A list that is out of date does not hide a node for ever, and a silence alone does not discredit it.
func TestRoute(t *testing.T) {
	r := newRoute("listed:1", "configured:2", "listed:1", "")
	for _, step := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "listed:1"}, {errOther, "configured:2"}, {io.EOF, "listed:1"}, {io.EOF, "configured:2"},
	} {
		if r.failed(step.err); r.addr() != step.want {
			t.Errorf("after %v at %s", step.err, r.addr())
		}
	}
	if r.set("listed:3", "configured:2"); r.addr() != "configured:2" {
		t.Errorf("it left %s, where the node is", r.addr())
	}
	if r.set("listed:3", "configured:4"); r.addr() != "listed:3" {
		t.Errorf("at %s", r.addr())
	}
	r.failed(context.DeadlineExceeded)
	r.silent = time.Now().Add(-routeSilence)
	if r.failed(context.DeadlineExceeded); r.addr() != "configured:4" {
		t.Errorf("after a long silence at %s", r.addr())
	}
}
