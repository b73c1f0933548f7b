package replication

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/replication/peertls"
	"github.com/tidewire/tidewire/replication/peertls/peertlstest"
)

// The keys of two secrets, made once: that is meant to take its time.
var (
	ourSecret   = sync.OnceValue(func() peertls.Security { return mustSecret("0123456789abcdef0123456789abcdef") })
	otherSecret = sync.OnceValue(func() peertls.Security { return mustSecret("0123456789abcdef0123456789abcdee") })
)

func mustSecret(s string) peertls.Security {
	out, err := peertls.FromSecret(secret.Of(s), zerolog.Nop())
	if err != nil {
		panic(err)
	}
	return out
}

func withSecret(_ int, c *Config) { c.Security = ourSecret() }

// withCertificates gives each node a certificate of the CA, in a folder that is told.
func withCertificates(t *testing.T, ca *peertlstest.CA, files *[3]peertls.Files) option {
	return func(i int, c *Config) {
		files[i] = ca.Files(t.TempDir(), []string{string(c.NodeID)})
		var err error
		if c.Security, err = peertls.FromFiles(files[i], c.Log); err != nil {
			t.Fatal(err)
		}
	}
}

// lines is a log that is looked at while it is written.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

func (l *lines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// Three nodes that prove themselves agree, and one that dies is followed by another at once, without a timer.
func TestProvenNodesAgree(t *testing.T) {
	var files [3]peertls.Files
	for name, protected := range map[string]option{"secret": withSecret, "CA": withCertificates(t, peertlstest.NewCA(t), &files)} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, 1, inMemory, calm, protected)
			c.waitConnected()
			c.elect(0, 0)
			c.propose(0, "before")
			c.waitSame(0, 1)
			c.kill(0)
			c.propose(0, "after")
			c.waitSame(0, 2)
			for _, n := range c.nodes[1:] {
				if strings.Contains(n.Protection(), "INSECURE") || !strings.Contains(n.Protection(), "TLS") {
					t.Errorf("protected by %q", n.Protection())
				}
			}
		})
	}
}

// A node with another secret, or a certificate of another CA, cannot take part. Both sides say why, and not again
// and again.
func TestNodeOfAnotherClusterStaysOut(t *testing.T) {
	var files [3]peertls.Files
	ca := peertlstest.NewCA(t)
	foreign := peertlstest.NewCA(t).Files(t.TempDir(), []string{"n2"})
	foreignSecurity, err := peertls.FromFiles(foreign, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		protected option
		other     peertls.Security
		why       string
	}{
		"secret": {withSecret, otherSecret(), "TIDEWIRE_CLUSTER_SECRET"},
		"CA":     {withCertificates(t, ca, &files), foreignSecurity, "unknown authority"},
		"none":   {withSecret, nil, "without TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			var logs [3]lines
			c := newCluster(t, 3, 1, inMemory, tc.protected, func(i int, c *Config) { c.Log = zerolog.New(&logs[i]).Level(zerolog.InfoLevel) })
			c.propose(0, "with it")
			c.waitSame(0, 1)
			c.stop(2, time.Second)
			c.configs[2].Security = tc.other
			c.start(2)
			before := []int64{c.nodes[0].Strangers(), c.nodes[1].Strangers()}
			for i := range 2 {
				eventually(t, "it tries again and again", func() bool { return c.nodes[i].Strangers() > before[i]+5 })
			}
			eventually(t, "the others go on", func() bool { l := c.leader(0); return l == 0 || l == 1 })
			c.propose(0, "without it")
			for i := range 2 {
				eventually(t, "they say why", func() bool { return logs[i].count(tc.why) > 0 })
				if n := logs[i].count("connection to the cluster port refused"); n != 1 {
					t.Errorf("node %d said %d times that it refused something", i, n)
				}
				if n := logs[i].count("cannot work with a node"); n > 1 {
					t.Errorf("node %d said %d times that it cannot work with a node", i, n)
				}
				if c.nodes[i].PeerAlive("n2") {
					t.Errorf("for node %d it is alive", i)
				}
			}
			if tc.other != nil {
				eventually(t, "it says so too", func() bool { return logs[2].count("cannot work with a node") > 0 })
			}
			if n := len(c.toys[2].applied(0)); n > 0 {
				t.Errorf("it got %d entries", n)
			}
			if c.nodes[2].PeerAlive("n0") || c.nodes[2].PeerAlive("n1") {
				t.Error("for it the others are alive")
			}
		})
	}
}

