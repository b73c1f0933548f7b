package node

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/certs"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/replication"
)

// The operators' port is for whoever runs the node: it shows everything and changes the members. It listens on the
// loopback interface, or else asks who comes: for a token, by scripts in the header Authorization and by the console in
// a cookie, or for a certificate that an authority of the operator's has signed. /healthz and /readyz are open to all, as
// orchestrators ask them without being able to show anything; so is the console's page, which holds nothing until it has
// asked.

// AdminAccess says who may use the operators' port.
type AdminAccess struct {
	Token secret.Secret // nobody without it, or a certificate; may be in a file, and change. None: no token is known

	TLSCert, TLSKey string // files, PEM; empty: no TLS
	TLSClientCA     string // file, PEM: whose certificates are as good as the token; empty: nobody's
}

// minAdminToken is the least length of a token, in bytes: what is shorter can be tried out.
const minAdminToken = 16

// needed says that something must be shown.
func (a *AdminAccess) needed() bool { return a.Token.IsSet() || a.TLSClientCA != "" }

// problem is what is wrong with the access to an address: the variable, its value and what would be right.
func (a *AdminAccess) problem(listen string) (name, value, right string) {
	switch {
	case a.Token.IsSet() && len(a.Token.Value()) < minAdminToken:
		return "TIDEWIRE_ADMIN_TOKEN", mask, fmt.Sprintf("want at least %d characters, such as `openssl rand -hex 24` prints", minAdminToken)
	case a.TLSClientCA != "" && a.TLSCert == "":
		return "TIDEWIRE_ADMIN_TLS_CLIENT_CA", a.TLSClientCA, "certificates are shown over TLS: set TIDEWIRE_ADMIN_TLS_CERT and TIDEWIRE_ADMIN_TLS_KEY too"
	case !a.needed() && !replication.OnLoopback(listen):
		return "TIDEWIRE_ADMIN_LISTEN", listen, "who reaches this port can read everything and change the members: set TIDEWIRE_ADMIN_TOKEN, or TIDEWIRE_ADMIN_TLS_CLIENT_CA with TIDEWIRE_ADMIN_TLS_CERT and _KEY, or listen on 127.0.0.1"
	}
	return "", "", ""
}

// adminListener puts TLS around the operators' port if it has a certificate.
func (n *Node) adminListener() (net.Listener, *certs.Files, error) {
	a := &n.cfg.Admin
	if a.TLSCert == "" {
		if a.Token.IsSet() && !replication.OnLoopback(n.cfg.AdminListen) {
			n.log.Warn().Msg("the admin token crosses the network unencrypted: TIDEWIRE_ADMIN_TLS_CERT and _KEY would change that")
		}
		return n.admin, nil, nil
	}
	files, err := certs.Load(a.TLSCert, a.TLSKey, n.component("admin-tls"))
	if err != nil {
		return nil, nil, fmt.Errorf("TIDEWIRE_ADMIN_TLS_CERT=%q: %w", a.TLSCert, err)
	}
	cfg := &tls.Config{GetCertificate: files.GetCertificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if a.TLSClientCA != "" {
		if cfg.ClientCAs, err = readCAs(a.TLSClientCA); err != nil {
			return nil, nil, fmt.Errorf("TIDEWIRE_ADMIN_TLS_CLIENT_CA=%q: %w", a.TLSClientCA, err)
		}
		// Whoever shows none may still come with the token, or to /healthz.
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return tls.NewListener(n.admin, cfg), files, nil
}

// guard lets only those through who may use the port. Nothing counts wrong tokens: one of minAdminToken random characters
// is not found by trying, and whoever made a counter full would lock the operators out.
type guard struct{ access *AdminAccess }

const (
	adminCookie     = "tidewire_admin"
	adminCookieLife = 12 * time.Hour
)

func newGuard(access *AdminAccess) *guard {
	return &guard{access: access}
}

// shown says whether a request shows what it needs to; by a cookie, which a browser sends along on its own, only where it
// comes from the console's page.
func (g *guard) shown(r *http.Request) bool {
	if !g.access.needed() {
		return true
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	if !g.access.Token.IsSet() {
		return false
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok && g.isToken(token) {
		return true
	}
	c, err := r.Cookie(adminCookie)
	return err == nil && g.goodCookie(c.Value, time.Now()) && (safe(r.Method) || sameOrigin(r))
}

func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// foreign says that a browser asks for another site's page. Of what such a page asks without an Origin (an image, a frame, a
// link) browsers tell by Sec-Fetch-Site, to https and to the loopback interface; a page of another port of this machine, which
// they call same-site, is another site's here too. Whatever is open may be linked to.
func foreign(r *http.Request) bool {
	if r.Header.Get("Origin") != "" {
		return !sameOrigin(r)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none": // no browser, the console, who types the address
		return false
	}
	return !open(r)
}

// sameOrigin says that a browser asks for a page of this very address.
func sameOrigin(r *http.Request) bool {
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// isToken compares hashes, which all have the same length.
func (g *guard) isToken(token string) bool {
	is, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(g.access.Token.Value()))
	return g.access.Token.IsSet() && subtle.ConstantTimeCompare(is[:], want[:]) == 1
}

// A cookie is when it ends, in seconds, and a signature of that. It holds nothing of the token.
func (g *guard) newCookie(now time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(now.Add(adminCookieLife).Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, g.sign(b)...))
}

func (g *guard) goodCookie(value string, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b[8:], g.sign(b[:8])) {
		return false
	}
	return int64(binary.BigEndian.Uint64(b)) > now.Unix()
}

// sign signs with a key made of the token: cookies are good on all nodes that have the same one, until it changes.
func (g *guard) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, []byte(g.access.Token.Value()))
	mac.Write([]byte("tidewire: cookie of the console\n"))
	mac.Write(b)
	return mac.Sum(nil)
}

