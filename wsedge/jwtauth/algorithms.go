package jwtauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// Algorithms are the names of all that can be verified, by the kind of key that each is for. A name that is not
// here, such as none, is no algorithm.
var Algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

const hmacFamily = "HS"

// family is the part of an algorithm's name that says which kind of key it is for.
func family(alg string) string {
	if alg == "EdDSA" {
		return alg
	}
	return alg[:2]
}

// hmacSize is the least length of a secret: that of the hash (RFC 7518, section 3.2).
func hmacSize(alg string) int {
	switch alg {
	case "HS256":
		return 32
	case "HS384":
		return 48
	}
	return 64
}

// minRSA is the least size of an RSA key, in bits (RFC 7518, section 3.3).
const minRSA = 2048

// fits says whether an algorithm may be used with a public key.
func fits(alg string, key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return (family(alg) == "RS" || family(alg) == "PS") && k.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return alg == "ES256" && k.Curve == elliptic.P256() || alg == "ES384" && k.Curve == elliptic.P384() || alg == "ES512" && k.Curve == elliptic.P521()
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// The errors of New, each about one part of the configuration.
var (
	// ErrNoKeys: there is nothing to verify tokens with.
	ErrNoKeys = errors.New("nothing to verify tokens with: a secret, a file of public keys or the address of a JWKS")
	// ErrSecret: the secret is too short for the algorithms.
	ErrSecret = errors.New("the secret is too short")
	// ErrAlgorithm: an algorithm is unknown, or no key is for it.
	ErrAlgorithm = errors.New("no such algorithm here")
)

// usable says whether there may be a key for an algorithm.
func (c *Config) usable(alg string) bool {
	if family(alg) == hmacFamily {
		return c.Secret != nil && len(c.Secret()) >= hmacSize(alg)
	}
	if c.JWKS != nil {
		return true
	}
	for _, k := range c.Keys {
		if fits(alg, k) {
			return true
		}
	}
	return false
}

// algorithms checks those that are named, or lists all that there may be a key for.
func (c *Config) algorithms() ([]string, error) {
	if c.Secret == nil && len(c.Keys) == 0 && c.JWKS == nil {
		return nil, ErrNoKeys
	}
	if c.Secret != nil && len(c.Secret()) < hmacSize("HS256") {
		return nil, fmt.Errorf("%w: it has %d bytes; HS256 needs 32 at least, HS384 48, HS512 64", ErrSecret, len(c.Secret()))
	}
	var problems []error
	for _, alg := range c.Algorithms {
		switch {
		case !contains(Algorithms, alg):
			problems = append(problems, fmt.Errorf("%w: %q; want some of %s", ErrAlgorithm, alg, strings.Join(Algorithms, ", ")))
		case family(alg) == hmacFamily && c.Secret != nil && !c.usable(alg):
			problems = append(problems, fmt.Errorf("%w: for %s it needs %d bytes at least", ErrSecret, alg, hmacSize(alg)))
		case !c.usable(alg):
			problems = append(problems, fmt.Errorf("%w: %s has no key that it is for; HS… need the secret, all others the file of public keys or the JWKS", ErrAlgorithm, alg))
		}
	}
	if len(problems) > 0 || len(c.Algorithms) > 0 {
		return c.Algorithms, errors.Join(problems...)
	}
	var all []string
	for _, alg := range Algorithms {
		if c.usable(alg) {
			all = append(all, alg)
		}
	}
	return all, nil
}

// ParseKeys reads the public keys and certificates of a PEM file, at least one and at most 32.
func ParseKeys(file []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		var block *pem.Block
		if block, file = pem.Decode(file); block == nil {
			break
		}
		key, err := parseKey(block)
		if err != nil {
			return nil, err
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, errTooManyKeys
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no PEM block PUBLIC KEY in it")
	}
	return keys, nil
}

func parseKey(block *pem.Block) (key crypto.PublicKey, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		if strings.Contains(block.Type, "PRIVATE") {
			return nil, errors.New("there is a private key in it, which has no business here: want the public one")
		}
		return nil, fmt.Errorf("a PEM block %.40q is no public key", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("a public key in it cannot be read: %w", err)
	}
	for _, alg := range Algorithms {
		if fits(alg, key) {
			return key, nil
		}
	}
	return nil, errors.New("a public key in it is of no kind that tokens are signed with: want RSA of 2048 bits at least, ECDSA on P-256, P-384 or P-521, or Ed25519")
}
