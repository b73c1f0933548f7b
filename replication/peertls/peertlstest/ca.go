// Package peertlstest makes certificates of nodes for tests.
package peertlstest

import (
	"crypto/x509"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/replication/peertls"
)

// CA is an authority that signs the certificates of nodes.
type CA struct {
	*certtest.CA
	t testing.TB
}

// NewCA makes one.
func NewCA(t testing.TB) *CA {
	t.Helper()
	return &CA{certtest.NewCA(t), t}
}

// Leaf makes a certificate for servers and clients, of names and addresses, and its key. Each change may make it
// another one.
func (ca *CA) Leaf(names []string, changes ...func(*x509.Certificate)) (cert, key []byte) {
	ca.t.Helper()
	k, key := certtest.NewKey(ca.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	for _, change := range changes {
		change(template)
	}
	return ca.Certify(ca.t, template, k.Public()), key
}

// Files puts a certificate of names into a folder, as ca.pem, cert.pem and key.pem.
func (ca *CA) Files(dir string, names []string, changes ...func(*x509.Certificate)) peertls.Files {
	ca.t.Helper()
	f := peertls.Files{CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Self: names}
	cert, key := ca.Leaf(names, changes...)
	certtest.WriteFile(ca.t, f.CA, ca.PEM)
	certtest.WriteFile(ca.t, f.Cert, cert)
	certtest.WriteFile(ca.t, f.Key, key)
	return f
}
