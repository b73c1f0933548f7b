package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/net/idna"
)

// ACMEConfig says for whom certificates are asked, and of whom. Domains and Dir are required.
type ACMEConfig struct {
	Domains   []string
	Email     string // where the authority writes to
	Directory string // the authority's directory; empty: Let's Encrypt's
	Dir       string // where accounts and certificates are kept
	Log       zerolog.Logger
}

// ACME gets certificates from an ACME authority (RFC 8555) and renews them. The authority asks back on the port that
// the certificates are for (TLS-ALPN-01, RFC 8737), under the domain's name and port 443.
//
// A handshake never waits for the authority: Run asks for the certificates, and until one is there its domain's
// handshakes fail.
type ACME struct {
	domains []string // as they stand in a handshake
	manager *autocert.Manager
	asks    *acmeTransport
	log     zerolog.Logger

	mu    sync.Mutex
	ready map[string]bool
	ends  map[string]time.Time
}

// ErrNoCertificateYet is the error of a handshake for a domain whose certificate has not come yet.
var ErrNoCertificateYet = errors.New("the authority has not given a certificate for this name yet")

// NewACME checks the domains. Nothing is asked before Run.
func NewACME(cfg ACMEConfig) (*ACME, error) {
	a := &ACME{log: cfg.Log, asks: newACMETransport(), ready: map[string]bool{}, ends: map[string]time.Time{}}
	for _, d := range cfg.Domains {
		name, err := idna.Lookup.ToASCII(d)
		if err != nil || !strings.Contains(strings.Trim(name, "."), ".") || strings.ContainsAny(name, "*:/") || net.ParseIP(name) != nil {
			return nil, fmt.Errorf("%q is not a domain that a certificate can be asked for: want a full name such as live.example.com, no * and no address", d)
		}
		a.domains = append(a.domains, name)
	}
	if len(a.domains) == 0 {
		return nil, errors.New("no domain is given")
	}
	a.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(cfg.Dir), HostPolicy: autocert.HostWhitelist(a.domains...), Email: cfg.Email,
		Client: &acme.Client{DirectoryURL: cfg.Directory, UserAgent: "tidewire", HTTPClient: &http.Client{Transport: a.asks, Timeout: acmeTimeout}},
	}
	if cfg.Directory == "" {
		a.manager.Client.DirectoryURL = autocert.DefaultACMEDirectory
	}
	return a, nil
}

// TLS is the configuration of the port: with the authority's protocol beside HTTP's.
func (a *ACME) TLS() *tls.Config {
	return &tls.Config{GetCertificate: a.GetCertificate, NextProtos: []string{"http/1.1", acme.ALPNProto}}
}

// GetCertificate is what tls.Config wants. A client that names no host gets the first domain's certificate.
func (a *ACME) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto {
		return a.manager.GetCertificate(hello)
	}
	name := a.domains[0]
	if hello.ServerName != "" {
		var err error
		if name, err = idna.Lookup.ToASCII(strings.TrimSuffix(hello.ServerName, ".")); err != nil {
			return nil, errors.New("the name in the handshake is none")
		}
	}
	a.mu.Lock()
	ready := a.ready[name]
	a.mu.Unlock()
	if !ready {
		return nil, ErrNoCertificateYet
	}
	cert, err := a.manager.GetCertificate(helloFor(name))
	if err == nil && cert.Leaf != nil {
		a.note(name, cert)
	}
	return cert, err
}

// helloFor asks the manager for the one kind of certificate that Run got: for a client of another kind it would ask the
// authority on the spot.
func helloFor(name string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName: name, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
	}
}

func (a *ACME) note(name string, cert *tls.Certificate) {
	a.mu.Lock()
	a.ready[name], a.ends[name] = true, cert.Leaf.NotAfter
	a.mu.Unlock()
}

// NotAfter is when the first of the certificates ends; zero while there is none.
func (a *ACME) NotAfter() (first time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, end := range a.ends {
		if first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}

const (
	acmeRetry    = 30 * time.Second // after a failure, doubled each time
	acmeRetryMax = time.Hour        // authorities bound how many failures they hear of
	acmeRefresh  = time.Minute
)

// Run gets the certificates that are not there, and looks after them until ctx ends. The port must be served meanwhile.
func (a *ACME) Run(ctx context.Context) {
	defer a.asks.base.CloseIdleConnections()
	defer context.AfterFunc(ctx, a.asks.stop)()
	var wg sync.WaitGroup
	for _, name := range a.domains {
		wg.Go(func() { a.keep(ctx, name) })
	}
	wg.Wait()
}

func (a *ACME) keep(ctx context.Context, name string) {
	retry := acmeRetry
	for ctx.Err() == nil {
		wait := acmeRefresh
		// The manager takes no context: acmeTransport ends what it does.
		cert, err := a.manager.GetCertificate(helloFor(name))
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			a.log.Error().Err(err).Str("domain", name).Dur("retry_ms", retry).Msg("no certificate from the ACME authority")
			wait, retry = retry, min(2*retry, acmeRetryMax)
		default:
			a.mu.Lock()
			first := !a.ready[name]
			a.mu.Unlock()
			a.note(name, cert)
			if retry = acmeRetry; first {
				a.log.Info().Str("domain", name).Time("not_after", cert.Leaf.NotAfter).Msg("certificate from the ACME authority")
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// acmeTransport carries the questions to the authority until it is stopped.
type acmeTransport struct {
	base *http.Transport
	ctx  context.Context
	stop context.CancelFunc
}

const (
	acmeTimeout = 30 * time.Second // of one question
	// maxRetryAfter bounds for how long the authority may have the manager sleep, which nothing ends.
	maxRetryAfter = 5 * time.Second
)

var errStopped = errors.New("the node stops")

func newACMETransport() *acmeTransport {
	t := &acmeTransport{base: http.DefaultTransport.(*http.Transport).Clone()}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

func (t *acmeTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.ctx.Err() != nil {
		return nil, errStopped
	}
	ctx, cancel := context.WithCancel(r.Context())
	ended := context.AfterFunc(t.ctx, cancel)
	resp, err := t.base.RoundTrip(r.WithContext(ctx))
	if err != nil {
		ended()
		cancel()
		return nil, err
	}
	resp.Body = &endingBody{resp.Body, func() { ended(); cancel() }}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.Header.Get("Retry-After") != "" && (err != nil || n > int(maxRetryAfter.Seconds())) {
		resp.Header.Set("Retry-After", strconv.Itoa(int(maxRetryAfter.Seconds())))
	}
	return resp, nil
}

type endingBody struct {
	io.ReadCloser
	end func()
}

func (b *endingBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}
