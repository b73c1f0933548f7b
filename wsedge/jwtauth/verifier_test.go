package jwtauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/tidewire/tidewire/wsedge/auth"
	"github.com/tidewire/tidewire/wsedge/subject"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789012345678901234567890123456789012345678901234567890123"

func secretOf(s string) func() []byte { return func() []byte { return []byte(s) } }

// keyring has one private key of each kind, made once.
var keyring = sync.OnceValue(func() map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	var err error
	for name, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		if keys[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			panic(err)
		}
	}
	for _, name := range []string{"RS", "RS2"} {
		if keys[name], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	if _, keys["EdDSA"], err = ed25519.GenerateKey(rand.Reader); err != nil {
		panic(err)
	}
	return keys
})

func keyFor(alg string) crypto.Signer {
	if f := family(alg); f == "RS" || f == "PS" {
		return keyring()["RS"]
	}
	return keyring()[alg]
}

type claims = map[string]any

func in(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// sign makes a token. key is []byte for HMAC and a crypto.Signer for all others.
func sign(t testing.TB, alg string, key any, header claims, body claims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), jwt.MapClaims(body))
	for name, v := range header {
		token.Header[name] = v
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newVerifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	if cfg.Claim == "" {
		cfg.Claim = "tidewire"
	}
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func publicKeys(names ...string) (keys []crypto.PublicKey) {
	for _, n := range names {
		keys = append(keys, keyring()[n].Public())
	}
	return keys
}

// refusal checks that a token is refused for good, for a reason that has a word in it and nothing of the token.
func refusal(t *testing.T, v *Verifier, token, word string) {
	t.Helper()
	id, err := v.Authenticate(context.Background(), token)
	var r *auth.RefusedError
	if id != nil || !errors.As(err, &r) || !strings.Contains(r.Message, word) {
		t.Errorf("want a refusal with %q, got %+v, %v", word, id, err)
		return
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 8 && strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "planted") {
			t.Errorf("the error holds a part of the token: %v", err)
		}
	}
}

