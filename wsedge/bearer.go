package wsedge

import (
	"net/http"
	"strings"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// identifyRequest finds out whose the token of a request is, from its header Authorization (RFC 6750, section 2.1)
// and from nowhere else: what stands in a URL ends up in logs. It returns nil for a request without a token, and
// where none is asked for.
func (srv *Server) identifyRequest(r *http.Request) (*auth.Identity, *OpError) {
	if srv.cfg.Auth == nil {
		return nil, nil
	}
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0:
		return nil, nil
	case len(headers) > 1:
		return nil, &OpError{Code: codeUnauthenticated, Message: "the header Authorization is there twice"}
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, &OpError{Code: codeUnauthenticated, Message: "the header Authorization is: Bearer, a space, the token"}
	}
	return srv.identify(srv.ctx, token) // and not the request's: that of a handshake never ends
}

// refuseUpgrade answers a handshake with an error and closes the connection.
func (srv *Server) refuseUpgrade(w *upgradeWriter, oe *OpError) {
	srv.answerError(w, oe)
	w.finish()
	w.conn.Close()
}
