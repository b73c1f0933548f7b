package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/internal/certtest"
)

// authority is as much of an ACME server as one client needs: it believes every signature, asks back with TLS-ALPN-01 on
// an address that a test names, and signs what it is given.
type authority struct {
	t      *testing.T
	ca     *certtest.CA
	server *httptest.Server
	dial   string // in the place of port 443 of any domain

	mu      sync.Mutex
	domain  string
	valid   bool
	cert    []byte
	orders  int
	contact string
	slow    chan struct{} // not nil: an order waits for it
	asked   chan struct{} // closed when one does
}

func newAuthority(t *testing.T, dial string) *authority {
	a := &authority{t: t, ca: certtest.NewCA(t), dial: dial}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	url := func(p string) string { return a.server.URL + p }
	w.Header().Set("Replay-Nonce", fmt.Sprint(time.Now().UnixNano()))
	var signed struct{ Payload string }
	payload := map[string]any{}
	if b, _ := io.ReadAll(r.Body); len(b) > 0 {
		if err := json.Unmarshal(b, &signed); err != nil {
			a.t.Error(err)
		}
		if plain, _ := base64.RawURLEncoding.DecodeString(signed.Payload); len(plain) > 0 {
			_ = json.Unmarshal(plain, &payload)
		}
	}
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	if a.slow != nil && r.URL.Path == "/order" {
		close(a.asked)
		select {
		case <-a.slow:
		case <-r.Context().Done():
			return
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	order := func() map[string]any {
		o := map[string]any{
			"status": "pending", "identifiers": []any{map[string]string{"type": "dns", "value": a.domain}},
			"authorizations": []string{url("/authz")}, "finalize": url("/finalize"),
		}
		if a.valid {
			o["status"] = "ready"
		}
		if a.cert != nil {
			o["status"], o["certificate"] = "valid", url("/cert")
		}
		return o
	}
	challenge := func() map[string]any {
		c := map[string]any{"type": "tls-alpn-01", "url": url("/challenge"), "token": "token", "status": "pending"}
		if a.valid {
			c["status"] = "valid"
		}
		return c
	}
	switch r.URL.Path {
	case "/directory":
		answer(200, map[string]any{"newNonce": url("/nonce"), "newAccount": url("/account"), "newOrder": url("/order"), "meta": map[string]string{"termsOfService": url("/terms")}})
	case "/nonce":
	case "/account":
		if c, ok := payload["contact"].([]any); ok && len(c) == 1 {
			a.contact = c[0].(string)
		}
		w.Header().Set("Location", url("/account/1"))
		answer(201, map[string]any{"status": "valid"})
	case "/order":
		a.orders++
		a.domain = payload["identifiers"].([]any)[0].(map[string]any)["value"].(string)
		a.valid, a.cert = false, nil
		w.Header().Set("Location", url("/order/1"))
		answer(201, order())
	case "/order/1":
		answer(200, order())
	case "/authz":
		status := "pending"
		if a.valid {
			status = "valid"
		}
		answer(200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": a.domain}, "challenges": []any{challenge()}})
	case "/challenge":
		a.valid = a.askBack()
		answer(200, challenge())
	case "/finalize":
		der, _ := base64.RawURLEncoding.DecodeString(payload["csr"].(string))
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			a.t.Error(err)
			return
		}
		a.cert = append(a.ca.Sign(a.t, csr.PublicKey, 77, time.Now().Add(90*24*time.Hour), csr.DNSNames...), a.ca.PEM...)
		w.Header().Set("Location", url("/order/1"))
		answer(200, order())
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(a.cert)
	default:
		a.t.Errorf("the authority was asked for %s", r.URL.Path)
		http.NotFound(w, r)
	}
}

// askBack is the authority's side of TLS-ALPN-01 (RFC 8737, section 3).
func (a *authority) askBack() bool {
	conn, err := tls.Dial("tcp", a.dial, &tls.Config{ServerName: a.domain, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		a.t.Logf("asking back: %v", err)
		return false
	}
	defer conn.Close()
	st := conn.ConnectionState()
	leaf := st.PeerCertificates[0]
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) && ext.Critical {
			return st.NegotiatedProtocol == "acme-tls/1" && len(leaf.DNSNames) == 1 && leaf.DNSNames[0] == a.domain
		}
	}
	return false
}

// port is a listener that speaks TLS with a configuration, as the clients' port does.
func port(t *testing.T) (addr string, serve func(*tls.Config)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String(), func(cfg *tls.Config) {
		wg.Go(func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					_ = tls.Server(conn, cfg).Handshake()
					conn.Close()
				})
			}
		})
	}
}

// The certificate is got before a client asks, is shown to those who ask for the name or for none, is kept in the folder for
// the next start, and nobody can have one asked for another name.
func TestACME(t *testing.T) {
	addr, serve := port(t)
	ca := newAuthority(t, addr)
	dir := t.TempDir()
	start := func() (*ACME, func()) {
		a, err := NewACME(ACMEConfig{Domains: []string{"live.example.com"}, Email: "ops@example.com", Directory: ca.server.URL + "/directory", Dir: dir, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); a.Run(ctx) }()
		return a, func() { cancel(); <-done }
	}
	a, stop := start()
	if got := a.TLS().NextProtos; len(got) != 2 || got[0] != "http/1.1" || got[1] != "acme-tls/1" {
		t.Errorf("protocols %q", got)
	}
	serve(a.TLS())
	wait := func(a *ACME) {
		for deadline := time.Now().Add(30 * time.Second); a.NotAfter().IsZero(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no certificate came")
			}
		}
	}
	wait(a)
	for _, name := range []string{"live.example.com", "LIVE.example.com", ""} {
		cfg := &tls.Config{ServerName: name, RootCAs: ca.ca.Pool(), InsecureSkipVerify: name == ""}
		conn, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if n := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); n != 77 {
			t.Errorf("%q: certificate %d", name, n)
		}
		conn.Close()
	}
	for range 3 {
		if conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "evil.example.com", InsecureSkipVerify: true}); err == nil {
			conn.Close()
			t.Error("a handshake for another name went on")
		}
	}
	stop()
	again, stop := start()
	wait(again)
	stop()
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.orders != 1 || ca.contact != "mailto:ops@example.com" {
		t.Errorf("%d orders, contact %q", ca.orders, ca.contact)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others", path.Join(dir, f.Name()))
		}
	}
}

// An authority that does not answer holds up neither a handshake nor the stop.
func TestSlowAuthority(t *testing.T) {
	ca := newAuthority(t, "127.0.0.1:1")
	ca.slow, ca.asked = make(chan struct{}), make(chan struct{})
	a, err := NewACME(ACMEConfig{Domains: []string{"live.example.com"}, Directory: ca.server.URL + "/directory", Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	<-ca.asked
	answered := make(chan error, 1)
	go func() {
		_, err := a.GetCertificate(&tls.ClientHelloInfo{ServerName: "live.example.com"})
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != ErrNoCertificateYet {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the handshake waits for the authority")
	}
	cancel()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the stop waits for the authority")
	}
	close(ca.slow)
}

func TestACMEDomains(t *testing.T) {
	for _, bad := range []string{"", "*.example.com", "localhost", "10.0.0.1:443", "10.0.0.1", "https://example.com", "a b.example.com"} {
		if _, err := NewACME(ACMEConfig{Domains: []string{bad}, Dir: t.TempDir()}); err == nil {
			t.Errorf("%q was taken", bad)
		} else if bad != "" && !strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := NewACME(ACMEConfig{Dir: t.TempDir()}); err == nil {
		t.Error("no domain was taken")
	}
}
