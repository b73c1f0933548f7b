package certs

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A new certificate is taken; one that is broken, cut, gone or another key's is not, is told of once, and the old one stays.
func TestFilesAreReadAgain(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Write(t, dir, 1)
	var logged bytes.Buffer
	f, err := Load(certFile, keyFile, zerolog.New(&logged))
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		c, err := f.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	want := func(what string, number, taken, failed int64) {
		t.Helper()
		for range 3 {
			f.check()
		}
		a, b := f.Reloads()
		if got := serial(); got != number || a != taken || b != failed {
			t.Errorf("%s: certificate %d, want %d; taken %d, want %d; failed %d, want %d", what, got, number, a, taken, b, failed)
		}
	}
	want("nothing has changed", 1, 0, 0)
	ca.Write(t, dir, 2)
	want("a new one", 2, 1, 0)
	good, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	certtest.WriteFile(t, certFile, good[:len(good)/2])
	want("half of one", 2, 1, 1)
	otherCert, otherKey := ca.Issue(t, 3)
	certtest.WriteFile(t, certFile, otherCert)
	want("another key's", 2, 1, 2)
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	want("none", 2, 1, 3)
	certtest.WriteFile(t, certFile, bytes.Repeat([]byte("#"), maxFile+1))
	want("too long", 2, 1, 4)
	certtest.WriteFile(t, certFile, otherCert)
	f.check() // between the two steps of somebody who replaces both
	certtest.WriteFile(t, keyFile, otherKey)
	want("both, one after the other", 3, 2, 4)
	if n := strings.Count(logged.String(), "cannot be used"); n != 4 {
		t.Errorf("told %d times:\n%s", n, logged.String())
	}
	if key := strings.Split(string(otherKey), "\n")[1]; strings.Contains(logged.String(), key) {
		t.Error("the key was logged")
	}
}

func TestFilesThatAreWrongAtTheStart(t *testing.T) {
	ca, dir := certtest.NewCA(t), t.TempDir()
	certFile, keyFile := ca.Write(t, dir, 1)
	_, otherKey := ca.Issue(t, 2)
	other := dir + "/other.pem"
	certtest.WriteFile(t, other, otherKey)
	for _, c := range [][3]string{{certFile, dir + "/none.pem", "none.pem"}, {dir + "/none.pem", keyFile, "none.pem"}, {certFile, other, "other.pem"}, {keyFile, keyFile, "key.pem"}} {
		if _, err := Load(c[0], c[1], zerolog.Nop()); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
