package kafkatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certFiles are the PEM files of a cluster with TLS. They are made anew for each
// cluster, so nothing in the tree expires.
type certFiles struct {
	ca         string // the authority's certificate
	serverPair string // the brokers' private key and certificate, as Kafka wants them: in one file
	clientCert string
	clientKey  string
}

// certLife is how long the certificates hold; they begin an hour ago.
const certLife = 24 * time.Hour

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// writeCerts makes an authority, a certificate for 127.0.0.1 and localhost, and
// one for a client, and writes them into dir.
func writeCerts(dir string) (certFiles, error) {
	f := certFiles{
		ca:         filepath.Join(dir, "ca.pem"),
		serverPair: filepath.Join(dir, "server.pem"),
		clientCert: filepath.Join(dir, "client-cert.pem"),
		clientKey:  filepath.Join(dir, "client-key.pem"),
	}
	ca, err := newAuthority()
	if err != nil {
		return f, err
	}
	serverCert, serverKey, err := ca.issue("tidewire test broker", x509.ExtKeyUsageServerAuth)
	if err != nil {
		return f, err
	}
	clientCert, clientKey, err := ca.issue("tidewire test client", x509.ExtKeyUsageClientAuth)
	if err != nil {
		return f, err
	}
	for file, content := range map[string][]byte{
		f.ca:         ca.pem,
		f.serverPair: append(serverKey, serverCert...),
		f.clientCert: clientCert,
		f.clientKey:  clientKey,
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return f, err
		}
	}
	return f, nil
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "tidewire test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(certLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, pem: pemBlock("CERTIFICATE", der)}, nil
}

// issue returns a certificate and its private key (PKCS #8, the only form Kafka
// reads), both PEM.
func (a *authority) issue(name string, use x509.ExtKeyUsage) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(certLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{use},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &priv.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	return pemBlock("CERTIFICATE", der), pemBlock("PRIVATE KEY", pkcs8), nil
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
