package jwtauth

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// provider serves a key set.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	handler http.HandlerFunc
	asked   int
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked++
		h := p.handler
		p.mu.Unlock()
		h(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *provider) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// jwk is a key as a set has it. public is the key, or the bytes of a secret.
func jwk(t *testing.T, kid string, public any, change ...string) json.RawMessage {
	t.Helper()
	k, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid}, Marshal: jwkset.JWKMarshalOptions{Private: true}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(k.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(change); i += 2 {
		fields[change[i]] = change[i+1]
	}
	raw, err = json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func set(keys ...json.RawMessage) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": keys})
	}
}

func publicOf(name string) crypto.PublicKey { return keyring()[name].Public() }

type fetching struct {
	*Verifier
	log *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func startVerifier(t *testing.T, address string) fetching {
	t.Helper()
	u, err := CheckAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	v := newVerifier(t, Config{JWKS: u, Secret: secretOf(secret), Log: zerolog.New(log)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { v.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return fetching{v, log}
}

// patient makes the last fetch long ago.
func (v fetching) patient() {
	v.jwks.mu.Lock()
	defer v.jwks.mu.Unlock()
	v.jwks.begun = time.Now().Add(-2 * minFetchPause)
}

func (v fetching) takes(t *testing.T, token string) {
	t.Helper()
	if id, err := v.Authenticate(context.Background(), token); err != nil || id.Subject != "alice" {
		t.Errorf("%+v, %v", id, err)
	}
}

func (v fetching) putsOff(t *testing.T, token string) {
	t.Helper()
	_, err := v.Authenticate(context.Background(), token)
	var later *auth.UnavailableError
	if !errors.As(err, &later) || later.RetryAfter <= 0 {
		t.Errorf("want to be put off, got %v", err)
	}
}

func tokenOf(t *testing.T, alg, key, kid string) string {
	t.Helper()
	return sign(t, alg, keyring()[key], claims{"kid": kid}, claims{"sub": "alice"})
}

// A provider changes its keys, and is away in between.
func TestJWKSRotationAndOutage(t *testing.T) {
	p := newProvider(t)
	p.answer(set(jwk(t, "k1", publicOf("RS")), jwk(t, "e1", publicOf("ES256")), jwk(t, "d1", publicOf("EdDSA"))))
	v := startVerifier(t, p.URL)
	one := tokenOf(t, "RS256", "RS", "k1")
	v.takes(t, one) // waits for the first fetch
	v.takes(t, tokenOf(t, "PS384", "RS", "k1"))
	v.takes(t, tokenOf(t, "ES256", "ES256", "e1"))
	v.takes(t, tokenOf(t, "EdDSA", "EdDSA", "d1"))
	v.takes(t, sign(t, "RS512", keyring()["RS"], nil, claims{"sub": "alice"})) // says not which
	v.takes(t, sign(t, "HS256", []byte(secret), nil, claims{"sub": "alice"}))
	refusal(t, v.Verifier, tokenOf(t, "RS256", "RS2", "k1"), "signature")
	refusal(t, v.Verifier, tokenOf(t, "RS256", "RS", "e1"), "no key")

	// Away: who was known still is, who was not is put off.
	p.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusBadGateway) })
	two := tokenOf(t, "RS256", "RS2", "k2")
	v.patient()
	v.putsOff(t, two)
	v.takes(t, one)
	p.answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) })
	v.patient()
	v.putsOff(t, two)
	v.takes(t, one)

	// Back with another key: the first token that has it makes it known, and the old key is none any more.
	p.answer(set(jwk(t, "k2", publicOf("RS2"))))
	v.patient()
	v.takes(t, two)
	v.patient()
	refusal(t, v.Verifier, one, "kid")
	if log := v.log.String(); strings.Count(log, "cannot be fetched") != 1 || strings.Count(log, "can be fetched again") != 1 {
		t.Errorf("logged:\n%s", log)
	}
}

