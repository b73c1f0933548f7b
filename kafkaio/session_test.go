package kafkaio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
)

// limitingBroker answers on one connection as a broker does that limits sessions: a request after the end of the
// session, other than for a new one, ends the connection. It is for use in a bubble.
type limitingBroker struct {
	conn  net.Conn
	life  time.Duration
	begun time.Time // of the session

	mu    sync.Mutex
	heard []string // "auth", "ping", "expired"
	auth  string   // what happens to authentications: "" they succeed, "mute", "refuse", "hang up"
}

var limitedVersions = map[protocol.ApiKey]int16{protocol.ApiVersions: 0, protocol.SaslHandshake: 1, protocol.SaslAuthenticate: 1}

func (b *limitingBroker) run() {
	defer func() { _ = b.conn.Close() }()
	for {
		version, id, _, msg, err := protocol.ReadRequest(b.conn)
		if err != nil {
			return
		}
		var res protocol.Message
		switch msg.(type) {
		case *saslhandshake.Request:
			res = &saslhandshake.Response{Mechanisms: []string{"TEST"}}
		case *saslauthenticate.Request:
			b.hear("auth")
			b.mu.Lock()
			auth := b.auth
			b.mu.Unlock()
			answer := &saslauthenticate.Response{SessionLifetimeMs: b.life.Milliseconds()}
			switch auth {
			case "hang up":
				return
			case "mute":
				_, _ = io.Copy(io.Discard, b.conn)
				return
			case "refuse":
				answer.ErrorCode = int16(kafka.SASLAuthenticationFailed)
			}
			res, b.begun = answer, time.Now()
		default:
			if time.Since(b.begun) > b.life {
				b.hear("expired")
				return
			}
			b.hear("ping")
			res = &apiversions.Response{}
		}
		if err := protocol.WriteResponse(b.conn, version, id, res); err != nil {
			return
		}
	}
}

func (b *limitingBroker) hear(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = append(b.heard, what)
}

func (b *limitingBroker) set(auth string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.auth = auth
}

// said returns what was heard since it was last asked.
func (b *limitingBroker) said() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := strings.Join(b.heard, " ")
	b.heard = nil
	return s
}

// testMechanism shows something, or has nothing to show.
type testMechanism struct {
	err     atomic.Pointer[error]
	starts  atomic.Int64
	onStart func() // set before use
}

func (m *testMechanism) Name() string { return "TEST" }

func (m *testMechanism) Start(context.Context) (sasl.StateMachine, []byte, error) {
	m.starts.Add(1)
	if m.onStart != nil {
		m.onStart()
	}
	if err := m.err.Load(); err != nil {
		return nil, nil, *err
	}
	return m, []byte("me"), nil
}

func (m *testMechanism) Next(context.Context, []byte) (bool, []byte, error) { return true, nil, nil }

// session is a connection with a session of ten minutes that begins now.
type session struct {
	*sessionConn
	broker *limitingBroker
	mech   *testMechanism
	logs   *logBuffer
}

const sessionLife = 10 * time.Minute

func inSession(t *testing.T, f func(t *testing.T, s *session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := &session{broker: &limitingBroker{conn: theirs, life: sessionLife, begun: time.Now()}, mech: &testMechanism{}, logs: &logBuffer{}}
		client, err := NewClient(Config{Brokers: []string{"b:1"}, SASL: s.mech, Log: zerolog.New(s.logs)})
		if err != nil {
			t.Fatal(err)
		}
		s.sessionConn = newSessionConn(client, ours, "b:1", limitedVersions, sessionLife)
		done := make(chan struct{})
		go func() { defer close(done); s.broker.run() }()
		defer func() { _ = ours.Close(); <-done }()
		f(t, s)
	})
}

// ping sends a request that is no authentication and reads its answer.
func (s *session) ping(ctx context.Context) error {
	conn := protocol.NewConn(s, "test")
	conn.SetVersions(limitedVersions)
	_, err := RoundTrip(ctx, conn, &apiversions.Request{})
	return err
}

