package wsedge

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Browser origins, by the same rule as the WebSocket handshake: a request without Origin comes from a program
// and may pass; one from the host that it goes to may pass; any other needs TIDEWIRE_ALLOWED_ORIGINS. One that
// may not pass is refused, not just left without CORS headers: those keep a page from reading the answer to a
// publish, not from publishing.

// crossOrigin says whether a request may pass, and, where it comes from another origin, what its answer has
// to carry for the browser to let the page see it.
func (srv *Server) crossOrigin(r *http.Request) (allow string, ok bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return "", true
	}
	for _, pattern := range srv.cfg.AllowedOrigins {
		if pattern == "*" {
			return "*", true
		}
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return "", false
	}
	if strings.EqualFold(r.Host, u.Host) {
		return origin, true
	}
	for _, pattern := range srv.cfg.AllowedOrigins {
		target := u.Host
		if strings.Contains(pattern, "://") {
			target = u.Scheme + "://" + u.Host
		}
		if match, err := path.Match(strings.ToLower(pattern), strings.ToLower(target)); err == nil && match {
			return origin, true
		}
	}
	return "", false
}

// admit sets the CORS headers of an answer, or answers for itself: it returns false for a preflight, which is
// done then, and for an origin that may not pass.
func (srv *Server) admit(w http.ResponseWriter, r *http.Request, methods string) bool {
	h := w.Header()
	h.Add("Vary", "Origin")
	allow, ok := srv.crossOrigin(r)
	if !ok {
		srv.answerError(w, &OpError{Code: codeForbidden, Message: "pages of this origin may not connect: TIDEWIRE_ALLOWED_ORIGINS names those that may"})
		return false
	}
	if allow != "" {
		h.Set("Access-Control-Allow-Origin", allow)
		h.Set("Access-Control-Expose-Headers", "Tidewire-Vector, Retry-After")
	}
	if r.Method != http.MethodOptions {
		return true
	}
	h.Set("Allow", methods)
	if asked := r.Header.Get("Access-Control-Request-Method"); asked != "" {
		h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Max-Age", "600")
		if names := allowedHeaders(r.Header.Values("Access-Control-Request-Headers")); names != "" {
			h.Set("Access-Control-Allow-Headers", names)
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

// allowedHeaders returns those of the headers that a page asks for which this API knows.
func allowedHeaders(asked []string) string {
	var names []string
	for _, list := range asked {
		for name := range strings.SplitSeq(list, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			switch name {
			case "authorization", "content-type", "idempotency-key", "last-event-id", "cache-control", "accept":
			default:
				if !strings.HasPrefix(name, recordHeaderPrefix) || strings.Trim(name, headerNameChars) != "" {
					continue
				}
			}
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// headerNameChars are those of a header's name (RFC 9110, token) in lower case.
const headerNameChars = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
