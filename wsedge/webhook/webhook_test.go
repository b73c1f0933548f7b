package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/wsedge/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type service struct {
	*httptest.Server
	asked atomic.Int32
	log   bytes.Buffer
	c     *Client
}

func newService(t *testing.T, cfg Config, h http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		h(w, r)
	}))
	u, err := url.Parse(s.URL + "/decide?key=planted")
	if err != nil {
		t.Fatal(err)
	}
	cfg.URL, cfg.Log = u, zerolog.New(&s.log)
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second // machines are busy at times
	}
	s.c = New(cfg)
	t.Cleanup(func() { s.c.Close(); s.Close() })
	return s
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

var question = auth.Question{User: "alice", Session: "s1", Action: auth.ActionSub, Subject: "/orders/*", Claims: json.RawMessage(`{"sub":"alice"}`)}

func TestQuestionAndAnswer(t *testing.T) {
	got := make(chan string, 1)
	s := newService(t, Config{Token: func() string { return "t0ken" }}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Method + " " + r.Header.Get("Authorization") + " " + r.Header.Get("Content-Type") + " " + string(b)
		_, _ = io.WriteString(w, `{"allow":true,"ttl_s":90,"later":"more"}`)
	})
	d, err := s.c.Decide(context.Background(), question)
	if err != nil || !d.Allow || d.For != 90*time.Second {
		t.Errorf("%+v, %v", d, err)
	}
	want := `POST Bearer t0ken application/json {"user":"alice","session":"s1","action":"sub","subject":"/orders/*","claims":{"sub":"alice"}}`
	if q := <-got; q != want {
		t.Errorf("asked %s\nwant  %s", q, want)
	}
}

// An answer is used for the very same question and no other, as long as it says.
func TestAnswersAreKept(t *testing.T) {
	ttl := atomic.Int32{}
	ttl.Store(60)
	s := newService(t, Config{Cache: 3}, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"allow":%v,"ttl_s":%d}`, !bytes.Contains(b, []byte(`"/no`)), ttl.Load())
	})
	ask := func(allow bool, asked int32, change func(*auth.Question)) {
		t.Helper()
		q := question
		if change != nil {
			change(&q)
		}
		before := s.asked.Load()
		d, err := s.c.Decide(context.Background(), q)
		if err != nil || d.Allow != allow || d.For <= 0 || d.For > time.Minute || s.asked.Load()-before != asked {
			t.Errorf("%+v: %+v, %v, asked %d times", q, d, err, s.asked.Load()-before)
		}
	}
	ask(true, 1, nil)
	ask(true, 0, nil)
	ask(true, 1, func(q *auth.Question) { q.User = "bob" })
	ask(true, 1, func(q *auth.Question) { q.Session = "s2" })
	ask(true, 0, nil)
	ask(true, 1, func(q *auth.Question) { q.Action = auth.ActionPub })
	ask(true, 1, nil) // the oldest has made room
	ask(false, 1, func(q *auth.Question) { q.Subject = "/no" })
	ask(false, 0, func(q *auth.Question) { q.Subject = "/no" })
	ask(true, 1, func(q *auth.Question) { q.Claims = json.RawMessage(`{"sub":"alice","iat":1}`) })
	ask(true, 0, nil)
	ask(true, 1, func(q *auth.Question) { q.Anew = true })
	if len(s.c.answers) != 3 || len(s.c.order) != 3 {
		t.Errorf("%d answers are kept", len(s.c.answers))
	}
	// One whose time is over is asked for again.
	ttl.Store(1)
	ask(true, 1, func(q *auth.Question) { q.Subject = "/short" })
	s.c.mu.Lock()
	for k, a := range s.c.answers {
		s.c.answers[k] = answer{a.allow, a.until.Add(-time.Hour)}
	}
	s.c.mu.Unlock()
	ask(true, 1, func(q *auth.Question) { q.Subject = "/short" })
}

func TestTTL(t *testing.T) {
	for text, want := range map[string]time.Duration{
		`{"allow":true}`: time.Minute, `{"allow":true,"ttl_s":null}`: time.Minute, `{"allow":true,"ttl_s":0}`: time.Second,
		`{"allow":true,"ttl_s":-5}`: time.Second, `{"allow":true,"ttl_s":1.5}`: 1500 * time.Millisecond, `{"allow":true,"ttl_s":1e300}`: 24 * time.Hour,
	} {
		s := newService(t, Config{}, say(text))
		if d, err := s.c.Decide(context.Background(), question); err != nil || !d.Allow || d.For != want {
			t.Errorf("%s: %+v, %v", text, d, err)
		}
	}
}

// Whatever is not an answer is no yes, is not kept, and tells nothing of the address.
func TestNoAnswer(t *testing.T) {
	evil := httptest.NewServer(say(`{"allow":true}`))
	defer evil.Close()
	for name, h := range map[string]http.HandlerFunc{
		"status": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_, _ = io.WriteString(w, `{"allow":true}`)
		},
		"created": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			_, _ = io.WriteString(w, `{"allow":true}`)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
		},
		"empty":     say(""),
		"no JSON":   say("yes"),
		"no allow":  say(`{"ttl_s":60}`),
		"null":      say(`{"allow":null}`),
		"a string":  say(`{"allow":"true"}`),
		"a list":    say(`[{"allow":true}]`),
		"cut short": say(`{"allow":true`),
		"two":       say(`{"allow":true}{"allow":true}`),
		"too long":  say(`{"allow":true}` + strings.Repeat(" ", maxAnswer)),
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client has gone
			<-r.Context().Done()
		},
		"breaks": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg, hangs := Config{}, name == "hangs"
			if hangs {
				cfg.Timeout = 300 * time.Millisecond
			}
			s := newService(t, cfg, h)
			// A busy machine may have been too late to ask at all.
			for n := 0; n < 2 || hangs && s.asked.Load() < 2 && n < 20; n++ {
				d, err := s.c.Decide(context.Background(), question)
				if err == nil || d.Allow || strings.Contains(err.Error(), "planted") {
					t.Errorf("%+v, %v", d, err)
				}
			}
			if s.asked.Load() < 2 && name != "breaks" {
				t.Error("a failure was kept")
			}
			if log := s.log.String(); strings.Count(log, "cannot be asked") != 1 || strings.Contains(log, "planted") {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// However many ask at once, the service has no more than maxAsking questions at a time.
func TestQuestionsAreBounded(t *testing.T) {
	var now, most atomic.Int32
	s := newService(t, Config{Timeout: 20 * time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		_, _ = io.WriteString(w, `{"allow":true}`)
	})
	var wg sync.WaitGroup
	for i := range 4 * maxAsking {
		wg.Go(func() {
			q := question
			q.Subject = fmt.Sprint("/t/", i)
			if _, err := s.c.Decide(context.Background(), q); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > maxAsking || s.asked.Load() != 4*maxAsking {
		t.Errorf("at most %d at once, %d in all", most.Load(), s.asked.Load())
	}
}
