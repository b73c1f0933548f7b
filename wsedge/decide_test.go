package wsedge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
	"github.com/tidewire/tidewire/wsedge/auth"
)

// fakeDecider says what a test has it say.
type fakeDecider struct {
	mu     sync.Mutex
	answer func(auth.Question) (auth.Decision, error)
	asked  []auth.Question
}

func (d *fakeDecider) Decide(_ context.Context, q auth.Question) (auth.Decision, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, q)
	return d.answer(q)
}

func (d *fakeDecider) says(f func(auth.Question) (auth.Decision, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = f
}

func (d *fakeDecider) questions() []auth.Question {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]auth.Question(nil), d.asked...)
}

func yesTo(life time.Duration, subjects ...string) func(auth.Question) (auth.Decision, error) {
	return func(q auth.Question) (auth.Decision, error) {
		for _, s := range subjects {
			if q.Subject == s {
				return auth.Decision{Allow: true, For: life}, nil
			}
		}
		return auth.Decision{For: life}, nil
	}
}

func unanswered(auth.Question) (auth.Decision, error) { return auth.Decision{}, errors.New("away") }

func newDecidedEdge(t *testing.T, change func(*Config)) (*edge, *fakeAuth, *fakeDecider) {
	d := &fakeDecider{answer: unanswered}
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) {
		c.Decider = d
		if change != nil {
			change(c)
		}
	})
	return e, a, d
}

