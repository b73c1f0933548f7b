package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidewire/tidewire/cmd/internal/certs"
)

// TLSConfig says where the certificates of the clients' port come from: two files, an ACME authority, or nowhere, which
// leaves the port without TLS.
type TLSConfig struct {
	Cert, Key string // files, PEM

	ACMEDomains   []string
	ACMEEmail     string
	ACMEDirectory string // empty: Let's Encrypt's
}

// certSource is what certs provides.
type certSource interface {
	Run(ctx context.Context)
	NotAfter() time.Time
}

// build reads what there is to read. The source is nil where there is none.
func (n *Node) buildTLS() (cfg *tls.Config, source certSource, err error) {
	c := n.cfg.TLS
	log := n.component("tls")
	files := (*certs.Files)(nil)
	switch {
	case c.Cert != "":
		if files, err = certs.Load(c.Cert, c.Key, log); err != nil {
			return nil, nil, fmt.Errorf("TIDEWIRE_TLS_CERT=%q: %w", c.Cert, err)
		}
		cfg, source = &tls.Config{GetCertificate: files.GetCertificate}, files
	case len(c.ACMEDomains) > 0:
		acme, err := certs.NewACME(certs.ACMEConfig{
			Domains: c.ACMEDomains, Email: c.ACMEEmail, Directory: c.ACMEDirectory, Dir: filepath.Join(n.cfg.DataDir, "acme"), Log: log,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("TIDEWIRE_ACME_DOMAINS=%q: %w", strings.Join(c.ACMEDomains, ","), err)
		}
		cfg, source = acme.TLS(), acme
	}
	n.metrics.watchTLS(source, files)
	return cfg, source, nil
}

// watchTLS adds what there is to say of the certificate of the clients' port; both may be nil.
func (m *metrics) watchTLS(source certSource, files *certs.Files) {
	reloads := func(outcome string, f func(taken, failed int64) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tidewire_tls_certificate_reloads_total",
			Help:        "Changed certificate files of the clients' port, by outcome: ok, failed.",
			ConstLabels: prometheus.Labels{"outcome": outcome}}, func() float64 {
			if files == nil {
				return 0
			}
			return float64(f(files.Reloads()))
		})
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidewire_tls_certificate_not_after_seconds",
			Help: "When the certificate of the clients' port ends, in seconds since 1970; 0: there is none."}, func() float64 {
			if source == nil || source.NotAfter().IsZero() {
				return 0
			}
			return float64(source.NotAfter().Unix())
		}),
		reloads("ok", func(taken, _ int64) int64 { return taken }),
		reloads("failed", func(_, failed int64) int64 { return failed }),
	)
}

// parseTLS reads where the certificates come from. Files are read here already, so that a wrong path stops the start with
// the variable's name.
func (e *env) parseTLS(c *Config, p *problems) {
	c.TLS = TLSConfig{Cert: e.TLSCert, Key: e.TLSKey, ACMEDomains: list(e.ACMEDomains), ACMEEmail: e.ACMEEmail, ACMEDirectory: e.ACMEDirectory}
	p.pair("TIDEWIRE_TLS_CERT", e.TLSCert, "TIDEWIRE_TLS_KEY", e.TLSKey)
	switch {
	case len(c.TLS.ACMEDomains) == 0:
		for _, v := range [][2]string{{"TIDEWIRE_ACME_EMAIL", e.ACMEEmail}, {"TIDEWIRE_ACME_DIRECTORY", e.ACMEDirectory}} {
			if v[1] != "" {
				p.add(v[0], v[1], "given without TIDEWIRE_ACME_DOMAINS: name the domains too, or leave this out")
			}
		}
	case e.TLSCert != "":
		p.add("TIDEWIRE_ACME_DOMAINS", e.ACMEDomains, "TIDEWIRE_TLS_CERT gives a certificate already: want one of the two")
	default:
		if _, err := certs.NewACME(certs.ACMEConfig{Domains: c.TLS.ACMEDomains, Dir: e.DataDir}); err != nil {
			p.add("TIDEWIRE_ACME_DOMAINS", e.ACMEDomains, "%v", err)
		}
		if u, err := url.Parse(e.ACMEDirectory); e.ACMEDirectory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
			p.add("TIDEWIRE_ACME_DIRECTORY", e.ACMEDirectory, "want the https:// address of an authority's directory")
		}
		if e.ACMEEmail != "" && !strings.Contains(e.ACMEEmail, "@") {
			p.add("TIDEWIRE_ACME_EMAIL", e.ACMEEmail, "want an address such as ops@example.com")
		}
	}
}

// pair checks the files of a certificate and its key; both may be missing.
func (p *problems) pair(certName, cert, keyName, key string) {
	switch {
	case cert == "" && key == "":
	case cert == "":
		p.add(certName, "", "required with %s", keyName)
	case key == "":
		p.add(keyName, "", "required with %s", certName)
	default:
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			p.add(certName, cert, "want a PEM certificate whose key is in %s=%s: %v", keyName, key, err)
		}
	}
}

// caFile checks a file of certificates to trust; it may be missing.
func (p *problems) caFile(name, file string) {
	if file == "" {
		return
	}
	if _, err := readCAs(file); err != nil {
		p.add(name, file, "want a file of PEM certificates: %v", err)
	}
}

// readCAs reads a file of certificates to trust.
func readCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return pool, nil
}
