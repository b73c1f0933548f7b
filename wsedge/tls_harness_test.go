package wsedge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// overTLS makes every edge of the tests speak TLS, and their clients too. TestOverTLS sets it; no test of this package
// runs beside another.
var overTLS bool

// newCertificate makes a certificate for 127.0.0.1 that signs itself.
func newCertificate(t testing.TB, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Unix(0, 0) /* the time of bubbles begins in 2000 */, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

var testCertificate = sync.OnceValue(func() tls.Certificate { return newCertificate(nopT{}, 1) })

type nopT struct{ testing.TB }

func (nopT) Helper()           {}
func (nopT) Fatal(args ...any) { panic(args) }

// trusting is a client's configuration that trusts a certificate.
func trusting(c tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(c.Leaf)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// connect opens a connection to the edge as its port wants it.
func (e *edge) connect() net.Conn {
	e.t.Helper()
	return e.connectWith(0)
}

// connectWith is connect with a receive buffer of so many bytes; 0: the system's.
func (e *edge) connectWith(readBuffer int) net.Conn {
	e.t.Helper()
	conn := e.plain()
	if tcp, ok := conn.(*net.TCPConn); ok && readBuffer > 0 {
		_ = tcp.SetReadBuffer(readBuffer)
	}
	return e.sealed(conn)
}

// sealed begins TLS on a connection if the port wants it.
func (e *edge) sealed(conn net.Conn) net.Conn {
	e.t.Helper()
	if e.tls == nil {
		return conn
	}
	sealed := tls.Client(conn, e.tls)
	if err := sealed.Handshake(); err != nil {
		e.t.Fatal(err)
	}
	return sealed
}

// url is the address of a path.
func (e *edge) url(scheme, path string) string {
	if e.tls != nil {
		scheme += "s"
	}
	return scheme + "://" + e.addr + path
}

func (e *edge) transport() *http.Transport {
	tr := &http.Transport{TLSClientConfig: e.tls, DisableKeepAlives: true}
	if e.pipes != nil {
		tr.DialContext = func(context.Context, string, string) (net.Conn, error) { return e.plain(), nil }
	}
	return tr
}
