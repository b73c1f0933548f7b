package peertls

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Files are where a node's certificate is, all PEM, and whom it lets in.
type Files struct {
	// CA holds the certificates of the authorities that sign the nodes': mostly one, two while one replaces the other.
	CA string
	// Cert is this node's certificate, with the intermediate ones after it if there are any, and Key its key.
	Cert, Key string
	// Names are those of which a node that connects must have one in its certificate; a name that begins with "*."
	// stands for all with one label there. Empty: every certificate that the CA signed for a client will do, so
	// the CA must be the cluster's own.
	Names []string
	// Self are the names by which the other nodes look for this one: its id, and the host that they dial. Its
	// certificate must have one of them.
	Self []string
}

// maxFile bounds what is read of one of the files.
const maxFile = 1 << 20

// lookEvery is how often the files are looked at, at most, while there are connections to make.
const lookEvery = time.Second

// certificates prove nodes by certificates of one CA. They are read again when they have changed, by who needs
// them next: a connection that is made. Those there are stay.
type certificates struct {
	files Files
	log   zerolog.Logger

	mu     sync.Mutex
	looked time.Time
	seen   [][]byte // the files' content when they were last looked at
	now    *identity
}

// identity is what the files say, once.
type identity struct {
	roots *x509.CertPool
	cert  tls.Certificate
}

// FromFiles reads the files and proves nodes by them. The error names the file, and what is wrong with it. Later
// changes of the files are followed; what is wrong with those is logged, and the old ones stay in force.
func FromFiles(files Files, log zerolog.Logger) (Security, error) {
	c := &certificates{files: files, log: log, looked: time.Now()}
	var err error
	if c.seen, err = files.read(); err != nil {
		return nil, err
	}
	if c.now, err = files.parse(c.seen, time.Now()); err != nil {
		return nil, err
	}
	c.log.Info().Str("ca", files.CA).Str("cert", files.Cert).Time("not_after", c.now.cert.Leaf.NotAfter).Msg("certificate of the cluster port")
	return c, nil
}

func (c *certificates) String() string { return "TLS, certificates of " + c.files.CA }

func (c *certificates) Dial(nc net.Conn, peer Peer) (net.Conn, error) {
	id := c.identity()
	cfg := base()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil }
	// The library would look for one name; there are two, of which either will do. And it would say which.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		leaf, err := id.verify(s, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		return named(leaf, []string{peer.ID, peer.Host})
	}
	l := &limited{Conn: nc, left: maxHandshake}
	return handshake(l, tls.Client(l, cfg), func(tc *tls.Conn) error {
		// TLS lets a client believe that all is well before the server has seen its certificate.
		_, err := io.ReadFull(tc, make([]byte, 1))
		return err
	})
}

func (c *certificates) Accept(nc net.Conn) (net.Conn, error) {
	id := c.identity()
	cfg := base()
	cfg.Certificates = []tls.Certificate{id.cert}
	// Checked below. If the library did it, it would tell everybody the name of the CA.
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		leaf, err := id.verify(s, x509.ExtKeyUsageClientAuth)
		if err != nil || len(c.files.Names) == 0 {
			return err
		}
		return named(leaf, c.files.Names)
	}
	l := &limited{Conn: nc, left: maxHandshake}
	return handshake(l, tls.Server(l, cfg), func(tc *tls.Conn) error {
		_, err := tc.Write([]byte{1})
		return err
	})
}

// identity returns what is in force, after a look at the files if the last one is a while ago.
func (c *certificates) identity() *identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		c.look(now)
	}
	return c.now
}

func (c *certificates) look(now time.Time) {
	content, err := c.files.read()
	if err == nil && slices.EqualFunc(content, c.seen, bytes.Equal) {
		return
	}
	if err != nil && c.seen == nil {
		return // told
	}
	c.seen = content
	id := c.now
	if err == nil {
		id, err = c.files.parse(content, now)
	}
	if err != nil {
		c.log.Error().Err(err).Time("not_after", c.now.cert.Leaf.NotAfter).Msg("new certificate of the cluster port is no good: the old one stays")
		return
	}
	c.now = id
	c.log.Info().Str("cert", c.files.Cert).Time("not_after", id.cert.Leaf.NotAfter).Msg("new certificate of the cluster port")
}

func (f Files) read() ([][]byte, error) {
	var out [][]byte
	for _, name := range []string{f.CA, f.Cert, f.Key} {
		b, err := readFile(name)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	return b, err
}

// parse makes sense of the files, and sees that the certificate will do for the other nodes.
func (f Files) parse(content [][]byte, now time.Time) (*identity, error) {
	id := &identity{roots: x509.NewCertPool()}
	if !id.roots.AppendCertsFromPEM(content[0]) {
		return nil, fmt.Errorf("%s: no PEM certificates in it", f.CA)
	}
	var err error
	if id.cert, err = tls.X509KeyPair(content[1], content[2]); err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Cert, f.Key, err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := id.chain(id.cert.Certificate, usage, now); err != nil {
			return nil, fmt.Errorf("%s: not good for %s: %w: want one that %s signed, for servers and clients", f.Cert, usageName(usage), err, f.CA)
		}
	}
	if err := named(id.cert.Leaf, f.Self); err != nil {
		return nil, fmt.Errorf("%s: the other nodes would not take it: %w", f.Cert, err)
	}
	if len(f.Names) > 0 {
		if err := named(id.cert.Leaf, f.Names); err != nil {
			return nil, fmt.Errorf("%s: the other nodes would not let it in: %w", f.Cert, err)
		}
	}
	return id, nil
}

func usageName(u x509.ExtKeyUsage) string {
	if u == x509.ExtKeyUsageClientAuth {
		return "a client"
	}
	return "a server"
}

// verify checks what the other side has shown.
func (id *identity) verify(s tls.ConnectionState, usage x509.ExtKeyUsage) (*x509.Certificate, error) {
	if err := checkProtocol(s); err != nil {
		return nil, err
	}
	return verify(s.PeerCertificates, id.roots, usage, time.Now())
}

func (id *identity) chain(der [][]byte, usage x509.ExtKeyUsage, now time.Time) (*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, d := range der {
		c, err := x509.ParseCertificate(d)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return verify(certs, id.roots, usage, now)
}

func verify(certs []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) (*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}, CurrentTime: now})
	return certs[0], err
}

// named says whether a certificate has one of some names.
func named(leaf *x509.Certificate, names []string) error {
	for _, name := range names {
		if suffix, wild := strings.CutPrefix(name, "*"); wild {
			if slices.ContainsFunc(leaf.DNSNames, func(n string) bool {
				first, rest, ok := strings.Cut(n, ".")
				return ok && first != "" && strings.EqualFold("."+rest, suffix)
			}) {
				return nil
			}
		} else if name != "" && leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	var has []string
	has = append(has, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		has = append(has, ip.String())
	}
	return fmt.Errorf("the certificate is of %q, none of which is one of %q", has, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" }))
}