// Nodes that are far from each other meet: with a proof it takes more round trips until one has answered.
func TestProvenNodesMeetOverALongWay(t *testing.T) {
	const delay = 110 * time.Millisecond // each way: three round trips are longer than handshakeTimeout
	c := newCluster(t, 2, 1, inMemory, withSecret, func(i int, c *Config) {
		for j := range c.Peers {
			if j != i {
				c.Peers[j].Addr = newTap(t, c.Peers[j].Addr, delay).Addr().String()
			}
		}
	})
	eventually(t, "they see each other", func() bool { return c.nodes[0].PeerAlive("n1") && c.nodes[1].PeerAlive("n0") })
}

// tap passes connections on to a node, later if it is a long way, and keeps what was said to it.
type tap struct {
	net.Listener
	to    string
	delay time.Duration
	wg    sync.WaitGroup

	mu    sync.Mutex
	said  [][]byte
	conns []net.Conn
}

func newTap(t *testing.T, to string, delay time.Duration) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{Listener: ln, to: to, delay: delay}
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, d)
			at := len(p.said)
			p.said = append(p.said, nil)
			p.mu.Unlock()
			p.pass(d, io.TeeReader(c, taps{p, at}))
			p.pass(c, d)
		}
	})
	t.Cleanup(p.close)
	return p
}

