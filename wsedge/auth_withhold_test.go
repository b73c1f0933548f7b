package wsedge

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// A client does not read. Its socket is full, half of a record is still here and many more wait in the cache, when
// it loses the right to them: by a token with less, by a revocation, by its token's end. From that moment on the
// node hands not one byte of them to the socket, though the client reads again.
func TestRightsLostWithASlowReader(t *testing.T) {
	for _, how := range []string{"renewed", "revoked", "expired"} {
		for _, kind := range []string{"websocket", "sse"} {
			if how == "renewed" && kind == "sse" {
				continue // there is nothing to renew it with
			}
			t.Run(how+"_"+kind, func(t *testing.T) {
				e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
					c.SendBuffer = 4 << 10
					c.CloseTimeout = 3 * time.Second // time for the rest of a record to be sent by who would
				})
				a.give(t, "more", "alice", time.Hour, "/one/*", "/prices/*")
				a.give(t, "less", "alice", time.Hour, "/prices/*")
				var conn net.Conn
				var slow *rawClient
				if kind == "sse" {
					s := e.sourceRaw("GET /sse?subject=/one/* HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer more\r\n\r\n", 4<<10)
					conn = s.conn
				} else {
					slow = e.dialByHand(4 << 10)
					slow.op(`{"op":"auth","token":"more"}`)
					slow.op(`{"op":"sub","subject":"/one/*"}`)
					conn = slow.conn
				}
				until(t, "it to be subscribed", func() bool { return e.srv.Stats().Subscriptions == 1 })
				v := []byte(`"` + strings.Repeat("x", 4000) + `"`)
				until(t, "its socket to be full", func() bool {
					for range 10 {
						e.node.put("one", 0, []byte("k"), v)
					}
					return e.srv.Stats().Blocked > 0
				})
				settled(t, e)
				s := e.onlySession()
				switch how {
				case "renewed":
					slow.op(`{"op":"auth","token":"less"}`)
				case "revoked":
					e.srv.EndSessions(func(id *auth.Identity) bool { return id.Subject == "alice" })
				case "expired": // now, however long it took to fill the socket
					s.mu.Lock()
					s.standing.until = time.Now().UnixMilli()
					s.wakeAt(e.srv.now())
					s.mu.Unlock()
				}
				lostAll(t, s)
				before := e.srv.Stats()
				// It reads again. The reset of a connection that was cut may not get through to a socket that had been
				// full, so what counts is that the node is done with it.
				var reading sync.WaitGroup
				var told atomic.Bool // where no record had been begun, it is served on
				reading.Go(func() {
					var all []byte
					buf := make([]byte, 64<<10)
					for {
						n, err := conn.Read(buf)
						if err != nil {
							return
						}
						all = append(all, buf[:n]...)
						told.Store(bytes.Contains(all[max(0, len(all)-1000):], []byte(`"op":"unsubbed"`)))
					}
				})
				until(t, "it to be gone or told", func() bool { return e.srv.Stats().Connections == 0 || told.Load() })
				conn.Close()
				reading.Wait()
				if after := e.srv.Stats(); after.Bytes != before.Bytes || after.Delivered != before.Delivered {
					t.Errorf("after the right was lost %d bytes of %d records went to the socket", after.Bytes-before.Bytes, after.Delivered-before.Delivered)
				}
			})
		}
	}
}