// Somebody decides about what rights allow; a token without rights leaves it all to him; no answer is a no that may
// change.
func TestDecider(t *testing.T) {
	e, a, d := newDecidedEdge(t, nil)
	a.give(t, "some", "alice", 0, "/one/*", "pub:/one/*")
	a.give(t, "silent", "bob", 0)
	a.tokens["silent"].Silent = true
	a.tokens["silent"].Claims = []byte(`{"sub":"bob"}`)
	d.says(yesTo(time.Hour, "/one/a", "/one/*", "/prices/a"))
	try := func(c *client, op, want string) {
		t.Helper()
		c.send("%s", op)
		m := c.next()
		for m.ID != 1 {
			m = c.next()
		}
		if m.Op != want && m.Code != want {
			t.Errorf("%s was answered %s", op, m.raw)
		}
	}
	c := e.dialAs("some")
	try(c, `{"op":"sub","id":1,"subject":"/one/a"}`, "subbed")
	try(c, `{"op":"sub","id":1,"subject":"/one/b"}`, "forbidden")
	try(c, `{"op":"pub","id":1,"subject":"/one/a","text":"x"}`, "acked")
	try(c, `{"op":"pub","id":1,"subject":"/one/b","text":"x"}`, "forbidden")
	before := len(d.questions())
	try(c, `{"op":"sub","id":1,"subject":"/prices/a"}`, "forbidden") // the token's rights come first
	if len(d.questions()) != before {
		t.Error("asked about what the token does not allow")
	}
	c = e.dialAs("silent")
	try(c, `{"op":"sub","id":1,"subject":"/prices/a"}`, "subbed")
	try(c, `{"op":"sub","id":1,"subject":"/prices/b"}`, "forbidden")
	if q := d.questions()[before]; q.User != "bob" || q.Session == "" || q.Action != "sub" || q.Subject != "/prices/a" || string(q.Claims) != `{"sub":"bob"}` || q.Anew {
		t.Errorf("asked %+v", q)
	}
	d.says(unanswered)
	c.send(`{"op":"sub","id":1,"subject":"/one/a"}`)
	if m := c.next(); m.Code != "forbidden" || m.RetryMS <= 0 {
		for m.ID != 1 {
			m = c.next()
		}
		if m.Code != "forbidden" || m.RetryMS <= 0 {
			t.Errorf("answered %s", m.raw)
		}
	}
	for path, want := range map[string]int{"POST /publish/one/a": 403, "GET /history/one/a": 403, "GET /sse?subject=/one/a": 403} {
		method, path, _ := strings.Cut(path, " ")
		if resp, body := e.requestAs(method, path, "some", ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	d.says(yesTo(time.Hour, "/one/a"))
	for path, want := range map[string]int{"POST /publish/one/a": 200, "GET /history/one/a": 200, "GET /history/one/b": 403, "POST /publish/one/b": 403} {
		method, path, _ := strings.Cut(path, " ")
		if resp, body := e.requestAs(method, path, "some", ""); resp.StatusCode != want {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

// Where nobody is asked for a token he decides about everything.
func TestDeciderAlone(t *testing.T) {
	e, _, d := newDecidedEdge(t, func(c *Config) { c.Auth = nil })
	d.says(yesTo(time.Hour, "/one/a"))
	c := e.dialRaw(nil)
	if m := c.next(); m.Auth != "none" {
		t.Errorf("welcome says %s", m.raw)
	}
	for _, try := range []struct{ op, want string }{
		{`{"op":"sub","id":1,"subject":"/one/a"}`, "subbed"}, {`{"op":"sub","id":1,"subject":"/one/b"}`, "forbidden"},
		{`{"op":"unsub","id":1,"subject":"/one/b"}`, "not_subscribed"}, {`{"op":"auth","id":1,"token":"x"}`, "authed"},
	} {
		c.send("%s", try.op)
		m := c.next()
		for m.ID != 1 {
			m = c.next()
		}
		if m.Op != try.want && m.Code != try.want {
			t.Errorf("%s was answered %s", try.op, m.raw)
		}
	}
}

// A yes is for a time. It is asked for again before that is over, and without another the subscription ends.
func TestDeciderIsAskedAgain(t *testing.T) {
	for how, then := range map[string]func(auth.Question) (auth.Decision, error){
		"no":       yesTo(time.Hour),
		"no reply": unanswered,
	} {
		t.Run(how, func(t *testing.T) { inBubble(t, func(t *testing.T) { testAskedAgain(t, how, then) }) })
	}
}

func testAskedAgain(t *testing.T, how string, then func(auth.Question) (auth.Decision, error)) {
	e, a, d := newDecidedEdge(t, nil)
	a.give(t, "t", "alice", 0, "/one/*", "/prices/*")
	d.says(yesTo(3*time.Second, "/one/a", "/prices/*"))
	c := e.dialAs("t")
	stream := e.sourceRaw("GET /sse?subject=/one/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n\r\n", 0)
	var ops []string
	var streaming sync.WaitGroup
	streaming.Go(func() {
		for {
			ev, err := stream.read()
			if err != nil {
				return
			}
			ops = append(ops, ev.name+ev.Reason)
		}
	})
	c.send(`{"op":"sub","subject":"/one/a"}` + "\n" + `{"op":"sub","subject":"/prices/*"}`)
	for range 4 { // subbed and live, of each
		c.next()
	}
	again := func() (n int) {
		for _, q := range d.questions() {
			if q.Anew {
				n++
			}
		}
		return n
	}
	until(t, "all to be asked about again", func() bool { return again() >= 3 })
	e.node.put("one", 0, []byte("a"), value(1))
	if m := c.next(); m.Op != "msg" {
		t.Fatalf("got %s", m.raw)
	}
	prices := yesTo(time.Hour, "/prices/*")
	noes := 0 // guarded by the decider's mutex
	d.says(func(q auth.Question) (auth.Decision, error) {
		if q.Subject == "/one/a" {
			noes++
			return then(q)
		}
		return prices(q)
	})
	c.expect(`{"op":"unsubbed","subject":"/one/a","reason":"forbidden"}`)
	streaming.Wait()
	if got := strings.Join(ops, " "); got != "subbed live msg unsubbedforbidden byeforbidden" {
		t.Errorf("the stream: %s", got)
	}
	e.node.put("one", 0, []byte("a"), value(2))
	e.node.put("prices", 0, []byte("a"), value(3))
	if m := c.next(); m.Op != "msg" || m.Subject != "/prices/a" {
		t.Errorf("got %s", m.raw)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if how == "no" && noes != 2 { // one to each of the two
		t.Errorf("said no %d times", noes)
	}
}

// Another token is another question about all that there is.
func TestDeciderAndAnotherToken(t *testing.T) {
	e, a, d := newDecidedEdge(t, nil)
	a.give(t, "t1", "alice", 0, "/one/*")
	a.give(t, "t2", "bob", 0, "/one/*")
	d.says(func(q auth.Question) (auth.Decision, error) {
		return auth.Decision{Allow: q.User == "alice" || q.Subject == "/one/b", For: time.Hour}, nil
	})
	c := e.dialAs("t1")
	c.send(`{"op":"sub","subject":"/one/a"}` + "\n" + `{"op":"sub","subject":"/one/b"}`)
	for range 4 {
		c.next()
	}
	c.send(`{"op":"auth","id":1,"token":"t2"}`)
	c.expect(`{"op":"authed","id":1,"expires":null}`)
	c.expect(`{"op":"unsubbed","subject":"/one/a","reason":"forbidden"}`)
	e.node.put("one", 0, []byte("a"), value(1))
	e.node.put("one", 0, []byte("b"), value(2))
	if m := c.next(); m.Op != "msg" || m.Subject != "/one/b" {
		t.Errorf("got %s", m.raw)
	}
	d.says(unanswered)
	c.send(`{"op":"auth","id":2,"token":"t1"}`)
	c.expect(`{"op":"authed","id":2,"expires":null}`)
	c.expect(`{"op":"unsubbed","subject":"/one/b","reason":"forbidden"}`)
}

// He is asked about nothing that a limit keeps from being done: who is over it does not cost him anything.
func TestDeciderIsAskedWithinLimits(t *testing.T) {
	e, a, d := newDecidedEdge(t, func(c *Config) {
		c.Limits.SessionPublishes, c.Limits.UserPublishes, c.MaxSubscriptions = 1, 2, 1
	})
	a.give(t, "t", "alice", 0, "/one/*", "pub:/one/*")
	d.says(func(auth.Question) (auth.Decision, error) { return auth.Decision{Allow: true, For: time.Hour}, nil })
	asked := func(subject string) bool {
		for _, q := range d.questions() {
			if q.Subject == subject {
				return true
			}
		}
		return false
	}
	c := e.dialAs("t")
	c.send(`{"op":"sub","id":1,"subject":"/one/first"}` + "\n" + `{"op":"sub","id":2,"subject":"/one/second"}`)
	for m := c.next(); m.ID != 2; m = c.next() {
	}
	if !asked("/one/first") || asked("/one/second") {
		t.Error("asked about a subscription over the limit")
	}
	publish := func(subject string) (refused bool) {
		c.send(`{"op":"pub","id":3,"subject":%q,"text":"x"}`, subject)
		m := c.next()
		return m.Code == "rate_limited"
	}
	for i := 0; ; i++ {
		if subject := fmt.Sprint("/one/", i); publish(subject) {
			if asked(subject) {
				t.Error("asked about a publish over the limit")
			}
			break
		}
	}
	for i := 0; ; i++ {
		subject := fmt.Sprint("/one/http-", i)
		if resp, _ := e.requestAs("POST", "/publish"+subject, "t", "x"); resp.StatusCode == 429 {
			if asked(subject) {
				t.Error("asked about a publish over HTTP over the limit")
			}
			break
		}
	}
}

// A token that is revoked while he is asked about a publish that has waited ends it, whatever he says.
func TestRevokedWhileTheDeciderIsAsked(t *testing.T) {
	var revoked atomic.Bool
	e, a, d := newDecidedEdge(t, func(c *Config) { c.Revoked = func(*auth.Identity) bool { return revoked.Load() } })
	a.give(t, "t", "alice", 0, "pub:/one/*")
	questions, yes := make(chan struct{}), make(chan struct{})
	d.says(func(auth.Question) (auth.Decision, error) {
		questions <- struct{}{}
		<-yes
		return auth.Decision{Allow: true, For: time.Hour}, nil
	})
	written := false
	e.node.publish = func(bridge.PublishRequest) (bridge.PublishResult, error) {
		written = true
		return bridge.PublishResult{}, nil
	}
	c := e.dialAs("t")
	c.send(`{"op":"pub","id":1,"subject":"/one/a","text":"x"}`)
	<-questions // when it came
	yes <- struct{}{}
	<-questions // when its turn came
	revoked.Store(true)
	e.srv.EndSessions(func(*auth.Identity) bool { return true })
	yes <- struct{}{}
	if code, bye := c.closes(); code != 4001 || bye.Reason != "revoked" {
		t.Errorf("closed with %d after %s", code, bye.raw)
	}
	until(t, "it to be gone", func() bool { return e.srv.Stats().Connections == 0 && e.srv.publishing.Load() == 0 })
	if written {
		t.Error("it was written")
	}
}

// A yes whose time is over before the topic is ready is no yes any more: he is asked again before anything is sent.
func TestDecisionThatIsOverBeforeTheSubscription(t *testing.T) {
	e, a, d := newDecidedEdge(t, nil)
	a.give(t, "t", "alice", 0, "/one/*")
	filled := make(chan struct{})
	e.node.ready["one"] = filled
	const life = 30 * time.Millisecond
	d.says(yesTo(life, "/one/*"))
	c := e.dialAs("t")
	c.send(`{"op":"sub","id":1,"subject":"/one/*"}`)
	until(t, "it to wait for the topic", func() bool { e.node.mu.Lock(); defer e.node.mu.Unlock(); return e.node.waiting == 1 })
	over := e.srv.now() + life.Milliseconds()
	until(t, "the yes to be over", func() bool { return e.srv.now() > over })
	d.says(yesTo(time.Hour))
	close(filled)
	if m := c.next(); m.Code != "forbidden" || m.ID != 1 {
		t.Errorf("got %s", m.raw)
	}
}

// The same of a publish over HTTP whose body took longer than the yes holds.
func TestDecisionThatIsOverBeforeTheBody(t *testing.T) {
	e, a, d := newDecidedEdge(t, nil)
	a.give(t, "t", "alice", 0, "pub:/one/*")
	const life = 30 * time.Millisecond
	d.says(yesTo(life, "/one/a"))
	conn := e.connect()
	defer conn.Close()
	fmt.Fprint(conn, "POST /publish/one/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\nContent-Length: 1\r\n\r\n")
	until(t, "it to be asked about", func() bool { return len(d.questions()) == 1 })
	over := e.srv.now() + life.Milliseconds()
	until(t, "the yes to be over", func() bool { return e.srv.now() > over })
	d.says(yesTo(time.Hour))
	fmt.Fprint(conn, "x")
	if resp, body := readAnswer(t, conn); resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if n := e.node.store.Log("one", 0).Bounds().Head.Seqno; n != 0 {
		t.Errorf("%d records were written", n)
	}
}

// A client whose ops the node is still busy with is not silent: its pongs lie unread behind them.
func TestBusyWithASessionsOps(t *testing.T) {
	yes, over := make(chan struct{}), make(chan struct{})
	e, _, d := newDecidedEdge(t, func(c *Config) { c.Auth, c.Heartbeat = nil, 200*time.Millisecond })
	defer close(over)
	d.says(func(auth.Question) (auth.Decision, error) {
		select {
		case <-yes:
		case <-over:
		}
		return auth.Decision{Allow: true, For: time.Hour}, nil
	})
	c := e.dial()
	c.send(`{"op":"sub","id":1,"subject":"/one/a"}` + "\n" + `{"op":"sub","id":2,"subject":"/one/b"}`)
	for id := range uint64(2) {
		for range 2 * beatsUntilDead { // each of them with a ping, which is answered
			c.expect(`{"op":"hb"}`)
		}
		yes <- struct{}{}
		m := c.next()
		for ; m.Op != "subbed"; m = c.next() {
		}
		if m.ID != id+1 {
			t.Fatalf("got %s", m.raw)
		}
		for ; m.Op != "live"; m = c.next() {
		}
	}
	c.send(`{"op":"ping","id":3}`)
	for m := c.next(); m.Op != "pong"; m = c.next() {
	}
}

// countingDecider says yes, and counts how many questions are on their way.
type countingDecider struct {
	now, most, all atomic.Int32
	on             chan struct{}
}

func (d *countingDecider) Decide(_ context.Context, q auth.Question) (auth.Decision, error) {
	if n := d.now.Add(1); n > d.most.Load() {
		d.most.Store(n)
	}
	defer d.now.Add(-1)
	d.all.Add(1)
	if q.User == "bob" {
		<-d.on
	}
	return auth.Decision{Allow: true, For: time.Hour}, nil
}

// A session asks for several of its subscriptions at a time, but not when all sessions together ask too much already; it goes on
// with one at a time then.
func TestAskersAreBounded(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%v", busy), func(t *testing.T) { testAskers(t, busy) })
	}
}

func testAskers(t *testing.T, busy bool) {
	d := &countingDecider{on: make(chan struct{})}
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) { c.Decider = d })
	defer close(d.on)
	a.give(t, "a", "alice", 0, "/one/*")
	a.give(t, "b", "bob", 0, "/one/*")
	c := e.dialAs("a")
	const subs = 2 * askers
	for i := range subs {
		c.send(`{"op":"sub","subject":"/one/%d"}`, i)
	}
	until(t, "the subscriptions", func() bool { return e.srv.Stats().Subscriptions == subs })
	want := int32(askers)
	if busy { // others are
		e.srv.askers.Add(maxAskers)
		want = 1
	}
	d.all.Store(0)
	d.most.Store(0)
	c.send(`{"op":"auth","id":1,"token":"b"}`)
	until(t, "the questions", func() bool { return d.now.Load() == want })
	for range subs {
		d.on <- struct{}{}
	}
	for m := c.next(); m.ID != 1; m = c.next() {
	}
	if n := d.most.Load(); n != want || d.all.Load() != subs {
		t.Errorf("%d questions at once, want %d; %d in all", n, want, d.all.Load())
	}
	if n := e.srv.Stats().Subscriptions; n != subs {
		t.Errorf("%d subscriptions", n)
	}
}

// deadlineDecider says yes, and notes whether it was given less time than it takes of its own.
type deadlineDecider struct{ hurried atomic.Bool }

func (d *deadlineDecider) Decide(ctx context.Context, _ auth.Question) (auth.Decision, error) {
	if _, ok := ctx.Deadline(); ok {
		d.hurried.Store(true)
	}
	return auth.Decision{Allow: true, For: time.Hour}, nil
}

// A client with many subscriptions that shows another token keeps them all, however long the questions take together: each has
// its own time, and none is answered with no because those before it took theirs.
func TestManySubscriptionsAndAnotherToken(t *testing.T) {
	d := &deadlineDecider{}
	e, a := newAuthEdge(t, cache.Config{}, func(c *Config) { c.Decider = d })
	a.give(t, "t", "alice", 0, "/one/*")
	c := e.dialAs("t")
	c.send(`{"op":"sub","subject":"/one/a"}`)
	until(t, "the subscription", func() bool { return e.srv.Stats().Subscriptions == 1 })
	c.send(`{"op":"auth","id":1,"token":"t"}`)
	for m := c.next(); m.ID != 1; m = c.next() {
	}
	if d.hurried.Load() {
		t.Error("all questions together have a deadline")
	}
}