// Every algorithm works with the key that it is for, and with no other.
func TestAlgorithms(t *testing.T) {
	body := claims{"sub": "alice", "exp": in(time.Hour)}
	for _, alg := range Algorithms {
		cfg := Config{MaxLifetime: 2 * time.Hour}
		var key any = []byte(secret)
		if family(alg) == hmacFamily {
			cfg.Secret = secretOf(secret)
		} else {
			key = keyFor(alg)
			cfg.Keys = []crypto.PublicKey{keyFor(alg).Public()}
		}
		v := newVerifier(t, cfg)
		id, err := v.Authenticate(context.Background(), sign(t, alg, key, nil, body))
		if err != nil || id.Subject != "alice" {
			t.Errorf("%s: %+v, %v", alg, id, err)
		}
		// A key of the same kind that is not ours.
		var foreign any = []byte(strings.Repeat("x", 64))
		switch family(alg) {
		case "RS", "PS":
			foreign = keyring()["RS2"]
		case "ES":
			k, err := ecdsa.GenerateKey(keyFor(alg).Public().(*ecdsa.PublicKey).Curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			foreign = k
		case "EdDSA":
			_, foreign, _ = ed25519.GenerateKey(rand.Reader)
		}
		refusal(t, v, sign(t, alg, foreign, nil, body), "signature")
		// Every other algorithm, signed as it should be.
		for _, other := range Algorithms {
			if family(other) == family(alg) || family(other)+family(alg) == "RSPS" || family(other)+family(alg) == "PSRS" {
				continue
			}
			var k any = []byte(secret)
			if family(other) != hmacFamily {
				k = keyFor(other)
			}
			refusal(t, v, sign(t, other, k, nil, body), "algorithm")
		}
	}
}

// The classic attacks: no signature, and the public key as an HMAC's secret, in every form in which it may be lying
// around, also where HMAC is allowed with a secret of its own.
func TestAlgorithmConfusion(t *testing.T) {
	body := claims{"sub": "planted", "exp": in(time.Hour), "tidewire": claims{"sub": []string{"/one/*"}}}
	rsaKey := keyring()["RS"].Public().(*rsa.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(rsaKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(rsaKey)
	var secrets [][]byte
	for _, block := range []*pem.Block{{Type: "PUBLIC KEY", Bytes: der}, {Type: "RSA PUBLIC KEY", Bytes: pkcs1}} {
		text := pem.EncodeToMemory(block)
		secrets = append(secrets, text, []byte(strings.TrimSpace(string(text))), block.Bytes)
	}
	secrets = append(secrets, rsaKey.N.Bytes(), []byte{})
	for name, cfg := range map[string]Config{
		"keys":            {Keys: publicKeys("RS", "ES256", "EdDSA")},
		"keys and secret": {Keys: publicKeys("RS", "ES256", "EdDSA"), Secret: secretOf(secret)},
		"secret":          {Secret: secretOf(secret)},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, cfg)
			for _, alg := range []string{"HS256", "HS384", "HS512"} {
				for _, s := range secrets {
					refusal(t, v, sign(t, alg, s, nil, body), "")
				}
			}
			none := sign(t, "none", jwt.UnsafeAllowNoneSignatureType, nil, body)
			refusal(t, v, none, "algorithm")
			good := sign(t, "RS256", keyring()["RS"], nil, body)
			payload := strings.Split(good, ".")[1]
			for _, header := range []string{
				`{"alg":"none"}`, `{"alg":"None"}`, `{"alg":"NONE","typ":"JWT"}`, `{"alg":""}`, `{}`, `{"alg":null}`, `{"alg":["RS256"]}`,
				`{"alg":"HS256","alg":"none"}`, `{"alg":"planted"}`,
			} {
				for _, signature := range []string{"", strings.Split(good, ".")[2]} {
					refusal(t, v, base64.RawURLEncoding.EncodeToString([]byte(header))+"."+payload+"."+signature, "")
				}
			}
		})
	}
	// A token that brings its own key, or says where there is one, or what must be understood.
	evil := keyring()["RS2"]
	n := base64.RawURLEncoding.EncodeToString(evil.Public().(*rsa.PublicKey).N.Bytes())
	v := newVerifier(t, Config{Keys: publicKeys("RS")})
	refusal(t, v, sign(t, "RS256", evil, claims{"jwk": claims{"kty": "RSA", "n": n, "e": "AQAB"}}, body), "signature")
	refusal(t, v, sign(t, "RS256", evil, claims{"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/", "kid": "../../dev/null"}, body), "signature")
	refusal(t, v, sign(t, "RS256", keyring()["RS"], claims{"crit": []string{"exp"}}, body), "crit")
}

