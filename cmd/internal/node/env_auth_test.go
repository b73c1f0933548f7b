package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const longSecret = "planted-s3cret-planted-s3cret-planted-s3cret-planted-s3cret-0123"

// keyFile writes a file with one public key.
func keyFile(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "keys.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAuthOfTheEnvironment(t *testing.T) {
	setEnv(t, map[string]string{
		"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_AUTH": "jwt", "TIDEWIRE_AUTH_JWT_SECRET": longSecret, "TIDEWIRE_AUTH_JWT_KEY_FILE": keyFile(t),
		"TIDEWIRE_AUTH_JWKS_URL": "https://idp.example.com/jwks", "TIDEWIRE_AUTH_JWT_ALGORITHMS": "HS256, ES256", "TIDEWIRE_AUTH_JWT_ISSUER": "me",
		"TIDEWIRE_AUTH_WEBHOOK": "https://authz.example.com/ask", "TIDEWIRE_AUTH_WEBHOOK_TOKEN": "t0ken",
		"TIDEWIRE_AUTH_JWT_AUDIENCE": "a, b", "TIDEWIRE_ANONYMOUS_SUB": "/prices/*, /news", "TIDEWIRE_ANONYMOUS_PUB": "/chat/hello",
	})
	c, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	a := c.Auth
	if a == nil || string(a.Secret()) != longSecret || len(a.Keys) != 1 || a.JWKS.Host != "idp.example.com" || fmt.Sprintf("%v %v %v", a.Algorithms, a.Issuer, a.Audience) != "[HS256 ES256] me [a b]" ||
		a.Leeway != 5*time.Second || a.MaxLifetime != 30*24*time.Hour || a.Claim != "tidewire" || c.Anonymous.Empty() {
		t.Errorf("%+v", a)
	}
	if w := c.Webhook; w == nil || w.URL.Host != "authz.example.com" || w.Token() != "t0ken" || w.Timeout != 2*time.Second || !a.KeepClaims {
		t.Errorf("%+v", w)
	}
	setEnv(t, map[string]string{"TIDEWIRE_NODE_ID": "n1"})
	if c, err := FromEnv(); err != nil || c.Auth != nil || !c.Anonymous.Empty() {
		t.Errorf("by default: %+v, %v", c.Auth, err)
	}
}

// What is wrong with the variables of authentication is named, each in one line, and no secret in any.
func TestWrongAuthIsNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := keyFile(t)
	type set = map[string]string
	allRefused(t, "TIDEWIRE_", "planted", []refused{
		{set{"AUTH": "basic"}, []string{"TIDEWIRE_AUTH", "basic", "none or jwt"}},
		{set{"AUTH": "jwt"}, []string{"TIDEWIRE_AUTH", "TIDEWIRE_AUTH_JWT_SECRET", "TIDEWIRE_AUTH_JWKS_URL"}},
		{set{"AUTH_JWT_SECRET": longSecret}, []string{"TIDEWIRE_AUTH_JWT_SECRET", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH_JWT_KEY_FILE": keys}, []string{"TIDEWIRE_AUTH_JWT_KEY_FILE", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH_JWKS_URL": "https://a/b"}, []string{"TIDEWIRE_AUTH_JWKS_URL", "TIDEWIRE_AUTH=jwt"}},
		{set{"ANONYMOUS_SUB": "/prices/*"}, []string{"TIDEWIRE_ANONYMOUS_SUB", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH_JWT_ISSUER": "https://idp.example.com"}, []string{"TIDEWIRE_AUTH_JWT_ISSUER", "idp.example.com", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH": "none", "AUTH_JWT_AUDIENCE": "live"}, []string{"TIDEWIRE_AUTH_JWT_AUDIENCE", "live", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH": "none", "AUTH_JWT_ALGORITHMS": "ES256"}, []string{"TIDEWIRE_AUTH_JWT_ALGORITHMS", "ES256", "TIDEWIRE_AUTH=jwt"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": "planted-s3cret"}, []string{"TIDEWIRE_AUTH_JWT_SECRET", "14 bytes", "32"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET_FILE": empty}, []string{"TIDEWIRE_AUTH_JWT_SECRET_FILE", "empty"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret[:40], "AUTH_JWT_ALGORITHMS": "HS256,HS512"}, []string{"TIDEWIRE_AUTH_JWT_SECRET", "HS512", "64"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret, "AUTH_JWT_ALGORITHMS": "none"}, []string{"TIDEWIRE_AUTH_JWT_ALGORITHMS", "none", "HS256"}},
		{set{"AUTH": "jwt", "AUTH_JWT_KEY_FILE": keys, "AUTH_JWT_ALGORITHMS": "HS256"}, []string{"TIDEWIRE_AUTH_JWT_ALGORITHMS", "HS256", "secret"}},
		{set{"AUTH": "jwt", "AUTH_JWT_KEY_FILE": keys, "AUTH_JWT_ALGORITHMS": "RS256"}, []string{"TIDEWIRE_AUTH_JWT_ALGORITHMS", "RS256", "no key"}},
		{set{"AUTH": "jwt", "AUTH_JWT_KEY_FILE": empty}, []string{"TIDEWIRE_AUTH_JWT_KEY_FILE", empty, "PEM"}},
		{set{"AUTH": "jwt", "AUTH_JWT_KEY_FILE": empty + ".none"}, []string{"TIDEWIRE_AUTH_JWT_KEY_FILE", "no such file"}},
		{set{"AUTH": "jwt", "AUTH_JWKS_URL": "http://idp.example.com/jwks?key=planted-s3cret"}, []string{"TIDEWIRE_AUTH_JWKS_URL", "idp.example.com", "https"}},
		{set{"AUTH": "jwt", "AUTH_JWKS_URL": "https://u:planted-s3cret@idp.example.com/jwks"}, []string{"TIDEWIRE_AUTH_JWKS_URL", "idp.example.com", "without user"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret, "AUTH_JWT_LEEWAY": "1h"}, []string{"TIDEWIRE_AUTH_JWT_LEEWAY", "1h", "duration"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret, "AUTH_MAX_LIFETIME": "-1s"}, []string{"TIDEWIRE_AUTH_MAX_LIFETIME", "-1s", "duration"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret, "ANONYMOUS_SUB": "prices"}, []string{"TIDEWIRE_ANONYMOUS_SUB", "prices", "slash"}},
		{set{"AUTH": "jwt", "AUTH_JWT_SECRET": longSecret, "ANONYMOUS_PUB": "/chat/${sub}"}, []string{"TIDEWIRE_ANONYMOUS_PUB", "${sub}", "no token"}},
		{set{"AUTH_WEBHOOK": "http://idp.example.com/ask?key=planted-s3cret"}, []string{"TIDEWIRE_AUTH_WEBHOOK", "idp.example.com", "https"}},
		{set{"AUTH_WEBHOOK_TOKEN": "planted-s3cret"}, []string{"TIDEWIRE_AUTH_WEBHOOK_TOKEN", "without TIDEWIRE_AUTH_WEBHOOK"}},
		{set{"AUTH_WEBHOOK": "https://a/b", "AUTH_WEBHOOK_TIMEOUT": "1h"}, []string{"TIDEWIRE_AUTH_WEBHOOK_TIMEOUT", "1h", "duration"}},
	})
	setEnv(t, set{"TIDEWIRE_NODE_ID": "n1", "TIDEWIRE_AUTH": "jwt", "TIDEWIRE_AUTH_JWT_SECRET": longSecret, "TIDEWIRE_AUTH_JWT_ALGORITHMS": "x,RS256"})
	if _, err := FromEnv(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two problems are %v", err)
	}
}
