package node

import (
	"errors"
	"net/url"
	"os"
	"time"

	"github.com/tidewire/tidewire/wsedge/auth"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
	"github.com/tidewire/tidewire/wsedge/webhook"
)

// parseAuth reads who may do what. What is given for tokens while nobody is asked for one stops the start: whoever
// set it believes that his topics are not open to everybody.
func (e *env) parseAuth(c *Config, p *problems) {
	switch e.Auth {
	case "jwt":
	case "none":
		for _, v := range []struct{ name, value string }{
			{"TIDEWIRE_AUTH_JWT_SECRET", e.maskedSecret("TIDEWIRE_AUTH_JWT_SECRET")}, {"TIDEWIRE_AUTH_JWT_KEY_FILE", e.AuthJWTKeyFile}, {"TIDEWIRE_AUTH_JWKS_URL", e.AuthJWKSURL},
			{"TIDEWIRE_AUTH_JWT_ISSUER", e.AuthJWTIssuer}, {"TIDEWIRE_AUTH_JWT_AUDIENCE", e.AuthJWTAudience}, {"TIDEWIRE_AUTH_JWT_ALGORITHMS", e.AuthJWTAlgorithms},
			{"TIDEWIRE_ANONYMOUS_SUB", e.AnonymousSub}, {"TIDEWIRE_ANONYMOUS_PUB", e.AnonymousPub},
		} {
			if v.value != "" {
				p.add(v.name, v.value, "no token is asked for and everything is open to everybody: set TIDEWIRE_AUTH=jwt too, or leave this out")
			}
		}
		return
	default:
		p.add("TIDEWIRE_AUTH", e.Auth, "want none or jwt")
		return
	}
	before := len(*p)
	cfg := &jwtauth.Config{
		Algorithms: list(e.AuthJWTAlgorithms), Issuer: e.AuthJWTIssuer, Audience: list(e.AuthJWTAudience), Claim: e.AuthJWTClaim,
		Leeway:      p.duration("TIDEWIRE_AUTH_JWT_LEEWAY", e.AuthJWTLeeway, 0, 10*time.Minute),
		MaxLifetime: p.duration("TIDEWIRE_AUTH_MAX_LIFETIME", e.AuthMaxLifetime, 0, 10*365*24*time.Hour),
		Log:         c.Log.With().Str("component", "auth").Logger(),
	}
	if key := e.secret("TIDEWIRE_AUTH_JWT_SECRET"); key.IsSet() {
		cfg.Secret = func() []byte { return []byte(key.Value()) }
	}
	if file := e.AuthJWTKeyFile; file != "" {
		text, err := os.ReadFile(file)
		if err == nil {
			cfg.Keys, err = jwtauth.ParseKeys(text)
		}
		if err != nil {
			p.add("TIDEWIRE_AUTH_JWT_KEY_FILE", file, "want a PEM file of public keys: %v", err)
		}
	}
	if e.AuthJWKSURL != "" {
		var err error
		if cfg.JWKS, err = jwtauth.CheckAddress(e.AuthJWKSURL); err != nil {
			p.add("TIDEWIRE_AUTH_JWKS_URL", addressOf(e.AuthJWKSURL), "%v", err)
		}
	}
	e.parseAnonymous(c, p)
	if len(*p) > before || cfg.Secret == nil && os.Getenv("TIDEWIRE_AUTH_JWT_SECRET"+fileSuffix) != "" {
		return // it has been told what is wrong, and would be told as well that there are no keys
	}
	_, err := jwtauth.New(*cfg)
	for _, err := range parts(err) {
		switch {
		case errors.Is(err, jwtauth.ErrSecret):
			p.add("TIDEWIRE_AUTH_JWT_SECRET", mask, "%v", err)
		case errors.Is(err, jwtauth.ErrAlgorithm):
			p.add("TIDEWIRE_AUTH_JWT_ALGORITHMS", e.AuthJWTAlgorithms, "%v", err)
		case errors.Is(err, jwtauth.ErrNoKeys):
			p.add("TIDEWIRE_AUTH", e.Auth, "want TIDEWIRE_AUTH_JWT_SECRET, TIDEWIRE_AUTH_JWT_KEY_FILE or TIDEWIRE_AUTH_JWKS_URL to verify tokens with")
		default:
			p.add("TIDEWIRE_AUTH", e.Auth, "%v", err)
		}
	}
	c.Auth = cfg
}

func (e *env) parseAnonymous(c *Config, p *problems) {
	sub, pub := list(e.AnonymousSub), list(e.AnonymousPub)
	for _, v := range []struct {
		name, value string
		sub, pub    []string
	}{{"TIDEWIRE_ANONYMOUS_SUB", e.AnonymousSub, sub, nil}, {"TIDEWIRE_ANONYMOUS_PUB", e.AnonymousPub, nil, pub}} {
		if _, err := auth.ParseRights(v.sub, v.pub); err != nil {
			p.add(v.name, v.value, "want subjects and patterns such as /prices/*: %v", err)
		}
	}
	c.Anonymous, _ = auth.ParseRights(sub, pub) // what is wrong has been told
}

func (e *env) parseWebhook(c *Config, p *problems) {
	timeout := p.duration("TIDEWIRE_AUTH_WEBHOOK_TIMEOUT", e.AuthWebhookTimeout, 10*time.Millisecond, 10*time.Second)
	token := e.secret("TIDEWIRE_AUTH_WEBHOOK_TOKEN")
	if e.AuthWebhook == "" {
		if token.IsSet() {
			p.add("TIDEWIRE_AUTH_WEBHOOK_TOKEN", mask, "given without TIDEWIRE_AUTH_WEBHOOK")
		}
		return
	}
	u, err := jwtauth.CheckAddress(e.AuthWebhook)
	if err != nil {
		p.add("TIDEWIRE_AUTH_WEBHOOK", addressOf(e.AuthWebhook), "%v", err)
		return
	}
	c.Webhook = &webhook.Config{URL: u, Timeout: timeout, Log: c.Log.With().Str("component", "auth").Logger()}
	if token.IsSet() {
		c.Webhook.Token = token.Value
	}
	if c.Auth != nil {
		c.Auth.KeepClaims = true
	}
}

// maskedSecret is the mask where there is a secret, and nothing where there is none.
func (e *env) maskedSecret(name string) string {
	if e.secret(name).IsSet() {
		return mask
	}
	return ""
}

// parts takes joined errors apart.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && err != nil {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, parts(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// addressOf is an address without what may be secret in it.
func addressOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "…"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