// open are the paths that need nothing to be shown.
func open(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/console", "/console/login":
		return true
	case "/":
		return wantsPage(r) // leads a browser to the console
	case "/console/ws":
		return false
	}
	return safe(r.Method) && strings.HasPrefix(r.URL.Path, "/console/")
}

// protect serves requests that may pass, and refuses what a browser asks for another site's page.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if foreign(r) {
			http.Error(w, "only the console's own page may ask for this, or who types the address", http.StatusForbidden)
			return
		}
		if !open(r) && !g.shown(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="tidewire admin"`)
			http.Error(w, "this port wants the header Authorization: Bearer and TIDEWIRE_ADMIN_TOKEN, or a client certificate; a browser is asked at /console/", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// login answers POST /console/login {"token":"…"} with the cookie.
func (g *guard) login(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Token string `json:"token"`
	}
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&body)
	switch {
	case !sameOrigin(r):
		http.Error(w, "only the console's own page may do that", http.StatusForbidden)
	case err != nil:
		http.Error(w, "want a JSON object with the token", http.StatusBadRequest)
	case !g.access.Token.IsSet():
		http.Error(w, "this port knows no token: TIDEWIRE_ADMIN_TOKEN", http.StatusForbidden)
	case !g.isToken(body.Token):
		http.Error(w, "that is not the token", http.StatusUnauthorized)
	default:
		http.SetCookie(w, &http.Cookie{
			Name: adminCookie, Value: g.newCookie(time.Now()), Path: "/", MaxAge: int(adminCookieLife.Seconds()),
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
		w.WriteHeader(http.StatusNoContent)
	}
}

// parseAdmin reads who may use the operators' port.
func (e *env) parseAdmin(c *Config, p *problems) {
	c.Admin = AdminAccess{Token: e.secret("TIDEWIRE_ADMIN_TOKEN"), TLSCert: e.AdminTLSCert, TLSKey: e.AdminTLSKey, TLSClientCA: e.AdminTLSClientCA}
	before := len(*p)
	p.pair("TIDEWIRE_ADMIN_TLS_CERT", e.AdminTLSCert, "TIDEWIRE_ADMIN_TLS_KEY", e.AdminTLSKey)
	p.caFile("TIDEWIRE_ADMIN_TLS_CLIENT_CA", e.AdminTLSClientCA)
	if _, _, err := net.SplitHostPort(e.AdminListen); err != nil || len(*p) > before {
		return // said already
	}
	if name, value, right := c.Admin.problem(c.AdminListen); name != "" {
		p.add(name, value, "%s", right)
	}
}
