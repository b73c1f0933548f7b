package peertls

import (
	"crypto/tls"
	"testing"
)

// Replace gives a node another certificate than its files hold, unchecked.
func Replace(t *testing.T, s Security, cert, key []byte) {
	t.Helper()
	c := s.(*certificates)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = &identity{roots: c.now.roots, cert: pair}
}

// Proof is what a node that dialled would say.
func Proof(t *testing.T, s Security, c *tls.Conn) []byte {
	t.Helper()
	state := c.ConnectionState()
	binding, err := state.ExportKeyingMaterial(bindingLabel, nil, bindingSize)
	if err != nil {
		t.Fatal(err)
	}
	return proof(s.(*shared).current(), roleDials, binding)
}