// pass copies until either side ends, then closes to. What has been said arrives, in its order, after the delay.
func (p *tap) pass(to net.Conn, from io.Reader) {
	type chunk struct {
		at   time.Time
		data []byte
	}
	chunks := make(chan chunk, 1000)
	p.wg.Go(func() {
		defer close(chunks)
		for {
			b := make([]byte, 4096)
			n, err := from.Read(b)
			if n > 0 {
				chunks <- chunk{time.Now().Add(p.delay), b[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	p.wg.Go(func() {
		for c := range chunks {
			time.Sleep(time.Until(c.at))
			_, _ = to.Write(c.data)
		}
		_ = to.Close()
	})
}

type taps struct {
	p  *tap
	at int
}

func (w taps) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.said[w.at] = append(w.p.said[w.at], b...)
	return len(b), nil
}

func (p *tap) recorded() (out [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.said {
		out = append(out, slices.Clone(b))
	}
	return out
}

func (p *tap) close() {
	_ = p.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// answer says something to a node, and returns what comes back until the node closes the connection.
func answer(t *testing.T, addr string, b []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = c.Write(b)
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(io.LimitReader(c, 1<<20))
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Error("the connection was not closed")
	}
	return got
}

// onlyAlerts says whether all that came is alerts of TLS.
func onlyAlerts(b []byte) bool {
	for len(b) > 0 {
		if b[0] != 21 || len(b) < 5 || len(b) < 5+int(b[4]) {
			return false
		}
		b = b[5+int(b[4]):]
	}
	return true
}

// Whoever cannot prove himself changes nothing on the port, and gets nothing: not with the messages of nodes, not
// with rubbish, and not with what a node said before him.
func TestStrangersGetNothingAndChangeNothing(t *testing.T) {
	var taps []*tap
	c := newCluster(t, 3, 1, inMemory, withSecret, func(i int, c *Config) {
		// Everybody goes to the others through a tap.
		for j := range c.Peers {
			if j != i {
				p := newTap(t, c.Peers[j].Addr, 0)
				c.Peers[j].Addr = p.Addr().String()
				taps = append(taps, p)
			}
		}
	})
	c.propose(0, "before")
	c.waitSame(0, 1)
	c.waitConnected()
	messages := [][]byte{
		nil, {0}, []byte("GET / HTTP/1.1\r\n\r\n"),
		preface{kind: kindLiveness}.encode(), preface{kind: kindGRPC}.encode(), preface{kind: kindRaft}.encode(),
		append(preface{kind: kindGRPC}.encode(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"...),
		append(preface{kind: kindRaft}.encode(), 1, 0x80),
		bytes.Repeat([]byte{0xff}, 100_000),
		append([]byte{22, 3, 1, 0x40, 0}, bytes.Repeat([]byte{1, 0xff, 0xff, 0xff}, 100_000)...), // a ClientHello of 16 MiB
		bytes.Repeat([]byte{20, 3, 3, 0, 1, 1}, 100_000),                                         // change cipher spec for ever
	}
	for i, m := range messages {
		for j := range c.nodes {
			if b := answer(t, c.peers[j].Addr, m); !onlyAlerts(b) {
				t.Errorf("message %d: node %d answered %d bytes: %.60q", i, j, len(b), b)
			}
		}
	}
	// A handshake that is sent again gets as far as the node's part of it, of which the sender cannot read a word,
	// and not further: what comes back is no more than for its first record alone, but for an alert of 24 bytes and
	// a signature that is a little longer. A proof would be 54.
	const slack = 30
	replayed := 0
	for _, p := range taps {
		for _, b := range p.recorded() {
			if len(b) == 0 {
				continue
			}
			replayed++
			before := int64(0)
			for _, n := range c.nodes {
				before += n.Strangers()
			}
			hello := b[:5+int(b[3])<<8+int(b[4])]
			flight := answer(t, p.to, hello)
			got := answer(t, p.to, b)
			after := int64(0)
			for _, n := range c.nodes {
				after += n.Strangers()
			}
			if len(got) > len(flight)+slack || after < before+2 {
				t.Errorf("replayed, %d bytes were answered with %d, their first %d with %d; refused: %d", len(b), len(got), len(hello), len(flight), after-before)
			}
		}
	}
	if replayed < 6 {
		t.Errorf("only %d connections were recorded", replayed)
	}
	c.propose(0, "after")
	c.waitSame(0, 2)
	for i := range c.toys {
		if got := c.appliedOnce(i, 0); !slices.Equal(got, []string{"before", "after"}) {
			t.Errorf("node %d has %q", i, got)
		}
	}
}

// crowd holds connections to an address that say nothing, and makes each anew that is closed.
func crowd(t *testing.T, addr string, size int) (grown func() bool) {
	t.Helper()
	// From another address of this machine than the nodes use.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	var mu sync.Mutex
	conns := map[int]net.Conn{}
	made, closed := 0, false
	var wg sync.WaitGroup
	for i := range size {
		wg.Go(func() {
			for {
				c, err := d.Dial("tcp", addr)
				mu.Lock()
				if closed || err != nil {
					mu.Unlock()
					if err == nil {
						_ = c.Close()
					}
					return
				}
				conns[i] = c
				made++
				mu.Unlock()
				_, _ = c.Read(make([]byte, 1)) // until it is closed
				_ = c.Close()
			}
		})
	}
	t.Cleanup(func() {
		mu.Lock()
		closed = true
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return func() bool { mu.Lock(); defer mu.Unlock(); return made >= size }
}

// A crowd that connects and says nothing does not keep nodes from each other.
func TestHalfOpenConnectionsKeepNobodyOut(t *testing.T) {
	c := newCluster(t, 3, 1, inMemory, withSecret)
	c.propose(0, "before")
	c.waitSame(0, 1)
	c.stop(2, time.Second)
	for i := range 2 {
		eventually(t, "the crowd is there", crowd(t, c.peers[i].Addr, 2*maxUnproven))
	}
	c.start(2) // it dials the others, through the crowd
	c.waitConnected()
	c.propose(0, "after")
	c.waitSame(0, 2)
}

func TestUnproven(t *testing.T) {
	u := newUnproven()
	at := func(addr string) net.Conn { return remoteConn{addr: addr} }
	node := at("10.0.0.1:5000")
	if out := u.add(node); out != nil {
		t.Fatal("the first has to go")
	}
	var crowd []net.Conn
	for i := range 2 * maxUnproven {
		// One owner of a network of IPv6, each time from another of his addresses.
		c := at(fmt.Sprintf("[2001:db8:0:1::%x]:%d", i, 1000+i))
		crowd = append(crowd, c)
		out := u.add(c)
		if i < maxUnproven-1 && out != nil || i >= maxUnproven-1 && out != crowd[i-maxUnproven+1] {
			t.Fatalf("for connection %d that of %v goes", i, out)
		}
	}
	if out := u.add(at("10.0.0.2:5000")); out != crowd[maxUnproven+1] {
		t.Errorf("for a node that of %v goes", out)
	}
	u.remove(node)
	for _, c := range crowd {
		u.remove(c) // most have gone
	}
	if u.count != 1 || len(u.hosts) != 1 {
		t.Errorf("%d are left, of %d hosts", u.count, len(u.hosts))
	}
}

type remoteConn struct {
	net.Conn
	addr string
}

func (c remoteConn) RemoteAddr() net.Addr { return addr(c.addr) }

// A port that others reach is not left open by mistake.
func TestOpenPortIsRefused(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Close() }()
	base := Config{NodeID: "n0", Groups: 1, Dir: t.TempDir(), Machine: newToy(), Service: &stubService{}, Log: testLog()}
	for _, tc := range []struct {
		set func(*Config)
		ok  bool
	}{
		{func(c *Config) { c.Listen = "127.0.0.1:0" }, true},
		{func(c *Config) { c.Listen = "localhost:0" }, true},
		{func(c *Config) { c.Listen = "[::1]:0" }, true},
		{func(c *Config) { c.Listener = open }, true},
		{func(c *Config) { c.Listen = ":0" }, false},
		{func(c *Config) { c.Listen = "0.0.0.0:0" }, false},
		{func(c *Config) { c.Listen = "[::]:0" }, false},
		{func(c *Config) { c.Listen = "10.0.0.1:0" }, false},
		{func(c *Config) { c.Listen = "n0.example.com:0" }, false},
		{func(c *Config) { c.Listener = elsewhere{open} }, false},
		{func(c *Config) { c.Listener, c.Insecure = elsewhere{open}, true }, true},
		{func(c *Config) { c.Listener, c.Security = elsewhere{open}, ourSecret() }, true},
	} {
		c := base
		tc.set(&c)
		if err := c.Validate(); (err == nil) != tc.ok || err != nil && !errors.Is(err, errOpen) {
			t.Errorf("%q, %v: %v", c.Listen, c.Listener, err)
		}
	}
}

// elsewhere is a listener that others reach.
type elsewhere struct{ net.Listener }

func (elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7070} }

// An open port is said to be open, loudly, and in the status.
func TestInsecurePortIsTold(t *testing.T) {
	var log lines
	c := newCluster(t, 1, 1, inMemory, func(_ int, c *Config) {
		c.Peers, c.Listener, c.Insecure, c.Log = nil, elsewhere{c.Listener}, true, zerolog.New(&log)
	})
	eventually(t, "it is told", func() bool { return log.count("TIDEWIRE_CLUSTER_INSECURE") == 1 })
	if p := c.nodes[0].Protection(); !strings.Contains(p, "INSECURE") {
		t.Errorf("protected by %q", p)
	}
}

// A cluster goes from an open port to a secret, node by node, while it works: once around with the secret and
// Insecure, once without.
func TestSecretIsIntroducedNodeByNode(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.propose(0, "open")
	entries := 1
	restart := func(i int, security peertls.Security, insecure bool) {
		c.stop(i, 2*time.Second)
		c.configs[i].Security, c.configs[i].Insecure = security, insecure
		c.propose(0, fmt.Sprintf("without %d", i)) // the other two are a majority that works together
		c.start(i)
		c.waitConnected()
		c.propose(0, fmt.Sprintf("with %d", i))
		entries += 2
		c.waitSame(0, entries)
	}
	for i := range 3 {
		restart(i, ourSecret(), true)
	}
	for i := range 3 {
		restart(i, ourSecret(), false)
	}
	for i := range c.nodes {
		if b := answer(t, c.peers[i].Addr, preface{kind: kindLiveness}.encode()); !onlyAlerts(b) {
			t.Errorf("node %d still answers who proves nothing: %q", i, b)
		}
	}
}

// Certificates are exchanged while the nodes run, also for those of another CA: each node takes the new ones for
// the next connections.
func TestCertificatesAreExchangedWithoutARestart(t *testing.T) {
	before, after := peertlstest.NewCA(t), peertlstest.NewCA(t)
	var files [3]peertls.Files
	c := newCluster(t, 3, 1, inMemory, withCertificates(t, before, &files))
	c.propose(0, "before")
	c.waitSame(0, 1)
	c.stop(2, time.Second)
	for i := range 2 { // both CAs are trusted
		certtest.WriteFile(t, files[i].CA, slices.Concat(before.PEM, after.PEM))
	}
	// The one that was away comes back with a certificate of the new CA, and trusts no other.
	files[2] = after.Files(filepath.Dir(files[2].CA), []string{"n2"})
	for i := range 2 {
		cert, key := after.Leaf([]string{string(c.peers[i].ID)})
		certtest.WriteFile(t, files[i].Key, key)
		certtest.WriteFile(t, files[i].Cert, cert)
	}
	var err error
	if c.configs[2].Security, err = peertls.FromFiles(files[2], zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	c.waitConnected()
	c.propose(0, "after")
	c.waitSame(0, 2)
}

// Whoever knocks, and from however many places, is told of in some lines a minute.
func TestRefusalsAreToldNowAndThen(t *testing.T) {
	var r refusals
	now := time.Now()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	for minute := range 2 {
		told := 0
		for i := range 1000 {
			for range 3 {
				if r.tell(at(i), now.Add(time.Duration(minute)*refusalsEvery+time.Duration(i)*time.Millisecond)) {
					told++
				}
			}
		}
		if told != maxRefusals {
			t.Errorf("in minute %d it is told %d times", minute, told)
		}
	}
}

// A member that other nodes cannot reach is told of before one is added elsewhere.
func TestReachable(t *testing.T) {
	for _, tc := range []struct {
		addr, from string
		ok         bool
	}{
		{"10.0.0.1:7070", "10.0.0.2:7070", true},
		{"n1:7070", "n2:7070", true},
		{":7070", "10.0.0.2:7070", false},
		{"127.0.0.1:7070", "10.0.0.2:7070", false},
		{"127.0.0.1:7070", "127.0.0.1:7071", true},
		{"127.0.0.1:7070", "localhost:7071", true},
		{"10.0.0.1:7070", "127.0.0.1:7070", true},
	} {
		if reachable(tc.addr, tc.from) != tc.ok {
			t.Errorf("%s from %s: %v", tc.addr, tc.from, !tc.ok)
		}
	}
}
