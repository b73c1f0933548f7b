package peertls_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/internal/certtest"
	"github.com/tidewire/tidewire/replication/peertls"
	"github.com/tidewire/tidewire/replication/peertls/peertlstest"
)

var n2 = peertls.Peer{ID: "n2", Host: "10.0.0.2"}

func TestCertificatesOfOneCA(t *testing.T) {
	ca := peertlstest.NewCA(t)
	one := fromFiles(t, ca.Files(t.TempDir(), []string{"n1"}))
	for name, names := range map[string][]string{"by id": {"n2"}, "by host": {"10.0.0.2"}, "by either": {"other.example.com", "n2"}} {
		t.Run(name, func(t *testing.T) {
			d, a := meet(t, one, fromFiles(t, ca.Files(t.TempDir(), names)), n2)
			talk(t, d, a)
		})
	}
}

// unchecked is a node whose certificate was changed behind its back: its own check would not let it start.
func unchecked(t *testing.T, ca *peertlstest.CA, names []string, change func(*x509.Certificate)) peertls.Security {
	t.Helper()
	files := ca.Files(t.TempDir(), []string{"x"})
	s := fromFiles(t, files)
	cert, key := ca.Leaf(names, change)
	peertls.Replace(t, s, cert, key)
	return s
}

func TestCertificatesThatAreRefused(t *testing.T) {
	ca, foreign := peertlstest.NewCA(t), peertlstest.NewCA(t)
	own := func(names ...string) peertls.Security { return fromFiles(t, ca.Files(t.TempDir(), names)) }
	same := func(*x509.Certificate) {}
	old := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	only := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	member := ca.Files(t.TempDir(), []string{"n2"})
	member.Names = []string{"n1", "n2", "*.nodes.example.com"}
	for name, c := range map[string]struct {
		dials, accepts peertls.Security
		why            string
	}{
		"who dials is of another CA":           {fromFiles(t, foreign.Files(t.TempDir(), []string{"n1"})), own("n2"), "unknown authority"},
		"who accepts has expired":              {own("n1"), unchecked(t, ca, []string{"n2"}, old), "expired"},
		"who dials has expired":                {unchecked(t, ca, []string{"n1"}, old), own("n2"), "expired"},
		"who accepts has another name":         {own("n1"), unchecked(t, ca, []string{"n3", "10.0.0.3"}, same), `"n3"`},
		"who accepts is no server":             {own("n1"), unchecked(t, ca, []string{"n2"}, only(x509.ExtKeyUsageClientAuth)), "usage"},
		"who dials is no client":               {unchecked(t, ca, []string{"n1"}, only(x509.ExtKeyUsageServerAuth)), own("n2"), "usage"},
		"who dials has no name that is let in": {own("web.example.com", "a.b.nodes.example.com"), fromFiles(t, member), "web.example.com"},
		"who dials has the secret only":        {fromSecret(t, ours), own("n2"), "certificate"},
		"who accepts has the secret only":      {own("n1"), fromSecret(t, ours), "authority"},
	} {
		t.Run(name, func(t *testing.T) {
			d, a := meet(t, c.dials, c.accepts, n2)
			refused(t, d, a, c.why)
		})
	}
	// The same, with one of the other CA that has our CA's word for our names: only who accepts can say no.
	t.Run("who accepts is of another CA", func(t *testing.T) {
		files := foreign.Files(t.TempDir(), []string{"n2"})
		d, a := meet(t, own("n1"), fromFiles(t, files), n2)
		refused(t, d, a, "unknown authority")
	})
	for _, name := range []string{"n1", "b.nodes.example.com"} {
		d, a := meet(t, own(name), fromFiles(t, member), n2)
		talk(t, d, a)
	}
}

