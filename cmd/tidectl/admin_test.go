package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/internal/certtest"
)

// The token goes to the admin port that was named, and not to where its answer may lead.
func TestAdminTokenIsShown(t *testing.T) {
	const token = "of this test"
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the token went elsewhere")
		}
		http.Error(w, "no", http.StatusTeapot)
	}))
	defer elsewhere.Close()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			http.Error(w, "show something", http.StatusUnauthorized)
		case r.URL.Path == "/members":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		default:
			_, _ = w.Write([]byte(`{"nodes":[]}`))
		}
	}))
	defer node.Close()
	get := func(name string, with bool) string {
		return map[string]string{"TIDECTL_ADMIN": node.Listener.Addr().String(), "TIDECTL_ADMIN_TOKEN": map[bool]string{true: token}[with]}[name]
	}
	for _, with := range []bool{false, true} {
		var out, errs strings.Builder
		e := env{out: &out, err: &errs, get: func(name string) string { return get(name, with) }}
		if err := runStatus(t.Context(), nil, e); (err == nil) != with {
			t.Errorf("status, token: %v: %v", with, err)
		}
		if err := runMembers(t.Context(), nil, e); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("members, token: %v: %v", with, err)
		}
	}
}

// Over TLS a node is asked with a client certificate, and must have one that is trusted.
func TestAdminOverTLS(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Write(t, dir, 1)
	caFile := dir + "/ca.pem"
	certtest.WriteFile(t, caFile, ca.PEM)
	node := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "show something", http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"nodes":[]}`))
	}))
	node.TLS = serverTLS(t, ca)
	node.StartTLS()
	defer node.Close()
	for name, c := range map[string]struct {
		vars map[string]string
		ok   bool
	}{
		"all":            {map[string]string{"TIDECTL_ADMIN_CA": caFile, "TIDECTL_ADMIN_CERT": certFile, "TIDECTL_ADMIN_KEY": keyFile}, true},
		"no certificate": {map[string]string{"TIDECTL_ADMIN_CA": caFile}, false},
		"no trust":       {map[string]string{"TIDECTL_ADMIN_CERT": certFile, "TIDECTL_ADMIN_KEY": keyFile}, false},
		"no key":         {map[string]string{"TIDECTL_ADMIN_CA": caFile, "TIDECTL_ADMIN_CERT": certFile}, false},
		"no such file":   {map[string]string{"TIDECTL_ADMIN_CA": dir + "/none.pem"}, false},
	} {
		var out, errs strings.Builder
		e := env{out: &out, err: &errs, get: func(v string) string {
			if v == "TIDECTL_ADMIN" {
				return node.URL
			}
			return c.vars[v]
		}}
		if err := runStatus(t.Context(), nil, e); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func serverTLS(t *testing.T, ca *certtest.CA) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{ca.Pair(t, 2)}, ClientCAs: ca.Pool(), ClientAuth: tls.VerifyClientCertIfGiven}
}
