package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// A node with a certificate speaks TLS to its clients, shows a new certificate to new connections when the files change,
// and says when it ends. Those that are connected stay.
func TestClientsOverTLS(t *testing.T) {
	t.Parallel()
	ca, dir := certtest.NewCA(t), t.TempDir()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	c := startCluster(t, k, 1, k.topic(t, 1, nil), func(cfg *Config) {
		cfg.Groups = 1
		cfg.TLS.Cert, cfg.TLS.Key = ca.Write(t, dir, 7)
	})
	a := c.nodes[0]
	client := &http.Client{Timeout: waitTime, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, DisableKeepAlives: true}}
	serial := func() int64 {
		resp, err := client.Get("https://" + a.node.Addr() + "/none")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 7 {
		t.Fatalf("certificate %d", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "wss://"+a.node.Addr()+"/ws", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, b, err := ws.Read(ctx); err != nil || !strings.Contains(string(b), "welcome") {
		t.Fatal(err, string(b))
	}
	ca.Write(t, dir, 8)
	eventually(t, "the new certificate", func() bool { return serial() == 8 })
	if err := ws.Write(ctx, websocket.MessageText, []byte(`{"op":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(ctx); err != nil || !strings.Contains(string(b), "pong") {
		t.Error(err, string(b))
	}
	code, body := a.ask("/metrics")
	for _, want := range []string{
		fmt.Sprintf("tidewire_tls_certificate_not_after_seconds %v\n", float64(a.node.certs.NotAfter().Unix())),
		`tidewire_tls_certificate_reloads_total{outcome="ok"} 1` + "\n", `tidewire_tls_certificate_reloads_total{outcome="failed"} 0` + "\n",
	} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%d, no %q", code, want)
		}
	}
}

func TestWrongTLSIsNamed(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Write(t, dir, 1)
	type set = map[string]string
	allRefused(t, "TIDEWIRE_", "", []refused{
		{set{"TLS_CERT": certFile}, []string{"TIDEWIRE_TLS_KEY", "required with TIDEWIRE_TLS_CERT"}},
		{set{"TLS_KEY": keyFile}, []string{"TIDEWIRE_TLS_CERT", "required with TIDEWIRE_TLS_KEY"}},
		{set{"TLS_CERT": keyFile, "TLS_KEY": keyFile}, []string{"TIDEWIRE_TLS_CERT", keyFile, "PEM"}},
		{set{"ACME_EMAIL": "a@b"}, []string{"TIDEWIRE_ACME_EMAIL", "TIDEWIRE_ACME_DOMAINS"}},
		{set{"ACME_DOMAINS": "*.example.com"}, []string{"TIDEWIRE_ACME_DOMAINS", "*.example.com", "full name"}},
		{set{"ACME_DOMAINS": "a.example.com", "ACME_DIRECTORY": "http://ca"}, []string{"TIDEWIRE_ACME_DIRECTORY", "https://"}},
		{set{"ACME_DOMAINS": "a.example.com", "ACME_EMAIL": "ops"}, []string{"TIDEWIRE_ACME_EMAIL", "ops@example.com"}},
		{set{"ACME_DOMAINS": "a.example.com", "TLS_CERT": certFile, "TLS_KEY": keyFile}, []string{"TIDEWIRE_ACME_DOMAINS", "one of the two"}},
	})
	setEnv(t, map[string]string{"TIDEWIRE_TLS_CERT": certFile, "TIDEWIRE_TLS_KEY": keyFile})
	if cfg, err := FromEnv(); err != nil || cfg.TLS.Cert != certFile || cfg.TLS.Key != keyFile {
		t.Error(err, cfg.TLS)
	}
}
