package kafkaio

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/tidewire/tidewire/internal/secret"
)

// OAuth says where the token of OAUTHBEARER comes from: either Token, or TokenURL with ClientID and ClientSecret.
type OAuth struct {
	Token secret.Secret // asked for at every authentication; mostly a file that somebody renews

	TokenURL     string // https, or http on the loopback interface
	ClientID     string
	ClientSecret secret.Secret // asked for at every question for a token
	Scope        string        // scopes, with spaces between; may be empty

	Extensions map[string]string // sent along with the token (KIP-342); may be nil
}

func (o OAuth) isSet() bool {
	return o.Token.IsSet() || o.TokenURL != "" || o.ClientID != "" || o.ClientSecret.IsSet() || o.Scope != "" || len(o.Extensions) > 0
}

// Validate says everything that is wrong with o, in one line each.
func (o OAuth) Validate() error {
	var errs []error
	switch {
	case o.Token.IsSet() && (o.TokenURL != "" || o.ClientID != "" || o.ClientSecret.IsSet() || o.Scope != ""):
		errs = append(errs, errors.New("OAUTHBEARER has both a token and a token endpoint: want one of them"))
	case o.Token.IsSet():
	case o.TokenURL == "":
		errs = append(errs, errors.New("OAUTHBEARER needs a token or a token endpoint"))
	default:
		errs = append(errs, checkTokenURL(o.TokenURL))
		if o.ClientID == "" || !o.ClientSecret.IsSet() {
			errs = append(errs, errors.New("OAUTHBEARER's token endpoint needs a client id and a client secret"))
		}
	}
	for name, value := range o.Extensions {
		if !extensionName.MatchString(name) || name == "auth" || !extensionValue.MatchString(value) {
			errs = append(errs, fmt.Errorf("OAUTHBEARER's extension %q: want letters (but not auth), and printable characters as the value", name))
		}
	}
	return errors.Join(errs...)
}

// checkTokenURL demands TLS where the client secret would travel over a network.
func checkTokenURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("OAUTHBEARER's token endpoint: want an address such as https://login.example.com/oauth2/token, without a user")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http":
		if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
			return nil
		}
	}
	return errors.New("OAUTHBEARER's token endpoint: want https, as the client secret is sent to it (http on the loopback interface alone)")
}

func (o OAuth) mechanism() *oauthMechanism {
	if o.Token.IsSet() {
		return &oauthMechanism{extensions: o.Extensions, token: func(context.Context) (string, error) { return o.Token.Value(), nil }}
	}
	c := &credentialsClient{OAuth: o, http: tokenHTTPClient()}
	cache := newTokenCache(c.fetch)
	return &oauthMechanism{user: o.ClientID, extensions: o.Extensions, token: cache.get, closeFunc: func() {
		cache.close()
		c.http.CloseIdleConnections()
	}}
}

// credentialsClient asks a token endpoint for tokens (RFC 6749, section 4.4).
type credentialsClient struct {
	OAuth
	http *http.Client
}

// defaultTokenLife is that of a token whose endpoint does not say.
const defaultTokenLife = time.Minute

func (c *credentialsClient) fetch(ctx context.Context) (token, error) {
	password := c.ClientSecret.Value()
	config := clientcredentials.Config{ClientID: c.ClientID, ClientSecret: password, TokenURL: c.TokenURL, Scopes: strings.Fields(c.Scope)}
	t, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, c.http))
	if err != nil {
		return token{}, c.explain(err, password)
	}
	if t.Expiry.IsZero() {
		t.Expiry = time.Now().Add(defaultTokenLife)
	}
	return token{value: t.AccessToken, expiry: t.Expiry}, nil
}

// explain is what is told of an error: the library's own holds the whole answer, whatever that is.
func (c *credentialsClient) explain(err error, password string) error {
	u, _ := url.Parse(c.TokenURL) // checked by Validate
	where := u.Scheme + "://" + u.Host + u.Path
	var refused *oauth2.RetrieveError
	var dial *url.Error
	switch {
	case errors.As(err, &refused):
		said := refused.Response.Status
		if refused.ErrorCode != "" {
			said += ", " + refused.ErrorCode
		}
		if refused.ErrorDescription != "" {
			said += ": " + refused.ErrorDescription
		}
		said = scrub(clip(said), password, url.QueryEscape(password),
			base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(c.ClientID)+":"+url.QueryEscape(password))))
		return fmt.Errorf("the token endpoint %s refuses client %q: %s", where, c.ClientID, said)
	case errors.As(err, &dial):
		return fmt.Errorf("ask the token endpoint %s: %w", where, dial.Err)
	}
	return fmt.Errorf("the token endpoint %s gave no token: its answer is not what RFC 6749 says", where)
}

// scrub takes secrets out of a text.
func scrub(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[secret]")
		}
	}
	return text
}

// tokenHTTPClient follows no redirect, as the client secret would go along to wherever it leads.
func tokenHTTPClient() *http.Client {
	return &http.Client{
		Timeout:       tokenTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: tokenTimeout}).DialContext,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           1,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}