func (s *session) heard(t *testing.T, want string, wantErr error) {
	t.Helper()
	err := s.ping(t.Context())
	if !errors.Is(err, wantErr) || wantErr == nil && err != nil {
		t.Errorf("error %v, want %v", err, wantErr)
	}
	if got := s.broker.said(); got != want {
		t.Errorf("the broker heard %q, want %q", got, want)
	}
}

// A session is renewed in front of the first request that comes when most of it has passed, however late that
// is, and each one that follows.
func TestSessionIsRenewed(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		s.heard(t, "ping", nil)
		time.Sleep(sessionLife * 69 / 100)
		s.heard(t, "ping", nil)
		time.Sleep(sessionLife * 12 / 100)
		s.heard(t, "auth ping", nil)
		s.heard(t, "ping", nil)
		for range 5 {
			time.Sleep(sessionLife * 81 / 100)
			s.heard(t, "auth ping", nil)
		}
		time.Sleep(10 * sessionLife) // an idle connection
		s.heard(t, "auth ping", nil)
		if len(s.logs.lines) != 0 {
			t.Errorf("logged %v", s.logs.lines)
		}
	})
}

// kafka-go sets a deadline for reading when it begins to read: the one that is in force while it writes is that
// of the request before.
func TestSessionIsRenewedWithinItsOwnTime(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sessionLife * 81 / 100)
		if err := s.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		err := protocol.WriteRequest(s, 0, 7, "test", &apiversions.Request{})
		if err != nil || s.broker.said() != "auth ping" {
			t.Errorf("error %v", err)
		}
		if _, err := s.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("the deadline for reading was not put back: %v", err)
		}
	})
}

// While an answer is outstanding the connection is not ours.
func TestSessionIsNotRenewedBetweenAnswers(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		if err := protocol.WriteRequest(s, 0, 1, "test", &apiversions.Request{}); err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		if _, err := io.ReadFull(s, first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(sessionLife * 81 / 100)
		done := make(chan error, 1)
		go func() { done <- protocol.WriteRequest(s, 0, 2, "test", &apiversions.Request{}) }()
		synctest.Wait() // it is in the pipe, and the broker still has the rest of the first answer in hand
		answers := io.MultiReader(bytes.NewReader(first), s)
		for id := range int32(2) {
			if got, _, err := protocol.ReadResponse(answers, protocol.ApiVersions, 0); got != id+1 || err != nil {
				t.Errorf("answer %d, %v", got, err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := s.broker.said(); got != "ping ping" {
			t.Errorf("the broker heard %q", got)
		}
		s.heard(t, "auth ping", nil)
	})
}

// Without credentials the session goes on until its end, and then the error says why.
func TestSessionWithoutCredentials(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		away := errors.New("the issuer is away")
		s.mech.err.Store(&away)
		time.Sleep(sessionLife * 81 / 100)
		s.heard(t, "ping", nil)
		tried := s.mech.starts.Load()
		s.heard(t, "ping", nil)
		if tried == 0 || s.mech.starts.Load() != tried {
			t.Error("it was tried again at once")
		}
		time.Sleep(renewRetry + 1)
		s.heard(t, "ping", nil)
		if n := s.logs.with("warn", "the issuer is away"); n != 2 || len(s.logs.lines) != n {
			t.Errorf("logged %v", s.logs.lines)
		}
		s.mech.err.Store(nil)
		time.Sleep(renewRetry + 1)
		s.heard(t, "auth ping", nil)
		s.mech.err.Store(&away)
		time.Sleep(sessionLife + 1)
		s.heard(t, "", errSessionEnded)
		s.heard(t, "", away) // and for good
	})
}

