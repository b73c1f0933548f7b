package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
)

// What a node's admin port may want to be shown comes from the environment, as flags can be seen by everybody on the machine:
//
//	TIDECTL_ADMIN_TOKEN                      the node's TIDEWIRE_ADMIN_TOKEN
//	TIDECTL_ADMIN_CERT, TIDECTL_ADMIN_KEY    a client certificate, PEM files
//	TIDECTL_ADMIN_CA                         whom to trust when the address begins with https://, PEM file; else the system's
//
// adminTransport makes base show it.
func adminTransport(e env, base *http.Transport) (http.RoundTripper, error) {
	cfg := &tls.Config{}
	if name := e.get("TIDECTL_ADMIN_CA"); name != "" {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("TIDECTL_ADMIN_CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("TIDECTL_ADMIN_CA: there is no PEM certificate in %s", name)
		}
	}
	if cert, key := e.get("TIDECTL_ADMIN_CERT"), e.get("TIDECTL_ADMIN_KEY"); cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("TIDECTL_ADMIN_CERT, TIDECTL_ADMIN_KEY: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	base.TLSClientConfig = cfg
	return &tokenTransport{base: base, token: e.get("TIDECTL_ADMIN_TOKEN")}, nil
}

// tokenTransport puts the token into every request, but for those that an answer redirected to: they may lead anywhere.
type tokenTransport struct {
	base  http.RoundTripper
	token string
}

func (t *tokenTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.token != "" && r.Response == nil {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+t.token)
	}
	return t.base.RoundTrip(r)
}