func TestClaims(t *testing.T) {
	cfg := Config{
		Secret: secretOf(secret), Issuer: "https://idp.example", Audience: []string{"edge", "other"}, Leeway: 5 * time.Second,
		MaxLifetime: time.Hour, KeepClaims: true,
	}
	v := newVerifier(t, cfg)
	good := func() claims {
		return claims{
			"iss": "https://idp.example", "aud": []string{"x", "edge"}, "exp": in(time.Minute), "iat": in(-time.Minute), "sub": "alice", "jti": "j1",
			"tenant": json.Number("42"), "tidewire": claims{"sub": []string{"/orders/${sub}/*", "/t/${tenant}", "no subject"}, "pub": []string{"/chat/*"}},
		}
	}
	token := sign(t, "HS256", []byte(secret), nil, good())
	id, err := v.Authenticate(context.Background(), token)
	if err != nil {
		t.Fatal(err)
	}
	may := func(text string) bool {
		s, err := subject.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return id.Rights.MaySubscribe(s)
	}
	if id.Subject != "alice" || id.TokenID != "j1" || id.Silent || !may("/orders/alice/7") || !may("/t/42") || may("/orders/bob/7") || may("/chat/x") {
		t.Errorf("%+v", id)
	}
	if id.IssuedAt.Unix() != good()["iat"] || time.Until(id.Expires) < time.Minute || time.Until(id.Expires) > time.Minute+5*time.Second {
		t.Errorf("issued %v, expires %v", id.IssuedAt, id.Expires)
	}
	if !strings.Contains(string(id.Claims), `"tenant":42`) {
		t.Errorf("claims: %s", id.Claims)
	}
	with := func(name string, value any) claims {
		c := good()
		if c[name] = value; value == nil {
			delete(c, name)
		}
		return c
	}
	for _, c := range []struct {
		name  string
		value any
		word  string // of the refusal; empty: taken
	}{
		{"exp", in(-time.Minute), "expired"},
		{"exp", in(-2 * time.Second), ""}, // within the leeway
		{"exp", in(2 * time.Hour), "TIDEWIRE_AUTH_MAX_LIFETIME"},
		{"exp", json.Number("1e300"), ""}, // see below
		{"exp", nil, "exp"},
		{"exp", "planted", ""},
		{"exp", 0, "expired"},
		{"exp", -1, "expired"},
		{"nbf", in(time.Minute), "not valid yet"},
		{"nbf", in(2 * time.Second), ""},
		{"iat", in(time.Minute), "not valid yet"},
		{"iat", nil, ""},
		{"iat", in(-58 * time.Minute), ""},                           // it lives for 59
		{"iat", in(-60 * time.Minute), "TIDEWIRE_AUTH_MAX_LIFETIME"}, // 61, of which it has one left
		{"iat", 0, "TIDEWIRE_AUTH_MAX_LIFETIME"},
		{"iss", "https://evil.example", "issuer"},
		{"iss", nil, "claim"},
		{"aud", "edge", ""},
		{"aud", []string{"planted"}, "audience"},
		{"aud", nil, "claim"},
		{"sub", nil, ""},
		{"sub", 42, "sub"},
		{"sub", strings.Repeat("planted", 100), "sub"},
		{"sub", "a\ufffdb", "sub"},
		{"jti", 42, "jti"},
		{"tidewire", nil, ""},
		{"tidewire", claims{}, ""},
		{"tidewire", claims{"sub": nil}, ""},
		{"tidewire", "planted", "tidewire"},
		{"tidewire", claims{"sub": "/planted/*"}, "tidewire"},
		{"tidewire", claims{"pub": []any{1}}, "tidewire"},
		{"tidewire", []any{"/planted/*"}, "tidewire"},
	} {
		token := sign(t, "HS256", []byte(secret), nil, with(c.name, c.value))
		if c.name == "exp" && (c.value == json.Number("1e300") || c.value == "planted") {
			refusal(t, v, token, "") // whatever the reason
			continue
		}
		if c.word != "" {
			refusal(t, v, token, c.word)
		} else if _, err := v.Authenticate(context.Background(), token); err != nil {
			t.Errorf("%s = %v: %v", c.name, c.value, err)
		}
	}
	quiet, err := v.Authenticate(context.Background(), sign(t, "HS256", []byte(secret), nil, with("tidewire", nil)))
	if err != nil || !quiet.Silent || !quiet.Rights.Empty() {
		t.Errorf("%+v, %v", quiet, err)
	}
	// Without a limit a token may be for ever.
	cfg.MaxLifetime = 0
	v = newVerifier(t, cfg)
	for _, exp := range []any{nil, in(200 * 365 * 24 * time.Hour)} {
		if id, err := v.Authenticate(context.Background(), sign(t, "HS256", []byte(secret), nil, with("exp", exp))); err != nil || id.Expires.IsZero() != (exp == nil) {
			t.Errorf("%+v, %v", id, err)
		}
	}
}

