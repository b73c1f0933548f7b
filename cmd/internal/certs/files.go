// Package certs provides the certificates of a node's ports: from files that are re-read when they change, and from an
// ACME authority.
package certs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const (
	// checkEvery is how often the files are looked at. Their content counts: times of files lie, and the links that
	// Kubernetes swaps have none of their own.
	checkEvery = 2 * time.Second
	// maxFile bounds what is read of a file.
	maxFile = 1 << 20
)

// Files is a certificate and its key in two PEM files. Its methods may be called by any goroutine.
type Files struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu       sync.Mutex
	current  *tls.Certificate
	content  [sha256.Size]byte // of what is in force
	broken   [sha256.Size]byte // of what was last found and cannot be used
	told     bool              // that broken is
	reloads  int64
	failures int64
}

// Load reads a certificate with its chain and the key that belongs to it. The error names the file that is wrong.
func Load(certFile, keyFile string, log zerolog.Logger) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log}
	pair, content, err := f.read()
	if err != nil {
		return nil, err
	}
	f.current, f.content = pair, content
	f.warnIfOver()
	return f, nil
}

// GetCertificate is what tls.Config wants.
func (f *Files) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current, nil
}

// NotAfter is when the certificate in force ends.
func (f *Files) NotAfter() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current.Leaf.NotAfter
}

// Reloads counts how often new files were taken, and how often they could not be.
func (f *Files) Reloads() (taken, failed int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reloads, f.failures
}

// Run looks at the files until ctx ends.
func (f *Files) Run(ctx context.Context) {
	t := time.NewTicker(checkEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f.check()
		case <-ctx.Done():
			return
		}
	}
}

// check takes new files if they are good. Files that cannot be used are told of when they are found a second time: who
// replaces two files does so one after the other, and between the two they do not fit.
func (f *Files) check() {
	pair, content, err := f.read()
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil && content == f.content:
		f.broken, f.told = [sha256.Size]byte{}, false
	case err == nil:
		f.current, f.content = pair, content
		f.broken, f.told = [sha256.Size]byte{}, false
		f.reloads++
		f.log.Info().Str("file", f.certFile).Time("not_after", pair.Leaf.NotAfter).Msg("new certificate in force")
	case content != f.broken:
		f.broken, f.told = content, false
	case !f.told:
		f.told = true
		f.failures++
		f.log.Error().Err(err).Time("not_after", f.current.Leaf.NotAfter).Msg("the new certificate cannot be used: the old one stays in force")
	}
}

// read reads both files. content tells one state of them from another, also where it is an error.
func (f *Files) read() (pair *tls.Certificate, content [sha256.Size]byte, err error) {
	cert, certErr := readFile(f.certFile)
	key, keyErr := readFile(f.keyFile)
	if err = certErr; err == nil {
		err = keyErr
	}
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	content = sha256.Sum256(bytes.Join([][]byte{cert, key}, []byte{0}))
	got, err := tls.X509KeyPair(cert, key) // its errors hold nothing of the key
	if err != nil {
		return nil, content, fmt.Errorf("%s with the key in %s: %w", f.certFile, f.keyFile, err)
	}
	return &got, content, nil
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: longer than %d bytes, which no PEM certificate is", name, maxFile)
	}
	return b, err
}

func (f *Files) warnIfOver() {
	if end := f.current.Leaf.NotAfter; time.Now().After(end) {
		f.log.Warn().Str("file", f.certFile).Time("not_after", end).Msg("the certificate is over: clients will refuse it")
	}
}
