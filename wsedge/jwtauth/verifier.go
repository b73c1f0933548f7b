// Package jwtauth verifies JSON Web Tokens (RFC 7519) and makes identities of them.
//
// What can go wrong with these in general is decided here once: an algorithm is bound to the kind of key that it
// is meant for, whatever a token says (RFC 8725, section 3.1), so "none" is no algorithm and a public key is never
// the secret of an HMAC; a token has a bounded size before anything looks into it; keys come from where the
// configuration says and from no address that a token names; and no error holds any part of a token.
package jwtauth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// Config says which tokens are taken. At least one of Secret, Keys and JWKS is required; they may stand side by
// side.
type Config struct {
	// Secret returns the key of HS256, HS384 and HS512. It is asked for each token, so it may change. Nil: none.
	Secret func() []byte
	// Keys are public keys of which any may have signed: *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, as
	// ParseKeys returns them.
	Keys []crypto.PublicKey
	// JWKS is where a JSON Web Key Set is fetched, and fetched again while Run runs. Nil: nowhere. See CheckAddress.
	JWKS *url.URL

	// Algorithms are those that are taken, by their names in RFC 7518 and RFC 8037. Empty: all that the keys are
	// for.
	Algorithms []string
	Issuer     string        // the claim iss; empty: any
	Audience   []string      // one of which is in the claim aud; empty: any
	Leeway     time.Duration // between the issuer's clock and ours
	// MaxLifetime is how long a token may live from its issue, or from now if it does not say when that was; one that has
	// no end is refused. 0: any, also none.
	MaxLifetime time.Duration
	// Claim is where the rights are: {"sub":["/topic/*"],"pub":["/topic/key"]}.
	Claim string
	// KeepClaims has each identity keep the token's payload.
	KeepClaims bool

	Log zerolog.Logger
}

// Verifier verifies tokens. Any goroutine may use it.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	jwks   *keySet // nil: there is none
}

const (
	// maxToken bounds a token before it is looked into, in bytes.
	maxToken = 8 << 10
	// maxName bounds the claims sub and jti, in bytes: they are kept, logged, compared and written to Kafka.
	maxName = 256
)

// New makes a verifier, or says in one error for each problem what is wrong.
func New(cfg Config) (*Verifier, error) {
	algorithms, err := cfg.algorithms()
	if err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms), jwt.WithLeeway(cfg.Leeway), jwt.WithIssuedAt(), jwt.WithJSONNumber(), jwt.WithStrictDecoding(),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if len(cfg.Audience) > 0 {
		options = append(options, jwt.WithAudience(cfg.Audience...))
	}
	if cfg.MaxLifetime > 0 {
		options = append(options, jwt.WithExpirationRequired())
	}
	cfg.Algorithms = algorithms
	v := &Verifier{cfg: cfg, parser: jwt.NewParser(options...)}
	if cfg.JWKS != nil {
		v.jwks = newKeySet(cfg.JWKS, cfg.Log)
	}
	return v, nil
}

// Run fetches the key set again and again until ctx ends. Without one it just waits.
func (v *Verifier) Run(ctx context.Context) {
	if v.jwks == nil {
		<-ctx.Done()
		return
	}
	v.jwks.run(ctx)
}

// tokenChars are those of a token; a decoder of base64 passes over line breaks.
const tokenChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

func refused(format string, args ...any) error {
	return &auth.RefusedError{Message: fmt.Sprintf(format, args...)}
}

// Authenticate is what wsedge.Authenticator asks for.
func (v *Verifier) Authenticate(ctx context.Context, token string) (*auth.Identity, error) {
	if len(token) > maxToken {
		return nil, refused("a token has at most %d bytes", maxToken)
	}
	if strings.TrimLeft(token, tokenChars) != "" {
		return nil, refused("the token is no JSON Web Token in compact form")
	}
	claims := jwt.MapClaims{}
	var known error // what we know of an error ourselves, for the library's texts may quote the token
	asked := false
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		asked = true
		var keys jwt.VerificationKeySet
		keys, known = v.keysFor(ctx, t)
		return keys, known
	})
	if err != nil {
		return nil, v.explain(err, known, asked)
	}
	return v.identity(token, claims)
}

// explain says in our own words why a token is not taken.
func (v *Verifier) explain(err, known error, asked bool) error {
	switch {
	case known != nil:
		return known
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && !asked:
		return refused("the token is signed with an algorithm that is not taken here: want one of %s", strings.Join(v.cfg.Algorithms, ", "))
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refused("the token's signature is not right for any key that is known here")
	case errors.Is(err, jwt.ErrTokenExpired):
		return refused("the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return refused("the token is not valid yet: compare the clocks")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refused("the token is of another issuer (iss)")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return refused("the token is for another audience (aud)")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return refused("the token lacks a claim that is required: exp, and iss and aud where they are asked for")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return refused("the token is signed with an algorithm that is not taken here: want one of %s", strings.Join(v.cfg.Algorithms, ", "))
	}
	return refused("the token is no JSON Web Token in compact form, or one of its claims is of the wrong kind")
}

// keysFor returns the keys with which a token may have been signed: of the kind that its algorithm is for, from
// the sources that are there.
func (v *Verifier) keysFor(ctx context.Context, t *jwt.Token) (jwt.VerificationKeySet, error) {
	var keys jwt.VerificationKeySet
	if _, ok := t.Header["crit"]; ok {
		return keys, refused("the token's header has crit: none of its extensions is known here") // RFC 7515, section 4.1.11
	}
	alg := t.Method.Alg()
	if family(alg) == hmacFamily {
		if v.cfg.Secret == nil {
			return keys, refused("there is no secret for tokens with %s", alg)
		}
		secret := v.cfg.Secret()
		if len(secret) < hmacSize(alg) {
			return keys, refused("the secret is too short for %s", alg) // it may have been replaced since the start
		}
		keys.Keys = append(keys.Keys, secret)
		return keys, nil
	}
	for _, k := range v.cfg.Keys {
		if fits(alg, k) {
			keys.Keys = append(keys.Keys, k)
		}
	}
	if v.jwks != nil {
		more, err := v.jwks.keysFor(ctx, t)
		if err != nil && len(keys.Keys) == 0 {
			return keys, err
		}
		for _, k := range more {
			if fits(alg, k) {
				keys.Keys = append(keys.Keys, k)
			}
		}
	}
	if len(keys.Keys) == 0 {
		return keys, refused("there is no key for tokens with this algorithm and key id")
	}
	return keys, nil
}

// maxKeys bounds how many keys of a file or a set are tried for a token that does not say which it is signed with.
const maxKeys = 32

var errTooManyKeys = fmt.Errorf("there are more than %d keys", maxKeys)

func contains(list []string, s string) bool { return slices.Contains(list, s) }