// A broker that refuses us, or does not answer, ends the connection; who waits for it can stop.
func TestSessionRenewalFails(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		s.broker.set("refuse")
		time.Sleep(sessionLife * 81 / 100)
		s.heard(t, "auth", kafka.SASLAuthenticationFailed)
	})
	inSession(t, func(t *testing.T, s *session) {
		s.broker.set("mute")
		time.Sleep(sessionLife * 81 / 100)
		begun := time.Now()
		if err := s.ping(t.Context()); !isTimeout(err) || time.Since(begun) != defaultDialTimeout {
			t.Errorf("error %v after %v", err, time.Since(begun))
		}
	})
	inSession(t, func(t *testing.T, s *session) {
		s.broker.set("mute")
		time.Sleep(sessionLife * 81 / 100)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		if err := s.ping(ctx); !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(begun))
		}
	})
	inSession(t, func(t *testing.T, s *session) {
		s.broker.set("hang up")
		time.Sleep(sessionLife * 81 / 100)
		var auth *AuthError
		if err := s.ping(t.Context()); !errors.Is(err, errHungUp) || errors.As(err, &auth) {
			t.Errorf("a broker that has gone: %v", err)
		}
	})
	// The wait ends before the first word to the broker.
	inSession(t, func(t *testing.T, s *session) {
		time.Sleep(sessionLife * 81 / 100)
		s.mech.onStart = func() { _ = s.SetDeadline(time.Unix(1, 0)) }
		if err := s.ping(t.Context()); !isTimeout(err) || s.broker.said() != "" {
			t.Errorf("error %v", err)
		}
	})
}

// A connection whose session could not be renewed is of no use, though the error has a code of Kafka in it, as answers
// have after which a connection is used again. Such a one used to go back to the pool, where it gave its old error to
// everybody who asked that broker anything, until the process ended.
func TestPoolKeepsNoBrokenSession(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		w := &wire{conn: protocol.NewConn(s, "test")}
		w.conn.SetVersions(limitedVersions)
		pool := &wirePool{client: s.client, idle: map[string][]*wire{"b:1": {w}}}
		ask := func() error {
			return pool.with(t.Context(), "b:1", func(w *wire) error {
				_, err := RoundTrip(t.Context(), w.conn, &apiversions.Request{})
				return err
			})
		}
		if err := ask(); err != nil || len(pool.idle["b:1"]) != 1 {
			t.Fatalf("%v, %d idle connections", err, len(pool.idle["b:1"]))
		}
		s.broker.set("refuse")
		time.Sleep(sessionLife * 81 / 100)
		_ = s.client.Close() // so that there will be no other connection
		if err := ask(); !errors.Is(err, ErrClosed) || len(pool.idle["b:1"]) != 0 {
			t.Errorf("%v, %d idle connections", err, len(pool.idle["b:1"]))
		}
	})
}

// A deadline that is set meanwhile is for what comes after.
func TestSessionRenewalKeepsItsDeadline(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		time.Sleep(sessionLife * 81 / 100)
		s.mech.onStart = func() { _ = s.SetReadDeadline(time.Now().Add(time.Hour)) }
		s.heard(t, "auth ping", nil)
	})
}

// A session without a limit is left alone.
func TestSessionWithoutEnd(t *testing.T) {
	inSession(t, func(t *testing.T, s *session) {
		s.lasts(0)
		s.broker.life = 1000 * time.Hour
		time.Sleep(900 * time.Hour)
		s.heard(t, "ping", nil)
	})
}

// Frames are counted wherever the stream is cut.
func TestFramesAreCounted(t *testing.T) {
	stream := slices.Concat([]byte{0, 0, 0, 3, 1, 2, 3}, []byte{0, 0, 0, 0}, []byte{0, 0, 1, 0}, make([]byte, 256), []byte{0, 0, 0, 1, 9})
	for _, step := range []int{1, 2, 3, 4, 5, 7, 11, 100, len(stream)} {
		var f frames
		var begun, ended int64
		for part := range slices.Chunk(stream, step) {
			b, e := f.pass(part)
			begun, ended = begun+b, ended+e
		}
		if begun != 4 || ended != 4 || !f.between() {
			t.Errorf("in steps of %d: %d begun, %d ended", step, begun, ended)
		}
		if b, e := f.pass([]byte{0}); b != 1 || e != 0 || f.between() {
			t.Errorf("in steps of %d: the first byte of a frame: %s", step, fmt.Sprint(b, e))
		}
	}
}