// lostAll waits until a session has lost its rights to all that it was subscribed to. Who takes them holds mu from the end of the
// first subscription until what was on its way is withheld.
func lostAll(t *testing.T, s *session) {
	t.Helper()
	until(t, "its subscription to end", func() bool { return s.srv.Stats().Subscriptions == 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
}

// settled waits until the socket of the only session takes nothing more.
func settled(t *testing.T, e *edge) {
	t.Helper()
	last := e.srv.Stats()
	for same := 0; same < 20; {
		time.Sleep(5 * time.Millisecond)
		now := e.srv.Stats()
		if same++; now.Bytes != last.Bytes || now.Blocked == 0 {
			same = 0
		}
		if now.Connections == 0 {
			t.Fatal("it has ended before its socket was full")
		}
		last = now
	}
}

// doleConn is a connection, of no kind that can be tried without waiting, which takes what is written to it a
// little at a time, when it is told to.
type doleConn struct {
	net.Conn
	dole chan struct{}
	once sync.Once
	dead chan struct{}

	mu    sync.Mutex
	taken []byte
}

func (c *doleConn) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		select {
		case <-c.dole:
		case <-c.dead:
			return n, os.ErrDeadlineExceeded
		}
		select {
		case <-c.dead:
			return n, os.ErrDeadlineExceeded
		default:
		}
		k := min(1000, len(p)-n)
		c.mu.Lock()
		c.taken = append(c.taken, p[n:n+k]...)
		c.mu.Unlock()
		if _, err := c.Conn.Write(p[n : n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

func (c *doleConn) kill() { c.once.Do(func() { close(c.dead) }) }

func (c *doleConn) SetDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Now()) {
		c.kill()
	}
	return c.Conn.SetDeadline(at)
}

func (c *doleConn) Close() error {
	c.kill()
	return c.Conn.Close()
}

// doleListener makes doleConns.
type doleListener struct {
	net.Listener
	conns chan *doleConn
}

func (l *doleListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d := &doleConn{Conn: c, dole: make(chan struct{}, 1<<20), dead: make(chan struct{})}
	for range 20 {
		d.dole <- struct{}{} // for the handshake and the first answers
	}
	l.conns <- d
	return d, nil
}

// The same over a connection that is written to aside: a turn that was handed over whole and is
// still being written ends in its midst, even while the session's reader is busy with something else.
func TestRightsLostInTheMidstOfATurn(t *testing.T) {
	for _, how := range []string{"renewed", "revoked while busy", "not lost"} {
		t.Run(how, func(t *testing.T) { testMidstOfATurn(t, how) })
	}
}

func testMidstOfATurn(t *testing.T, how string) {
	e, a := newAuthEdge(t, cache.Config{}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	doles := &doleListener{Listener: ln, conns: make(chan *doleConn, 1)}
	go func() { _ = e.srv.Serve(doles) }()
	e.addr = ln.Addr().String()
	e.node.topic("filling", TopicView{Partitions: 1, Exposed: true})
	filled := make(chan struct{})
	e.node.ready["filling"] = filled
	a.give(t, "more", "alice", 0, "/one/*", "/prices/*", "/filling/*")
	a.give(t, "less", "alice", 0, "/prices/*")
	c := e.dialByHand(0)
	conn := <-doles.conns
	c.op(`{"op":"auth","token":"more"}`)
	topic := "one"
	if how == "not lost" {
		topic = "prices"
	}
	c.op(`{"op":"sub","subject":"/%s/*"}`, topic)
	until(t, "it to be subscribed", func() bool { return e.srv.Stats().Subscriptions == 1 })
	for range 50 {
		e.node.put(topic, 0, []byte("k"), []byte(`"`+strings.Repeat("x", 2000)+`"`))
	}
	s := e.onlySession()
	until(t, "it to be in the midst of a turn", func() bool { return e.srv.Stats().Blocked == 1 && len(conn.dole) == 0 })
	if how == "revoked while busy" {
		c.op(`{"op":"sub","subject":"/filling/*"}`)
		until(t, "its reader to wait", func() bool { e.node.mu.Lock(); defer e.node.mu.Unlock(); return e.node.waiting == 1 })
		e.srv.EndSessions(func(*auth.Identity) bool { return true })
	} else {
		c.op(`{"op":"auth","token":"less"}`)
	}
	if how != "not lost" {
		lostAll(t, s)
	}
	taken := conn.tookSoFar()
	for range 1000 {
		conn.dole <- struct{}{}
	}
	if how == "not lost" {
		for n := 0; n < 50; {
			m, err := c.message()
			if err != nil {
				t.Fatalf("after %d records: %v", n, err)
			}
			if m.Op == "msg" {
				n++
			}
		}
		close(filled)
		return
	}
	until(t, "the writing to end", func() bool { return e.srv.Stats().Blocked == 0 })
	// One piece may have been on its way while the right was lost.
	if more := conn.tookSoFar() - taken; more > 1000 {
		t.Errorf("%d bytes were written after the right was lost", more)
	}
	close(filled)
	until(t, "it to be gone", func() bool { return e.srv.Stats().Connections == 0 })
}

func (c *doleConn) tookSoFar() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken)
}

// Tokens with all sorts of rights come in the midst of subscriptions, records and slow reading. Read in order, the
// answers say which rights hold: after the authed of a token nothing comes that it does not allow, and after
// unsubbed nothing of that subject. What stays allowed comes whole and in order, also when a connection was cut
// in the midst of a record and the client went on with its vector.
func TestRightsAreTheirModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	keys := []string{"a", "b", "c", "d"}
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) { c.SendBuffer = 4 << 10 })
	// A token for each set of keys, by its bits.
	may := func(token int, key string) bool { return token&(1<<slices.Index(keys, key)) != 0 }
	for token := range 1 << len(keys) {
		var rights []string
		for _, k := range keys {
			if may(token, k) {
				rights = append(rights, "/one/"+k)
			}
		}
		a.give(t, fmt.Sprint("t", token), "alice", 0, rights...)
	}
	for round := range 12 {
		next := map[string]uint64{} // the last seqno of each key that the client has
		sent := map[string][]uint64{}
		all := 1<<len(keys) - 1
		last := all
		c := e.dialByHand(0)
		auths := []int{all}
		vector := [3]uint64{}
		resume := func(key string) { // from where it has got, which is before all records at first
			at := [2]uint64{vector[1], vector[2]}
			if next[key] > at[1] {
				at = [2]uint64{1, next[key]}
			}
			c.op(`{"op":"sub","subject":"/one/%s","resume":[[0,%d,%d]]}`, key, at[0], at[1])
		}
		c.op(`{"op":"auth","token":"t%d"}`, all)
		for _, k := range keys {
			c.op(`{"op":"sub","subject":"/one/%s"}`, k)
		}
		for n := 0; n < len(keys)+1; {
			m, err := c.message()
			if err != nil {
				t.Fatal(err)
			}
			if m.Op == "subbed" {
				n++
				vector = m.At[0]
			} else if m.Op == "authed" {
				n++
			}
		}
		auths = nil
		for range 3 + rnd.IntN(6) {
			for range rnd.IntN(60) {
				k := keys[rnd.IntN(len(keys))]
				pos := e.node.put("one", 0, []byte(k), []byte(`"`+strings.Repeat("x", rnd.IntN(6000))+`"`))
				sent[k] = append(sent[k], uint64(pos.Seqno))
			}
			if rnd.IntN(2) == 0 {
				last &= rnd.IntN(all + 1) // less and less, so that what is left was never lost
				// The connection may have been cut over the one before.
				_, _ = io.WriteString(c.conn, masked(1, fmt.Sprintf(`{"op":"auth","token":"t%d"}`, last)))
				auths = append(auths, last)
			}
		}
		final := func(k string) bool { return may(last, k) }
		rights, ended := all, map[string]bool{}
		whole := func() bool {
			for _, k := range keys {
				if n := len(sent[k]); final(k) && n > 0 && next[k] != sent[k][n-1] {
					return false
				}
			}
			return len(auths) == 0
		}
		reconnected := false
		for !whole() {
			m, err := c.message()
			if err != nil {
				if reconnected {
					t.Fatalf("round %d: cut twice: %v", round, err)
				}
				reconnected = true
				c = e.dialByHand(0)
				auths, rights, ended = []int{last}, last, map[string]bool{}
				c.op(`{"op":"auth","token":"t%d"}`, last)
				for _, k := range keys {
					if final(k) {
						resume(k)
					}
				}
				continue
			}
			key := strings.TrimPrefix(m.Subject, "/one/")
			switch m.Op {
			case "authed":
				rights, auths = auths[0], auths[1:]
			case "unsubbed":
				if ended[key] = true; m.Reason != "forbidden" || may(rights, key) {
					t.Fatalf("round %d, rights %b: %s", round, rights, m.raw)
				}
			case "msg":
				if !may(rights, key) || ended[key] {
					t.Fatalf("round %d, rights %b, ended %v: got %.80s", round, rights, ended, m.raw)
				}
				i := slices.Index(sent[key], m.Pos[2])
				if i < 0 || i > 0 && next[key] != sent[key][i-1] || i == 0 && next[key] != 0 {
					t.Fatalf("round %d: %d of %s came after %d of %v", round, m.Pos[2], key, next[key], sent[key])
				}
				next[key] = m.Pos[2]
			case "error", "gap":
				t.Fatalf("round %d: %s", round, m.raw)
			}
		}
		c.conn.Close()
		until(t, "all to be gone", func() bool { return e.srv.Stats().Connections == 0 })
	}
}

