package peertls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/replication/peertls"
	"github.com/tidewire/tidewire/replication/peertls/peertlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ours  = "0123456789abcdef0123456789abcdef"
	other = "0123456789abcdef0123456789abcdee"
)

func fromSecret(t *testing.T, s string) peertls.Security {
	t.Helper()
	out, err := peertls.FromSecret(secret.Of(s), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fromFiles(t *testing.T, f peertls.Files) peertls.Security {
	t.Helper()
	out, err := peertls.FromFiles(f, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pair returns the two ends of a connection over loopback, closed at the end.
func pair(t *testing.T) (dialled, taken net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if dialled, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if taken, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{dialled, taken} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	return dialled, taken
}

// side is what one end came to.
type side struct {
	c   net.Conn
	err error
}

// meet has two nodes prove themselves to each other. Who is refused or refuses closes the connection, as nodes do.
func meet(t *testing.T, dials, accepts peertls.Security, peer peertls.Peer) (d, a side) {
	t.Helper()
	dialled, taken := pair(t)
	done := make(chan side)
	go func() {
		c, err := accepts.Accept(taken)
		if err != nil {
			_ = taken.Close()
		}
		done <- side{c, err}
	}()
	d.c, d.err = dials.Dial(dialled, peer)
	if d.err != nil {
		_ = dialled.Close()
	}
	return d, <-done
}

// talk sees that what one end says arrives at the other, both ways.
func talk(t *testing.T, d, a side) {
	t.Helper()
	if d.err != nil || a.err != nil {
		t.Fatalf("who dials: %v; who accepts: %v", d.err, a.err)
	}
	for _, way := range [][2]net.Conn{{d.c, a.c}, {a.c, d.c}} {
		if _, err := way[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(way[1], got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func refused(t *testing.T, d, a side, why string) {
	t.Helper()
	if !errors.Is(d.err, peertls.ErrNotProven) || !errors.Is(a.err, peertls.ErrNotProven) {
		t.Errorf("who dials: %v; who accepts: %v", d.err, a.err)
	} else if !strings.Contains(d.err.Error()+a.err.Error(), why) {
		t.Errorf("who dials: %v; who accepts: %v: neither says %q", d.err, a.err, why)
	}
}

func TestOneSecret(t *testing.T) {
	d, a := meet(t, fromSecret(t, ours), fromSecret(t, ours), peertls.Peer{})
	talk(t, d, a)
}

func TestOtherSecret(t *testing.T) {
	d, a := meet(t, fromSecret(t, ours), fromSecret(t, other), peertls.Peer{})
	refused(t, d, a, "TIDEWIRE_CLUSTER_SECRET")
	for _, err := range []error{d.err, a.err} {
		if strings.Contains(err.Error(), ours) || strings.Contains(err.Error(), other) {
			t.Errorf("a secret is in %v", err)
		}
	}
}

// A secret that is replaced in its file is in force for the next connections; one that is no good is told once, and
// the old one stays.
func TestSecretIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	certtest.WriteFile(t, file, []byte(ours+"\n"))
	from, err := secret.FromFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var log lockedLog
	follows, err := peertls.FromSecret(from, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	old, young := fromSecret(t, ours), fromSecret(t, other)
	works := func(with peertls.Security) bool {
		d, a := meet(t, with, follows, peertls.Peer{})
		return d.err == nil && a.err == nil
	}
	if !works(old) || works(young) {
		t.Fatal("wrong before it is replaced")
	}
	certtest.WriteFile(t, file, []byte("changeme"))
	const bad = "the old one stays"
	await(t, "it is told", func() bool { return !works(old) || log.count(bad) > 0 })
	for range 3 {
		if !works(old) {
			t.Fatal("the old one does not work any more")
		}
	}
	certtest.WriteFile(t, file, []byte(other))
	await(t, "the new one is in force", func() bool { return works(young) })
	if works(old) || log.count(bad) != 1 || log.count("changeme")+log.count(other) > 0 {
		t.Errorf("the old one works: %v; told %d times", works(old), log.count(bad))
	}
}

func TestWeakSecrets(t *testing.T) {
	for _, s := range []string{"", "changeme", strings.Repeat("a", 64), ours[1:]} {
		if _, err := peertls.FromSecret(secret.Of(s), zerolog.Nop()); !errors.Is(err, peertls.ErrWeakSecret) {
			t.Errorf("%d characters: %v", len(s), err)
		}
	}
}

// stranger is a TLS client that knows how nodes begin, and no secret.
func stranger(t *testing.T, c net.Conn, protocols ...string) *tls.Conn {
	t.Helper()
	return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
}

// counted counts what is read.
type counted struct {
	net.Conn
	read int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read += n
	return n, err
}

// A stranger who dials gets a handshake with a certificate that says nothing, and not one byte after it, whatever
// he says. So he has nothing to try guesses on.
func TestStrangerGetsNothing(t *testing.T) {
	s := fromSecret(t, ours)
	for name, say := range map[string][]byte{"nothing": nil, "a wrong proof": make([]byte, 32), "half a proof": make([]byte, 16)} {
		t.Run(name, func(t *testing.T) {
			dialled, taken := pair(t)
			done := make(chan error)
			go func() {
				_, err := s.Accept(taken)
				_ = taken.Close()
				done <- err
			}()
			raw := &counted{Conn: dialled}
			c := stranger(t, raw, "tidewire-cluster")
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			raw.read = 0
			cert := c.ConnectionState().PeerCertificates[0]
			if len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.Subject.Names)+len(cert.Issuer.Names) > 0 || cert.NotBefore.Year() != 2000 {
				t.Errorf("the certificate says something: %v, %v, %v", cert.DNSNames, cert.Subject, cert.NotBefore)
			}
			_, _ = c.Write(say)
			_ = c.CloseWrite()
			if _, _ = io.ReadAll(c); raw.read > 0 { // tickets neither
				t.Errorf("got %d bytes", raw.read)
			}
			if err := <-done; !errors.Is(err, peertls.ErrNotProven) {
				t.Error(err)
			}
		})
	}
}

// A connection that was meant for another service (RFC 7301) is none of ours, proof or not.
func TestOtherProtocol(t *testing.T) {
	ca := peertlstest.NewCA(t)
	secrets, files := fromSecret(t, ours), fromFiles(t, ca.Files(t.TempDir(), []string{"n1"}))
	cert, key := ca.Leaf([]string{"n2"})
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]peertls.Security{"secret": secrets, "CA": files} {
		for _, protocols := range [][]string{{"tidewire-cluster"}, nil, {"h2"}} {
			dialled, taken := pair(t)
			done := make(chan error)
			go func() {
				_, err := s.Accept(taken)
				_ = taken.Close()
				done <- err
			}()
			c := tls.Client(dialled, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols, Certificates: []tls.Certificate{own}})
			if c.Handshake() == nil && s == secrets {
				_, _ = c.Write(peertls.Proof(t, s, c))
			}
			_, _ = c.Read(make([]byte, 1))
			_ = dialled.Close()
			if err := <-done; (err == nil) != (len(protocols) > 0 && protocols[0] == "tidewire-cluster") {
				t.Errorf("%s, %v: %v", name, protocols, err)
			}
		}
	}
}

// Somebody who takes a node's place cannot prove that he is one by sending its peer's proof back.
func TestProofSentBack(t *testing.T) {
	dialled, taken := pair(t)
	cert, key := peertlstest.NewCA(t).Leaf([]string{"x"})
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c := tls.Server(taken, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"tidewire-cluster"}})
		proof := make([]byte, 32)
		if _, err := io.ReadFull(c, proof); err != nil {
			t.Error(err)
		}
		_, _ = c.Write(proof)
	}()
	if _, err := fromSecret(t, ours).Dial(dialled, peertls.Peer{}); !errors.Is(err, peertls.ErrNotProven) {
		t.Errorf("%v", err)
	}
	<-done
}

// Somebody between two nodes, with a TLS connection to each, cannot pass on what they prove to him.
func TestProofPassedOn(t *testing.T) {
	left, leftTaken := pair(t)
	right, rightTaken := pair(t)
	s := fromSecret(t, ours)
	cert, key := peertlstest.NewCA(t).Leaf([]string{"x"})
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		from := tls.Server(leftTaken, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"tidewire-cluster"}})
		to := stranger(t, right, "tidewire-cluster")
		proof := make([]byte, 32)
		if _, err := io.ReadFull(from, proof); err != nil {
			t.Error(err)
		}
		if _, err := to.Write(proof); err != nil {
			t.Error(err)
		}
		if b, _ := io.ReadAll(to); len(b) > 0 {
			t.Errorf("the node answered with %d bytes", len(b))
		}
		_ = leftTaken.Close()
	}()
	accepted := make(chan error)
	go func() {
		_, err := s.Accept(rightTaken)
		_ = rightTaken.Close()
		accepted <- err
	}()
	if _, err := s.Dial(left, peertls.Peer{}); !errors.Is(err, peertls.ErrNotProven) {
		t.Errorf("who dials: %v", err)
	}
	if err := <-accepted; !errors.Is(err, peertls.ErrNotProven) {
		t.Errorf("who accepts: %v", err)
	}
	<-done
}

