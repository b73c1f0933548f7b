// Package peertls is the wall of the cluster port: TLS 1.3 in which both nodes prove that they belong to the
// cluster before either says anything of Raft, of its build or of its name. There are two ways to prove it:
//
//   - FromSecret: all nodes know one secret. Certificates prove nothing then; each side shows that it knows the
//     secret by a MAC over what is unique to this one TLS connection (secret.go).
//   - FromFiles: each node has a certificate of one CA (certificates.go).
//
// In both, the side that dials proves itself first, and the side that accepts answers with proof of its own:
//
//	dials                                   accepts
//	ClientHello                   ──▶
//	                              ◀──       ServerHello … Finished
//	[Certificate …] Finished, proof ──▶
//	                              ◀──       proof
//	what the connection is for    ──▶       (package replication: its preface)
//
// What a stranger gets who dials is a TLS handshake: of a certificate that says nothing with a secret, of the
// node's own certificate with a CA, which TLS shows to everybody who asks. Then the connection is closed.
//
// Nothing is kept from one connection for another: no tickets, no resumption, no early data. So nothing that was
// recorded is worth anything to who sends it again.
package peertls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// protocol is the name by which both sides know that the other one means this and nothing else that speaks TLS
// (RFC 7301, ALPN): a connection cannot be led here that was meant for somebody else.
const protocol = "tidewire-cluster"

// maxHandshake is how many bytes a peer may send until it has proved itself. A chain of a few certificates takes
// some kilobytes.
const maxHandshake = 64 << 10

// ErrNotProven: the two nodes did not prove to each other that they belong to one cluster. What is wrapped says
// what was wrong, and holds no secret.
var ErrNotProven = errors.New("the nodes did not prove themselves to each other")

// A Peer is whom a node dials: what it knows of it.
type Peer struct {
	ID   string // empty: not known
	Host string // of the address that is dialled
}

// Security proves both ends of a connection to each other. Its methods may be called by any goroutine. They
// return within the connection's deadline, which the caller sets, and do not close the connection they are given.
// An error that is not the network's is ErrNotProven.
type Security interface {
	// Dial proves the end that dialled c, and has peer prove itself.
	Dial(c net.Conn, peer Peer) (net.Conn, error)
	// Accept proves the end that accepted c, after the other end.
	Accept(c net.Conn) (net.Conn, error)
	// String says by what, in words for a log.
	String() string
}

// base is what all our configurations of TLS have in common.
func base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		// A ticket would be a word to the other side before it has proved itself.
		SessionTicketsDisabled: true,
		// Small records at the beginning are for browsers that show half a page.
		DynamicRecordSizingDisabled: true,
	}
}

// checkProtocol: the library does not mind a client that names no protocol at all.
func checkProtocol(s tls.ConnectionState) error {
	if s.NegotiatedProtocol != protocol {
		return errors.New("no connection between nodes of Tidewire")
	}
	return nil
}

// conn is a proven connection.
type conn struct {
	*tls.Conn
	raw net.Conn
}

// Close ends the connection at once. TLS would say goodbye, and wait five seconds with it for a peer that does
// not read. Everything that is said here has a length, so its end cannot be forged by cutting the connection.
func (c conn) Close() error { return c.raw.Close() }

// limited bounds what may be read until open is called, both by one goroutine.
type limited struct {
	net.Conn
	left int
	open bool
}

var errTooLong = errors.New("too many bytes for a handshake")

func (c *limited) Read(p []byte) (int, error) {
	if c.open {
		return c.Conn.Read(p)
	}
	if c.left == 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// handshake has tc shake hands, and prove do what is left to prove.
func handshake(c *limited, tc *tls.Conn, prove func(*tls.Conn) error) (net.Conn, error) {
	err := tc.Handshake()
	if err == nil {
		err = prove(tc)
	}
	if err != nil {
		return nil, unproven(err)
	}
	c.open = true
	return conn{tc, c.Conn}, nil
}

// unproven makes the error ErrNotProven unless it is the network's. That the other side closes the connection is
// how it refuses.
func unproven(err error) error {
	var op *net.OpError
	var header tls.RecordHeaderError
	switch {
	case closed(err):
		return fmt.Errorf("%w: the other side closed the connection: is its cluster port protected too, and in the same way? (%w)", ErrNotProven, err)
	case errors.As(err, &header) && bytes.HasPrefix(header.RecordHeader[:], []byte("TDWR")):
		return fmt.Errorf("%w: a node that begins without TLS: protect its cluster port in the same way", ErrNotProven)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: the other side refused: %w", ErrNotProven, op.Err)
	case errors.As(err, &op) && op.Op != "local error":
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotProven, err)
}

// closed says whether an error is that of a connection which the other side has closed.
func closed(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