// A node that starts while the provider is away refuses nobody for good, and takes tokens when it is back.
func TestJWKSAwayAtTheStart(t *testing.T) {
	p := newProvider(t)
	p.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "away", http.StatusServiceUnavailable) })
	v := startVerifier(t, p.URL)
	one := tokenOf(t, "RS256", "RS", "k1")
	v.putsOff(t, one)
	v.putsOff(t, one)
	p.answer(set(jwk(t, "k1", publicOf("RS"))))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it tries again by itself
		if _, err := v.Authenticate(context.Background(), one); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// Tokens with key ids that nobody has do not make us a burden to the provider.
func TestJWKSUnknownKeysAreRateLimited(t *testing.T) {
	p := newProvider(t)
	p.answer(set(jwk(t, "k1", publicOf("RS"))))
	v := startVerifier(t, p.URL)
	v.takes(t, tokenOf(t, "RS256", "RS", "k1"))
	v.patient()
	before := p.count()
	var wg sync.WaitGroup
	var mu sync.Mutex
	refusals := 0
	for i := range 200 {
		token := tokenOf(t, "ES256", "ES256", fmt.Sprint("x", i))
		wg.Go(func() {
			_, err := v.Authenticate(context.Background(), token)
			var r *auth.RefusedError
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				t.Error("taken")
			} else if errors.As(err, &r) {
				refusals++
			}
		})
	}
	wg.Wait()
	if n := p.count() - before; n != 1 || refusals == 0 {
		t.Errorf("200 tokens had the set fetched %d times; %d were refused", n, refusals)
	}
	// One that was looked for in vain is refused at once, not put off again and again.
	lost := tokenOf(t, "ES256", "ES256", "lost")
	v.patient()
	refusal(t, v.Verifier, lost, "kid")
	refusal(t, v.Verifier, lost, "kid")
	v.takes(t, tokenOf(t, "RS256", "RS", "k1"))
}

// What is not a set of public keys for signatures is not taken, and what stands beside good keys does no harm.
func TestJWKSStrangeSets(t *testing.T) {
	p := newProvider(t)
	p.answer(set(
		jwk(t, "hmac", []byte(secret)),
		jwk(t, "enc", publicOf("RS2"), "use", "enc"),
		jwk(t, "alg", publicOf("ES384"), "alg", "ES512"),
		json.RawMessage(`{"kty":"XX","kid":"new"}`), json.RawMessage(`{"kty":"RSA","kid":"bad","n":"AQAB","e":"AQAB"}`), json.RawMessage(`17`),
		json.RawMessage(`{"kty":"EC","kid":"offcurve","crv":"P-256","x":"AQ","y":"AQ"}`),
		jwk(t, "x5u", publicOf("ES256"), "x5u", p.URL+"/never"),
		jwk(t, "private", keyring()["EdDSA"]),
		jwk(t, "k1", publicOf("RS")),
	))
	v := startVerifier(t, p.URL)
	v.takes(t, tokenOf(t, "RS256", "RS", "k1"))
	v.takes(t, tokenOf(t, "ES256", "ES256", "x5u"))
	v.takes(t, tokenOf(t, "EdDSA", "EdDSA", "private"))
	v.patient()
	refusal(t, v.Verifier, tokenOf(t, "RS256", "RS2", "enc"), "kid")
	v.patient()
	refusal(t, v.Verifier, tokenOf(t, "ES384", "ES384", "alg"), "kid")
	v.patient()
	refusal(t, v.Verifier, sign(t, "HS256", []byte(secret+"x"), claims{"kid": "hmac"}, claims{"sub": "alice"}), "signature")
}

