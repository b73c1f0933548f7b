package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// The protocol_*_test.go files read PROTOCOL.md as a client's author would and hold whole nodes to it,
// sentence by sentence, over real connections. They know nothing of the edge's code. This one holds
// what they share, and the section "Connecting".

// talk is one connection of a test that fails as soon as anything is not as expected.
type talk struct {
	t   *testing.T
	ctx context.Context
	c   *websocket.Conn
	id  int64
}

// dial connects to an address and reads the welcome.
func dial(t *testing.T, addr string) *talk {
	t.Helper()
	c, welcome := dialRaw(t, addr, &websocket.DialOptions{Subprotocols: []string{"tidewire.v1.json"}})
	if f := parse(t, welcome); f.Op != "welcome" {
		t.Fatalf("the first op is %s", welcome)
	}
	return c
}

func dialRaw(t *testing.T, addr string, opts *websocket.DialOptions) (k *talk, welcome []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitTime)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, "ws://"+addr+"/ws", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(64 << 20)
	k = &talk{t: t, ctx: ctx, c: c}
	return k, k.bytes()
}

// bytes returns the next frame as it came.
func (k *talk) bytes() []byte {
	k.t.Helper()
	kind, b, err := k.c.Read(k.ctx)
	if err != nil {
		k.t.Fatalf("read: %v", err)
	}
	if kind != websocket.MessageText {
		k.t.Fatalf("a frame that is not text: %q", b)
	}
	return b
}

func parse(t *testing.T, b []byte) *frame {
	t.Helper()
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("not a frame: %v: %q", err, b)
	}
	return &f
}

// next returns the next frame but for heartbeats.
func (k *talk) next() *frame {
	k.t.Helper()
	for {
		if f := parse(k.t, k.bytes()); f.Op != "hb" {
			return f
		}
	}
}

// want returns the next frame, which must be of the op.
func (k *talk) want(op string) *frame {
	k.t.Helper()
	f := k.next()
	if f.Op != op {
		k.t.Fatalf("want %s, got %+v", op, f)
	}
	return f
}

func (k *talk) raw(text string) {
	k.t.Helper()
	if err := k.c.Write(k.ctx, websocket.MessageText, []byte(text)); err != nil {
		k.t.Fatalf("write: %v", err)
	}
}

// ask sends an op with a new id and returns the answer, leaving out what comes before it.
func (k *talk) ask(format string, args ...any) *frame {
	k.t.Helper()
	k.id++
	k.raw(fmt.Sprintf(`{"id":%d,%s}`, k.id, fmt.Sprintf(format, args...)))
	for {
		if f := k.next(); f.ID == k.id {
			return f
		}
	}
}

// sub subscribes, with more fields if any, and fails on an error.
func (k *talk) sub(subject, more string) *frame {
	k.t.Helper()
	f := k.ask(`"op":"sub","subject":%s%s`, quoted(subject), more)
	if f.Op != "subbed" || f.Subject != subject {
		k.t.Fatalf("sub %q%s: answered %+v", subject, more, f)
	}
	return f
}

// refused asks and fails unless the answer is an error of the code that says something.
func (k *talk) refused(code, format string, args ...any) *frame {
	k.t.Helper()
	f := k.ask(format, args...)
	if f.Op != "error" || f.Code != code || f.Message == "" {
		k.t.Errorf("%s: answered %s %s %q, want %s", fmt.Sprintf(format, args...), f.Op, f.Code, f.Message, code)
	}
	return f
}

// closed reads on until the server closes, and returns the last frame and the close.
func (k *talk) closed() (last *frame, ce websocket.CloseError) {
	k.t.Helper()
	for {
		_, b, err := k.c.Read(k.ctx)
		if err == nil {
			last = parse(k.t, b)
			continue
		}
		if !errors.As(err, &ce) {
			k.t.Fatalf("no close frame: %v", err)
		}
		return last, ce
	}
}