// A peer that has not proved itself may send so much and no more.
func TestHandshakeIsBounded(t *testing.T) {
	ca := peertlstest.NewCA(t)
	long := fromFiles(t, ca.Files(t.TempDir(), []string{"n1"}, func(c *x509.Certificate) {
		for range 1000 {
			c.DNSNames = append(c.DNSNames, strings.Repeat("a", 60)+".example.com")
		}
	}))
	d, a := meet(t, long, fromFiles(t, ca.Files(t.TempDir(), []string{"n2"})), peertls.Peer{ID: "n2"})
	if d.err == nil || a.err == nil || !strings.Contains(a.err.Error(), "too many bytes") {
		t.Errorf("who dials: %v; who accepts: %v", d.err, a.err)
	}
}

// Closing says nothing to the other side, which may not read: a goodbye would wait for it.
func TestCloseSaysNothing(t *testing.T) {
	d, a := meet(t, fromSecret(t, ours), fromSecret(t, ours), peertls.Peer{})
	talk(t, d, a)
	raw := a.c.(interface{ NetConn() net.Conn }).NetConn()
	_ = d.c.Close()
	if b, err := io.ReadAll(raw); len(b) > 0 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// A read that ends by its deadline does no harm to what comes after: silences are counted so.
func TestReadGoesOnAfterItsDeadline(t *testing.T) {
	d, a := meet(t, fromSecret(t, ours), fromSecret(t, ours), peertls.Peer{})
	talk(t, d, a)
	_ = d.c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := d.c.Read(make([]byte, 1)); err == nil {
		t.Fatal("read something")
	}
	_ = d.c.SetReadDeadline(time.Now().Add(20 * time.Second))
	talk(t, d, a)
}

func TestPlainPeersAreNamed(t *testing.T) {
	dialled, taken := pair(t)
	_, _ = dialled.Write([]byte("TDWR\x01\x03\x00\x00"))
	_, err := fromSecret(t, ours).Accept(taken)
	if !errors.Is(err, peertls.ErrNotProven) || !strings.Contains(err.Error(), "without TLS") {
		t.Error(err)
	}
	_ = taken.Close()
	if b, _ := io.ReadAll(dialled); len(b) > 0 {
		t.Errorf("got %x", b)
	}
}