// Answers that are wrong as a whole leave the keys as they are.
func TestJWKSAnswersThatAreNotTaken(t *testing.T) {
	evil := newProvider(t)
	evil.answer(set(jwk(t, "evil", publicOf("RS2"))))
	p := newProvider(t)
	good := jwk(t, "k1", publicOf("RS"))
	for name, h := range map[string]http.HandlerFunc{
		"redirect to another host": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, evil.URL+"/jwks", http.StatusFound) },
		"redirect without end":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[%s]}%s`, jwk(t, "evil", publicOf("RS2")), strings.Repeat(" ", maxSet))
		},
		"too many": set(manyKeys(good, maxKeys+1)...),
		"no JSON":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no keys":  set(),
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[%s`, jwk(t, "evil", publicOf("RS2")))
		},
		"not 200": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			set(jwk(t, "evil", publicOf("RS2")))(w, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.answer(set(good))
			v := startVerifier(t, p.URL)
			v.takes(t, tokenOf(t, "RS256", "RS", "k1"))
			p.answer(h)
			v.patient()
			v.putsOff(t, tokenOf(t, "RS256", "RS2", "evil"))
			v.takes(t, tokenOf(t, "RS256", "RS", "k1"))
			if !strings.Contains(v.log.String(), "cannot be fetched") {
				t.Errorf("logged: %s", v.log)
			}
		})
	}
	if n := evil.count(); n != 0 {
		t.Errorf("the other host was asked %d times", n)
	}
	// On the same host a redirect is followed.
	mux := http.NewServeMux()
	mux.Handle("/new", set(good))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/new", http.StatusMovedPermanently) })
	p.answer(mux.ServeHTTP)
	startVerifier(t, p.URL+"/old").takes(t, tokenOf(t, "RS256", "RS", "k1"))
}

func manyKeys(key json.RawMessage, n int) (keys []json.RawMessage) {
	for range n {
		keys = append(keys, key)
	}
	return keys
}

// A provider that does not answer keeps a client waiting no longer than its context, and others not at all.
func TestJWKSHangs(t *testing.T) {
	p := newProvider(t)
	p.answer(set(jwk(t, "k1", publicOf("RS"))))
	v := startVerifier(t, p.URL)
	one := tokenOf(t, "RS256", "RS", "k1")
	v.takes(t, one)
	hanging := make(chan struct{})
	p.answer(func(_ http.ResponseWriter, r *http.Request) { close(hanging); <-r.Context().Done() })
	v.patient()
	ctx, cancel := context.WithCancel(context.Background())
	waited := make(chan error, 1)
	go func() {
		_, err := v.Authenticate(ctx, tokenOf(t, "RS256", "RS2", "k2"))
		waited <- err
	}()
	<-hanging
	v.takes(t, one)
	cancel()
	var later *auth.UnavailableError
	if err := <-waited; !errors.As(err, &later) {
		t.Errorf("%v", err)
	}
}

func TestCheckAddress(t *testing.T) {
	for text, word := range map[string]string{
		"https://idp.example.com/jwks.json": "", "http://127.0.0.1:8080/jwks": "", "http://localhost/jwks": "", "http://[::1]:80/jwks": "",
		"http://idp.example.com/jwks": "https", "http://127.0.0.1.example.com/": "https", "ftp://idp/": "address", "idp.example.com": "address", "": "address",
		"https://u:planted@idp.example.com/": "without user", "https://": "address", "file:///etc/passwd": "address", ":": "address",
	} {
		u, err := CheckAddress(text)
		if word == "" && (err != nil || u.String() != text) || word != "" && (err == nil || !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "planted")) {
			t.Errorf("%s: %v, %v", text, u, err)
		}
	}
}

// No answer of a provider makes more than maxKeys keys, or any that is not public.
func FuzzJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"},{"kty":"RSA","n":"AQAB","e":""},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseSet(body)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("%d keys", len(keys))
		}
		for _, k := range keys {
			usable := false
			for _, alg := range Algorithms {
				usable = usable || family(alg) != hmacFamily && fits(alg, k.Key())
			}
			if !usable {
				t.Fatalf("%T", k.Key())
			}
		}
	})
}
