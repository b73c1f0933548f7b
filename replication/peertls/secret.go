package peertls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/argon2"

	"github.com/tidewire/tidewire/internal/secret"
)

// The proof by a secret. TLS gives a private channel to somebody; its certificate is made anew by each process,
// of a random key, and names nobody. Who that somebody is, each side shows by
//
//	HMAC-SHA-256(key, role ‖ binding)
//
// where binding is the connection's tls-exporter value (RFC 9266): both ends of one TLS connection have it, and
// no other connection has the same. Somebody between the two nodes has a connection with each of them, and what
// one says to him is of no use with the other. The role tells the two proofs apart, so that one's own, sent back,
// proves nothing.
//
// The other way would be a key pair that all nodes derive from the secret, to be shown as a certificate. But TLS
// shows the certificate of who accepts to everybody who dials: that would give a stranger, for one connection,
// something to try guesses on for ever. Here a stranger who dials gets nothing that depends on the secret: who
// accepts says its proof only to who has proved itself. What is left is somebody who can put himself into the
// place of a node: the others dial him and say their proof first. So the key is stretched, which makes a guess
// cost a tenth of a second and 64 MiB, and a secret must be a long one.
const (
	// MinSecret is the shortest secret, in bytes: what `openssl rand -hex 16` prints has 128 bits.
	MinSecret = 32
	// minDistinct is how many different bytes it has at least. A random one in base 16 has fewer once in 25 million.
	minDistinct = 8

	proofSize    = sha256.Size
	roleDials    = "tidewire cluster, dials, 1"
	roleAccepts  = "tidewire cluster, accepts, 1"
	bindingLabel = "EXPORTER-Channel-Binding" // RFC 9266
	bindingSize  = 32
)

// ErrWeakSecret: a secret is so short or so uniform that it could be guessed.
var ErrWeakSecret = fmt.Errorf("want a random secret of %d characters or more, such as `openssl rand -base64 32` prints", MinSecret)

// CheckSecret says whether a secret is long enough: nil or ErrWeakSecret.
func CheckSecret(s secret.Secret) error {
	value, distinct := s.Value(), map[byte]bool{}
	for i := range len(value) {
		distinct[value[i]] = true
	}
	if len(value) < MinSecret || len(distinct) < minDistinct {
		return ErrWeakSecret
	}
	return nil
}

type shared struct {
	secret secret.Secret
	cert   tls.Certificate
	log    zerolog.Logger

	mu   sync.Mutex
	seen secret.Secret // what it was when it was last looked at
	key  []byte        // of the last good one
}

// FromSecret proves nodes by a secret that they all have. It takes a tenth of a second, and 64 MiB meanwhile; so
// does, for the connection that is made then, a secret that changes. One that becomes too weak is told to log, and
// the one before stays in force. The error is that of CheckSecret.
func FromSecret(s secret.Secret, log zerolog.Logger) (Security, error) {
	now := secret.Of(s.Value()) // its file may change meanwhile
	if err := CheckSecret(now); err != nil {
		return nil, err
	}
	cert, err := nobody()
	if err != nil {
		return nil, err
	}
	return &shared{secret: s, cert: cert, log: log, seen: now, key: stretch(now.Value())}, nil
}

// stretch makes the key of a secret: by the second recommendation of RFC 9106. The salt cannot be random, as all
// nodes must come to the same key.
func stretch(value string) []byte {
	return argon2.IDKey([]byte(value), []byte("tidewire cluster secret, 1"), 3, 64<<10, 4, sha256.Size)
}

// current returns the key in force.
func (s *shared) current() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	value := s.secret.Value()
	if value == s.seen.Value() {
		return s.key
	}
	s.seen = secret.Of(value)
	if err := CheckSecret(s.seen); err != nil {
		s.log.Error().Err(err).Msg("the new secret of the cluster port is no good: the old one stays")
		return s.key
	}
	s.key = stretch(value)
	s.log.Info().Msg("new secret of the cluster port")
	return s.key
}

func (s *shared) String() string { return "TLS, proof by a shared secret" }

func (s *shared) Dial(c net.Conn, _ Peer) (net.Conn, error) {
	key, cfg := s.current(), base()
	cfg.InsecureSkipVerify = true // the certificate names nobody: the proof does
	l := &limited{Conn: c, left: maxHandshake}
	return handshake(l, tls.Client(l, cfg), func(tc *tls.Conn) error {
		binding, err := bindingOf(tc)
		if err != nil {
			return err
		}
		if _, err := tc.Write(proof(key, roleDials, binding)); err != nil {
			return err
		}
		return check(tc, key, roleAccepts, binding)
	})
}

func (s *shared) Accept(c net.Conn) (net.Conn, error) {
	key, cfg := s.current(), base()
	cfg.Certificates = []tls.Certificate{s.cert}
	l := &limited{Conn: c, left: maxHandshake}
	return handshake(l, tls.Server(l, cfg), func(tc *tls.Conn) error {
		binding, err := bindingOf(tc)
		if err != nil {
			return err
		}
		if err := check(tc, key, roleDials, binding); err != nil {
			return err
		}
		_, err = tc.Write(proof(key, roleAccepts, binding))
		return err
	})
}

func proof(key []byte, role string, binding []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(role))
	m.Write(binding)
	return m.Sum(nil)
}

var (
	errSecrets  = errors.New("the secrets of the two nodes are not the same (TIDEWIRE_CLUSTER_SECRET)")
	errNoAnswer = errors.New("the other side closed the connection when it had this node's proof: TIDEWIRE_CLUSTER_SECRET must be the same there")
)

func check(r io.Reader, key []byte, role string, binding []byte) error {
	got := make([]byte, proofSize)
	if _, err := io.ReadFull(r, got); err != nil {
		if role == roleAccepts && closed(err) {
			// It had our proof. That it did not like it is most likely, but it may have died just then.
			return errNoAnswer
		}
		return err
	}
	if !hmac.Equal(got, proof(key, role, binding)) {
		return errSecrets
	}
	return nil
}

func bindingOf(tc *tls.Conn) ([]byte, error) {
	s := tc.ConnectionState()
	if err := checkProtocol(s); err != nil {
		return nil, err
	}
	return s.ExportKeyingMaterial(bindingLabel, nil, bindingSize)
}

// nobody makes a certificate that says nothing, not even when it was made.
func nobody() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
