package bench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// walls are what local nodes have between strangers and their subscribers, and what clients need to get in.
// The zero value is nodes that are open to all.
type walls struct {
	env    []string    // of the nodes
	tls    *tls.Config // of the clients; nil: the nodes' ports are without
	secret []byte      // of the tokens; nil: none is asked for
}

// wallsFor is how long certificate and tokens hold: longer than any bench takes. A node refuses a token of more than 30 days.
const wallsFor = 7 * 24 * time.Hour

// wallsOf makes what the name of a server says.
func (b *bench) wallsOf(server string) (w walls, err error) {
	if server == ServerJWT || server == ServerTLSJWT {
		w.secret = []byte(rand.Text() + rand.Text()) // 52 characters; HS256 wants 32
		w.env = append(w.env, "TIDEWIRE_AUTH=jwt", "TIDEWIRE_AUTH_JWT_SECRET="+string(w.secret))
	}
	if server == ServerTLS || server == ServerTLSJWT {
		cert, key := filepath.Join(b.o.Dir, "cert.pem"), filepath.Join(b.o.Dir, "key.pem")
		if w.tls, err = writeCertificate(cert, key); err != nil {
			return walls{}, fmt.Errorf("a certificate for the nodes: %w", err)
		}
		w.env = append(w.env, "TIDEWIRE_TLS_CERT="+cert, "TIDEWIRE_TLS_KEY="+key)
	}
	return w, nil
}

// writeCertificate writes a new key on P-256 and a certificate for 127.0.0.1 that vouches for itself, and returns what
// clients that trust it alone need.
func writeCertificate(certFile, keyFile string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tidectl bench"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(wallsFor), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(cert)
	return &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// tokens returns what makes a token for one user after the other, each of whom may read a topic and something of
// his own; nil where none is asked for.
func (w walls) tokens(topic string) func() string {
	if w.secret == nil {
		return nil
	}
	users, now := 0, time.Now()
	return func() string {
		users++
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"sub": fmt.Sprintf("user%06d", users), "iat": now.Unix(), "exp": now.Add(wallsFor).Unix(),
			"tidewire": map[string][]string{"sub": {"/" + topic + "/*", "/orders/${sub}/*"}},
		}).SignedString(w.secret)
		if err != nil {
			panic(fmt.Sprintf("an HMAC of %d bytes of key: %v", len(w.secret), err)) // claims and key are ours
		}
		return text
	}
}

// namedFor is a configuration of clients for one node, whose certificate has to have its name; nil stays nil.
func namedFor(c *tls.Config, host string) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return nil, fmt.Errorf("node %q: want host:port: %w", host, err)
	}
	c = c.Clone()
	c.ServerName = name
	return c, nil
}
