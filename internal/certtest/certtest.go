// Package certtest makes certificates for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs certificates.
type CA struct {
	PEM  []byte
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority of its own.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, _ := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Cert: cert, key: key}
}

// Pool trusts the authority and nobody else.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// Certify signs what a template says of a public key, and returns the certificate in PEM.
func (ca *CA) Certify(t testing.TB, template *x509.Certificate, public any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Cert, public, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Sign signs a public key for 127.0.0.1 and the names, as a server's and a client's.
func (ca *CA) Sign(t testing.TB, public any, serial int64, notAfter time.Time, names ...string) []byte {
	t.Helper()
	return ca.Certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, public)
}

// Issue makes a key and a certificate for it, good for an hour, both in PEM.
func (ca *CA) Issue(t testing.TB, serial int64, names ...string) (cert, key []byte) {
	t.Helper()
	k, text := NewKey(t)
	return ca.Sign(t, &k.PublicKey, serial, time.Now().Add(time.Hour), names...), text
}

// Pair is Issue for a client or server in this process.
func (ca *CA) Pair(t testing.TB, serial int64) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(ca.Issue(t, serial))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Write is Issue into the files cert.pem and key.pem of a folder.
func (ca *CA) Write(t testing.TB, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	cert, key := ca.Issue(t, serial)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	WriteFile(t, certFile, cert)
	WriteFile(t, keyFile, key)
	return certFile, keyFile
}

// WriteFile writes a file, or fails the test.
func WriteFile(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// NewKey makes a key, and the PEM that holds it.
func NewKey(t testing.TB) (key *ecdsa.PrivateKey, text []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