// A client that gave a subscription up by itself, while half of one of its records was still to be sent, gets the rest of it and goes
// on: with another token of the same rights nothing was lost.
func TestNothingIsLostWithAnotherToken(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			overTLS = secure
			defer func() { overTLS = false }()
			e, a := newAuthEdge(t, cache.Config{}, func(c *Config) { c.SendBuffer = 4 << 10 })
			a.give(t, "t", "alice", time.Hour, "/one/*")
			c := e.dialByHand(4 << 10)
			c.op(`{"op":"auth","token":"t"}`)
			c.op(`{"op":"sub","subject":"/one/*"}`)
			until(t, "it to be subscribed", func() bool { return e.srv.Stats().Subscriptions == 1 })
			s := e.onlySession()
			begun := func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.restOf != nil || len(s.aside) > 0
			}
			until(t, "a record to be half sent", func() bool {
				e.node.put("one", 0, []byte("k"), []byte(`"`+strings.Repeat("x", 100_000)+`"`))
				return begun()
			})
			settled(t, e)
			c.op(`{"op":"unsub","subject":"/one/*"}`)
			until(t, "it to end", func() bool { return e.srv.Stats().Subscriptions == 0 })
			if !begun() {
				t.Fatal("no record is half sent: the test shows less than it says")
			}
			c.op(`{"op":"auth","id":7,"token":"t"}`)
			for {
				m, err := c.message()
				if err != nil {
					t.Fatal(err)
				}
				if m.Op == "authed" && m.ID == 7 {
					break
				}
			}
		})
	}
}