// A stranger who asks is not told which CA he would have to ask, and gets nothing after the handshake.
func TestStrangerIsNotToldTheCA(t *testing.T) {
	s := fromFiles(t, peertlstest.NewCA(t).Files(t.TempDir(), []string{"n1"}))
	dialled, taken := pair(t)
	done := make(chan error)
	go func() {
		_, err := s.Accept(taken)
		_ = taken.Close()
		done <- err
	}()
	asked := false
	c := tls.Client(dialled, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"tidewire-cluster"},
		GetClientCertificate: func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if asked = true; len(i.AcceptableCAs) > 0 {
				t.Errorf("CAs %q", i.AcceptableCAs)
			}
			return &tls.Certificate{}, nil
		}})
	if err := c.Handshake(); err != nil || !asked {
		t.Fatal(err, asked)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := <-done; err == nil {
		t.Error("accepted")
	}
}

// A certificate that the other nodes would not take stops the start, and says why.
func TestFilesThatWillNotDo(t *testing.T) {
	ca := peertlstest.NewCA(t)
	for name, c := range map[string]struct {
		change func(f *peertls.Files)
		why    string
	}{
		"no file":        {func(f *peertls.Files) { f.Key += ".none" }, "key.pem.none"},
		"not PEM":        {func(f *peertls.Files) { certtest.WriteFile(t, f.CA, []byte("x")) }, "ca.pem: no PEM"},
		"another's key":  {func(f *peertls.Files) { _, k := ca.Leaf([]string{"n1"}); certtest.WriteFile(t, f.Key, k) }, "does not match"},
		"another's CA":   {func(f *peertls.Files) { certtest.WriteFile(t, f.CA, peertlstest.NewCA(t).PEM) }, "ca.pem signed"},
		"another's name": {func(f *peertls.Files) { f.Self = []string{"n7", "10.0.0.7"} }, `"n7"`},
		"not let in":     {func(f *peertls.Files) { f.Names = []string{"*.example.com"} }, "*.example.com"},
		"too long":       {func(f *peertls.Files) { certtest.WriteFile(t, f.CA, make([]byte, 2<<20)) }, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			f := ca.Files(t.TempDir(), []string{"n1"})
			c.change(&f)
			if _, err := peertls.FromFiles(f, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v", err)
			}
		})
	}
}

// lockedLog is a log that several goroutines write.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedLog) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// Files that are replaced are in force for the next connections, without a restart; new ones that are no good are
// told once, and the old ones stay.
func TestCertificatesAreReplaced(t *testing.T) {
	before, after := peertlstest.NewCA(t), peertlstest.NewCA(t)
	files := before.Files(t.TempDir(), []string{"n2"})
	var log lockedLog
	two, err := peertls.FromFiles(files, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	old := fromFiles(t, before.Files(t.TempDir(), []string{"n1"}))
	young := fromFiles(t, after.Files(t.TempDir(), []string{"n1"}))
	works := func(with peertls.Security) bool {
		d, a := meet(t, with, two, n2)
		return d.err == nil && a.err == nil
	}
	if !works(old) || works(young) {
		t.Fatal("wrong before anything is replaced")
	}
	const bad = "the old one stays"
	certtest.WriteFile(t, files.Cert, []byte("half a certif"))
	await(t, "it is told", func() bool { return !works(old) || log.count(bad) > 0 })
	for range 3 {
		if !works(old) {
			t.Fatal("the old one does not work any more")
		}
	}
	// One CA takes over from the other: first both are trusted, then the certificate is replaced.
	cert, key := after.Leaf([]string{"n2"})
	certtest.WriteFile(t, files.Key, key)
	certtest.WriteFile(t, files.Cert, cert)
	certtest.WriteFile(t, files.CA, slices.Concat(before.PEM, after.PEM))
	await(t, "the new CA is in force", func() bool { return works(young) })
	if works(old) {
		t.Error("a node that does not know the new CA takes its certificate")
	}
	if n := log.count(bad); n == 0 || n > 3 { // the file that was bad, and those of different ages
		t.Errorf("told %d times", n)
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not: %s", what)
		}
	}
}