// What is no token is refused before much is done with it.
func TestGarbage(t *testing.T) {
	v := newVerifier(t, Config{Secret: secretOf(secret)})
	good := sign(t, "HS256", []byte(secret), nil, claims{"sub": "alice"})
	if _, err := v.Authenticate(context.Background(), good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for _, token := range []string{
		"", ".", "..", "...", "planted", parts[0], parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", good + ".", good + "." + parts[2],
		good + "=", " " + good, good + "\n", "Bearer " + good, "." + parts[1] + "." + parts[2], parts[0] + ".." + parts[2],
		parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"planted"}`)) + "." + parts[2],
		strings.Repeat("a", maxToken+1), strings.Repeat(".", maxToken), good[:len(good)-1] + "\x00",
	} {
		refusal(t, v, token, "")
	}
	big := sign(t, "HS256", []byte(secret), nil, claims{"sub": "alice", "x": strings.Repeat("x", maxToken)})
	refusal(t, v, big, "8192")
	// A payload that is not UTF-8, signed as it should be.
	signing := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{\"sub\":\"a\xff\"}"))
	sig, err := jwt.SigningMethodHS256.Sign(signing, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	refusal(t, v, signing+"."+base64.RawURLEncoding.EncodeToString(sig), "UTF-8")
}

// A secret that is replaced while the server runs counts from the next token on.
func TestSecretIsReplaced(t *testing.T) {
	now := secret
	v := newVerifier(t, Config{Secret: func() []byte { return []byte(now) }})
	old := sign(t, "HS256", []byte(secret), nil, claims{"sub": "alice"})
	if _, err := v.Authenticate(context.Background(), old); err != nil {
		t.Fatal(err)
	}
	now = strings.Repeat("n", 64)
	refusal(t, v, old, "signature")
	now = "short"
	refusal(t, v, sign(t, "HS256", []byte(now), nil, claims{"sub": "alice"}), "short")
}

func TestWrongConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want error
	}{
		{Config{}, ErrNoKeys},
		{Config{Secret: secretOf("short")}, ErrSecret},
		{Config{Secret: secretOf("")}, ErrSecret},
		{Config{Secret: secretOf(secret[:40]), Algorithms: []string{"HS384"}}, ErrSecret},
		{Config{Secret: secretOf(secret), Algorithms: []string{"none"}}, ErrAlgorithm},
		{Config{Secret: secretOf(secret), Algorithms: []string{"hs256"}}, ErrAlgorithm},
		{Config{Secret: secretOf(secret), Algorithms: []string{"RS256"}}, ErrAlgorithm},
		{Config{Keys: publicKeys("RS"), Algorithms: []string{"HS256"}}, ErrAlgorithm},
		{Config{Keys: publicKeys("RS"), Algorithms: []string{"ES256"}}, ErrAlgorithm},
		{Config{Keys: publicKeys("ES256"), Algorithms: []string{"ES384"}}, ErrAlgorithm},
		{Config{Keys: publicKeys("ES384"), Algorithms: []string{"ES256"}}, ErrAlgorithm},
	} {
		if _, err := New(c.cfg); !errors.Is(err, c.want) || strings.Contains(err.Error(), secret[:20]) {
			t.Errorf("%+v: %v", c.cfg.Algorithms, err)
		}
	}
	v := newVerifier(t, Config{Secret: secretOf(secret[:40]), Keys: publicKeys("RS", "ES256")})
	if got := fmt.Sprint(v.cfg.Algorithms); got != "[HS256 RS256 RS384 RS512 PS256 PS384 PS512 ES256]" {
		t.Errorf("algorithms: %s", got)
	}
}

func TestParseKeys(t *testing.T) {
	var file []byte
	for _, name := range []string{"RS", "ES256", "EdDSA"} {
		der, err := x509.MarshalPKIXPublicKey(keyring()[name].Public())
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	keys, err := ParseKeys(append([]byte("# three keys\n"), file...))
	if err != nil || len(keys) != 3 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(keyring()["ES256"])
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weakDER, err := x509.MarshalPKIXPublicKey(weak.Public())
	if err != nil {
		t.Fatal(err)
	}
	for word, file := range map[string][]byte{
		"no PEM":     []byte("planted"),
		"private":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"no public":  pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: private}),
		"be read":    pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"2048":       pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: weakDER}),
		"more than ": []byte(strings.Repeat(string(file), 11)),
	} {
		if _, err := ParseKeys(file); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("want %q, got %v", word, err)
		}
	}
}

// Whatever comes, nothing that we have not signed is taken, nothing panics, and no error quotes it.
func FuzzToken(f *testing.F) {
	v := newVerifier(f, Config{Secret: secretOf(secret), Keys: publicKeys("ES256", "EdDSA")})
	good := sign(f, "HS256", []byte(secret), nil, claims{"sub": "alice"})
	f.Add(good)
	f.Add(sign(f, "RS256", keyring()["RS"], nil, claims{"sub": "alice"}))
	f.Add(sign(f, "none", jwt.UnsafeAllowNoneSignatureType, nil, claims{"exp": 1}))
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Authenticate(context.Background(), token)
		if err == nil && token != good {
			t.Fatalf("%q was taken for %+v", token, id)
		}
		var r *auth.RefusedError
		if err != nil && !errors.As(err, &r) {
			t.Fatalf("%v", err)
		}
	})
}
