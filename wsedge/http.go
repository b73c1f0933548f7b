package wsedge

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The protocol over plain HTTP: what is served besides /ws. An error is always the `error` object, as JSON,
// whatever else the answer says.

const (
	pathWS      = "/ws"
	pathSSE     = "/sse"
	pathPublish = "/publish"
	pathHistory = "/history"
)

// route serves a request that came through net/http. The path is taken as it was sent, not cleaned: a key may
// hold // and .. as well.
func (srv *Server) route(w http.ResponseWriter, r *http.Request) {
	raw := r.URL.EscapedPath()
	if pathOf(raw) != "" && raw != pathSSE { // a stream is counted for as long as it lasts
		addr, counted, oe := srv.enterRequest(r)
		if counted {
			defer srv.gate.leaveAddress(addr)
		}
		if oe == nil {
			oe = srv.requestRate(addr)
		}
		if oe != nil {
			srv.count(w, pathOf(raw), func(w http.ResponseWriter) {
				if srv.admit(w, r, "GET, HEAD, POST") {
					srv.answerError(w, oe)
				}
			})
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), addrKey{}, addr))
	}
	switch {
	case r.URL.Path == pathWS:
		srv.takeOver(w, r, srv.upgrade)
	case raw == pathSSE:
		srv.count(w, pathSSE, func(w http.ResponseWriter) {
			switch {
			case !srv.admit(w, r, "GET, HEAD"):
			case r.Method == http.MethodGet:
				srv.takeOver(w, r, srv.openStream)
			case r.Method == http.MethodHead:
				w.Header().Set("Content-Type", "text/event-stream")
			default:
				srv.wrongMethod(w, "GET, HEAD")
			}
		})
	case raw == pathPublish || strings.HasPrefix(raw, pathPublish+"/"):
		srv.count(w, pathPublish, func(w http.ResponseWriter) {
			switch {
			case !srv.admit(w, r, "POST"):
			case r.Method == http.MethodPost:
				srv.publishHTTP(w, r, raw[len(pathPublish):])
			default:
				srv.wrongMethod(w, "POST")
			}
		})
	case raw == pathHistory || strings.HasPrefix(raw, pathHistory+"/"):
		srv.count(w, pathHistory, func(w http.ResponseWriter) {
			switch {
			case !srv.admit(w, r, "GET, HEAD"):
			case r.Method == http.MethodGet || r.Method == http.MethodHead:
				srv.historyHTTP(w, r, raw[len(pathHistory):])
			default:
				srv.wrongMethod(w, "GET, HEAD")
			}
		})
	default:
		srv.cfg.HTTP.ServeHTTP(w, r)
	}
}

// pathOf is the path of an API without its subject, empty for others.
func pathOf(raw string) string {
	for _, p := range [...]string{pathSSE, pathPublish, pathHistory} {
		if raw == p || p != pathSSE && strings.HasPrefix(raw, p+"/") {
			return p
		}
	}
	return ""
}

// addrKey has a request's context tell for whom it is.
type addrKey struct{}

func addrOf(r *http.Request) netip.Addr {
	addr, _ := r.Context().Value(addrKey{}).(netip.Addr)
	return addr
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// count has a request served and counted. One that was taken over counts itself.
func (srv *Server) count(w http.ResponseWriter, path string, serve func(http.ResponseWriter)) {
	sw := &statusWriter{ResponseWriter: w}
	serve(sw)
	if sw.status != 0 {
		srv.metrics.requested(path, sw.status)
	}
}

func (srv *Server) wrongMethod(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	srv.answerErrorAs(w, http.StatusMethodNotAllowed, &OpError{Code: codeBadRequest, Message: "the method here is " + strings.ReplaceAll(allow, ", ", " or ")})
}

// nothingHere answers where nothing else is served.
func (srv *Server) nothingHere(w http.ResponseWriter, _ *http.Request) {
	srv.answerErrorAs(w, http.StatusNotFound, &OpError{Code: codeBadRequest, Message: "there is /ws, GET /sse?subject=/topic/key, POST /publish/topic/key and GET /history/topic/key here"})
}

// statusOf maps an error to HTTP.
func statusOf(e *OpError) int {
	if e.status != 0 {
		return e.status
	}
	switch e.Code {
	case codeBadSubject:
		if e.absent {
			return http.StatusNotFound
		}
		return http.StatusBadRequest
	case codeForbidden:
		return http.StatusForbidden
	case codeUnauthenticated:
		return http.StatusUnauthorized
	case codeTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeRateLimited:
		return http.StatusTooManyRequests
	case codeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

func (srv *Server) answerError(w http.ResponseWriter, e *OpError) {
	srv.answerErrorAs(w, statusOf(e), e)
}

func (srv *Server) answerErrorAs(w http.ResponseWriter, status int, e *OpError) {
	srv.metrics.failed(e.Code)
	setRetryAfter(w.Header(), e.Retry)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750, section 3
	}
	writeJSON(w, status, payloadOf(appendError(nil, e)))
}

// setRetryAfter says in whole seconds, which is all that HTTP knows, when to come again.
func setRetryAfter(h http.Header, retry time.Duration) {
	if retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((retry+time.Second-1)/time.Second), 10))
	}
}

// writeJSON writes an object and a newline, for people with curl.
func writeJSON(w http.ResponseWriter, status int, object []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(object)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(object, '\n'))
}
