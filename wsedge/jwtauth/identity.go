package jwtauth

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// farFuture is beyond what a time of the protocol can say. A token that ends after it never does.
var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// identity makes an identity of the claims of a token whose signature and times are in order.
func (v *Verifier) identity(token string, claims jwt.MapClaims) (*auth.Identity, error) {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || !utf8.Valid(payload) {
		// A decoder makes U+FFFD of what is no text, and so one name of two.
		return nil, refused("the token's payload is not UTF-8")
	}
	id := &auth.Identity{}
	for _, c := range []struct {
		name string
		to   *string
	}{{"sub", &id.Subject}, {"jti", &id.TokenID}} {
		value, there := claims[c.name]
		text, ok := value.(string)
		if there && (!ok || len(text) > maxName || strings.ContainsRune(text, utf8.RuneError)) {
			return nil, refused("the token's claim %s is not text of at most %d bytes", c.name, maxName)
		}
		*c.to = text
	}
	if at, err := claims.GetIssuedAt(); err == nil && at != nil {
		id.IssuedAt = at.Time
	}
	expires, err := claims.GetExpirationTime()
	if err != nil {
		return nil, refused("the token's claim exp is no number")
	}
	if expires != nil && expires.Before(farFuture) {
		id.Expires = expires.Add(v.cfg.Leeway)
	}
	// From its issue where it says that, else from now. Were it from now always, a token that lives for a year would
	// be taken in its last days, when nobody remembers any more that it was revoked.
	begun := time.Now()
	if !id.IssuedAt.IsZero() && id.IssuedAt.Before(begun) {
		begun = id.IssuedAt
	}
	if limit := v.cfg.MaxLifetime; limit > 0 && (id.Expires.IsZero() || id.Expires.Sub(begun) > limit+v.cfg.Leeway) {
		return nil, refused("the token lives longer than %v, which is the most that is taken (TIDEWIRE_AUTH_MAX_LIFETIME)", limit)
	}
	if err := v.rights(id, claims); err != nil {
		return nil, err
	}
	if v.cfg.KeepClaims {
		id.Claims = payload
	}
	return id, nil
}

var errShape = errors.New("not a list of strings")

func (v *Verifier) rights(id *auth.Identity, claims jwt.MapClaims) error {
	value, there := claims[v.cfg.Claim]
	if !there || value == nil {
		id.Silent = true
		return nil
	}
	wrong := refused(`the token's claim %s is not {"sub":["/topic/*"],"pub":["/topic/key"]}`, v.cfg.Claim)
	object, ok := value.(map[string]any)
	if !ok {
		return wrong
	}
	sub, err := texts(object["sub"])
	if err != nil {
		return wrong
	}
	pub, err := texts(object["pub"])
	if err != nil {
		return wrong
	}
	if id.Rights, err = auth.NewRights(sub, pub, claims); err != nil {
		return refused("%v", err)
	}
	return nil
}

// texts reads a list of strings; nothing is an empty one.
func texts(value any) ([]string, error) {
	if value == nil {
		return nil, nil
	}
	list, ok := value.([]any)
	if !ok {
		return nil, errShape
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, errShape
		}
		out = append(out, s)
	}
	return out, nil
}