// backlog returns the records up to live.
func (k *talk) backlog(subject string) (msgs []*frame) {
	k.t.Helper()
	for {
		switch f := k.next(); {
		case f.Op == "msg":
			msgs = append(msgs, f)
		case f.Op == "live" && f.Subject == subject:
			return msgs
		default:
			k.t.Fatalf("in the backlog of %s: %+v", subject, f)
		}
	}
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func (f *frame) value() string {
	switch {
	case f.Data != nil:
		return string(f.Data)
	case f.Text != nil:
		return *f.Text
	case f.Null:
		return "<null>"
	}
	return string(f.B64)
}

// values strings the values of records together.
func values(msgs []*frame) string {
	var s []string
	for _, m := range msgs {
		s = append(s, m.value())
	}
	return strings.Join(s, " ")
}

// protocolNode starts one node with a topic of its own, that is open for publishing.
func protocolNode(t *testing.T, partitions int, change func(*Config)) (c *aCluster, topic string) {
	t.Helper()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic = k.topic(t, partitions, nil)
	return startCluster(t, k, 1, topic, func(cfg *Config) {
		openForPublishing(t, topic)(cfg)
		if change != nil {
			change(cfg)
		}
	}), topic
}

// TestProtocol holds one node in its default configuration to everything that needs no other, each part
// with a topic of its own, while peers that never finish their requests are connected too.
func TestProtocol(t *testing.T) {
	t.Parallel()
	parts := []struct {
		name       string
		partitions int
		test       func(t *testing.T, c *aCluster, topic string)
	}{
		{"Keys", 4, protocolKeys}, {"SubjectsRefused", 1, protocolSubjectsRefused}, {"PatternsAndUnsub", 3, protocolPatternsAndUnsub},
		{"MsgFields", 1, protocolMsgFields}, {"History", 4, protocolHistory}, {"HistoryOfSeveralPartitions", 3, protocolHistoryOfSeveralPartitions},
		{"LiveOnceUnderLoad", 1, protocolLiveOnceUnderLoad}, {"Resume", 2, protocolResume}, {"ResumeNonsense", 2, protocolResumeNonsense},
		{"Pub", 1, protocolPub}, {"PubRefused", 1, protocolPubRefused}, {"Mid", 1, protocolMid}, {"BytesRoundTrip", 1, protocolBytesRoundTrip},
		{"HTTP", 1, protocolHTTP}, {"SSE", 2, protocolSSE}, {"PublishOverHTTP", 1, protocolPublishOverHTTP}, {"HistoryOverHTTP", 3, protocolHistoryOverHTTP},
		{"Conflation", 1, protocolConflation}, {"Bye", 1, protocolBye}, // which stops the node
	}
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	var topics []string
	for _, p := range parts {
		k.create(t, p.name, p.partitions, nil)
		topics = append(topics, p.name)
	}
	all := strings.Join(topics, ",")
	c := startCluster(t, k, 1, all, func(cfg *Config) {
		openForPublishing(t, all)(cfg)
		cfg.ClientNodes = []string{"ws://a.example/ws", "ws://b.example/ws"}
	})
	wait := halfOpenRequests(t, c)
	for i, p := range parts {
		if i == len(parts)-1 {
			wait()
		}
		t.Run(p.name, func(t *testing.T) { p.test(t, c, p.name) })
	}
}

func TestProtocolWelcome(t *testing.T) {
	t.Parallel()
	c, _ := protocolNode(t, 1, func(cfg *Config) { cfg.MaxFrameBytes, cfg.Heartbeat = 4096, 1234*time.Millisecond })
	sessions := map[string]bool{}
	for _, offered := range [][]string{{"tidewire.v1.json"}, nil, {"other", "tidewire.v1.json"}} {
		k, b := dialRaw(t, c.addr(0), &websocket.DialOptions{Subprotocols: offered})
		var w map[string]any
		if err := json.Unmarshal(b, &w); err != nil {
			t.Fatal(err)
		}
		session, _ := w["session"].(string)
		if session == "" || sessions[session] {
			t.Errorf("session %q", session)
		}
		sessions[session] = true
		for field, want := range map[string]any{"op": "welcome", "version": 1.0, "node": "n1", "heartbeat_ms": 1234.0, "max_frame_bytes": 4096.0, "auth": "none"} {
			if w[field] != want {
				t.Errorf("welcome: %s is %v, want %v", field, w[field], want)
			}
		}
		// A browser fails a handshake whose answer names a subprotocol that it did not offer.
		if want := map[bool]string{true: "tidewire.v1.json"}[offered != nil]; k.c.Subprotocol() != want {
			t.Errorf("offered %v: subprotocol %q, want %q", offered, k.c.Subprotocol(), want)
		}
		if f := k.ask(`"op":"ping"`); f.Op != "pong" {
			t.Errorf("ping: %+v", f)
		}
	}
}

func TestProtocolFrames(t *testing.T) {
	t.Parallel()
	c, topic := protocolNode(t, 1, func(cfg *Config) { cfg.MaxFrameBytes = 4096 })
	t.Run("several ops in one frame, answered in order with their ids", func(t *testing.T) {
		k := dial(t, c.addr(0))
		k.raw(`{"op":"ping","id":7}` + "\n" + `{"op":"ping","id":9007199254740991}` + "\r\n\n" + `{"op":"nonsense","id":8}` + "\n" + `{"op":"ping"}` + "\n")
		for i, want := range []frame{{Op: "pong", ID: 7}, {Op: "pong", ID: 1<<53 - 1}, {Op: "error", ID: 8, Code: "bad_request"}, {Op: "pong"}} {
			f := k.next()
			if f.Op != want.Op || f.ID != want.ID || f.Code != want.Code {
				t.Errorf("answer %d: %+v, want %+v", i, f, want)
			}
		}
	})
	t.Run("no id echoed where none was given", func(t *testing.T) {
		k := dial(t, c.addr(0))
		k.raw(`{"op":"ping"}`)
		if b := string(k.bytes()); strings.Contains(b, "id") {
			t.Errorf("pong without an id: %s", b)
		}
	})
	bad := []string{
		`{`, `x`, `[]`, `"x"`, `7`, `null`, `{}`, `{"id":1}`, `{"op":7}`, `{"op":null}`, `{"op":"Ping"}`, `{"op":"welcome"}`,
		`{"op":"ping","id":0}`, `{"op":"ping","id":-1}`, `{"op":"ping","id":1.5}`, `{"op":"ping","id":"1"}`,
		`{"op":"ping","id":9007199254740992}`, `{"op":"ping","id":99999999999999999999999}`, `{"op":"ping"}{"op":"ping"}`, `{"op":"ping",}`,
		`{"op":"sub"}`, `{"op":"sub","subject":7}`, `{"op":"sub","subject":null}`, `{"op":"unsub"}`, `{"op":"pub"}`,
		`{"op":"sub","subject":"/` + topic + `","history":-2}`, `{"op":"sub","subject":"/` + topic + `","history":1.5}`,
		`{"op":"sub","subject":"/` + topic + `","history":"1"}`, `{"op":"sub","subject":"/` + topic + `","history":99999999999999999999999}`,
		`{"op":"sub","subject":"/` + topic + `","conflate_ms":-1}`, `{"op":"sub","subject":"/` + topic + `","conflate_ms":"x"}`,
		strings.Repeat("[", 4000), `{"op":"ping","x":` + strings.Repeat("[", 3000),
	}
	for _, text := range bad {
		k := dial(t, c.addr(0))
		k.raw(text)
		if f := k.next(); f.Op != "error" || f.Code != "bad_request" || f.Message == "" || f.RetryMS != 0 {
			t.Errorf("%.60s: answered %+v", text, f)
		}
		if f := k.ask(`"op":"ping"`); f.Op != "pong" {
			t.Errorf("%.60s: the session does not go on: %+v", text, f)
		}
	}
	t.Run("a field that is not known is ignored", func(t *testing.T) {
		if f := dial(t, c.addr(0)).ask(`"op":"ping","more":{"x":[1]}`); f.Op != "pong" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("conflate_ms 0 is the default", func(t *testing.T) { dial(t, c.addr(0)).sub("/"+topic, `,"conflate_ms":0`) })
	t.Run("auth while none is configured", func(t *testing.T) {
		k := dial(t, c.addr(0))
		k.raw(`{"op":"auth","id":1,"token":"x"}`)
		if b := string(k.bytes()); !strings.Contains(b, `"authed"`) || !strings.Contains(b, `"expires":null`) {
			t.Errorf("auth: %s", b)
		}
		k.refused("bad_request", `"op":"auth"`)
		k.refused("bad_request", `"op":"auth","token":7`)
	})
	for name, tc := range map[string]struct {
		kind websocket.MessageType
		data string
		code websocket.StatusCode
	}{
		"over max_frame_bytes": {websocket.MessageText, `{"op":"ping","x":"` + strings.Repeat("x", 4096) + `"}`, 1009},
		"not UTF-8":            {websocket.MessageText, "{\"op\":\"ping\",\"x\":\"\xff\"}", 1007},
	} {
		t.Run(name, func(t *testing.T) {
			k := dial(t, c.addr(0))
			if err := k.c.Write(k.ctx, tc.kind, []byte(tc.data)); err != nil {
				t.Fatal(err)
			}
			if _, ce := k.closed(); ce.Code != tc.code {
				t.Errorf("closed with %v, want %d", ce, tc.code)
			}
		})
	}
	t.Run("a frame of exactly max_frame_bytes", func(t *testing.T) {
		k := dial(t, c.addr(0))
		text := `{"op":"ping","x":""}`
		k.raw(strings.Replace(text, `""`, `"`+strings.Repeat("x", 4096-len(text))+`"`, 1))
		k.want("pong")
	})
	t.Run("a binary frame harms nobody", func(t *testing.T) {
		k := dial(t, c.addr(0))
		if err := k.c.Write(k.ctx, websocket.MessageBinary, []byte(`{"op":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := k.c.Read(k.ctx); err == nil {
			if f := parse(t, b); f.Op != "error" || f.Code != "bad_request" {
				t.Errorf("answered %+v", f)
			}
		} else if ce := (websocket.CloseError{}); !errors.As(err, &ce) || ce.Code != websocket.StatusUnsupportedData {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("too many bad requests", func(t *testing.T) {
		k := dial(t, c.addr(0))
		go func() { // the server may close before all are written
			for range 100 {
				if k.c.Write(k.ctx, websocket.MessageText, []byte(strings.Repeat("x\n", 1000))) != nil {
					return
				}
			}
		}()
		last, ce := k.closed()
		if ce.Code != 4009 {
			t.Errorf("closed with %v, want 4009", ce)
		}
		if last == nil || last.Op != "bye" || last.RetryMS <= 0 {
			t.Errorf("before the close came %+v, want bye", last)
		}
	})
}

func TestProtocolHeartbeat(t *testing.T) {
	t.Parallel()
	const every = 200 * time.Millisecond
	c, _ := protocolNode(t, 1, func(cfg *Config) { cfg.Heartbeat = every })
	start := time.Now() // the node's clock runs before dial returns
	k := dial(t, c.addr(0))
	for i := range 3 {
		if f := parse(t, k.bytes()); f.Op != "hb" {
			t.Fatalf("want hb, got %+v", f)
		}
		if d := time.Since(start); d < time.Duration(i+1)*every/2 {
			t.Errorf("heartbeat %d after %v: too often", i, d)
		}
	}
	if d := time.Since(start); d > waitTime/2 {
		t.Errorf("three heartbeats took %v", d)
	}
	// Nothing is sent for an unknown time while pings are answered: no heartbeat comes between two
	// pongs that are closer than the interval.
	for range 3 {
		before := time.Now()
		f := k.ask(`"op":"ping"`)
		if f.Op != "pong" || time.Since(before) > waitTime/2 {
			t.Errorf("ping: %+v", f)
		}
	}
}
