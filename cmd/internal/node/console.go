package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/console"
	"github.com/tidewire/tidewire/wsedge"
)

// consoleRoutes adds the console and what it asks to the operators' port.
func (n *Node) consoleRoutes(mux *http.ServeMux) {
	mux.Handle("GET /console", http.RedirectHandler("/console/", http.StatusMovedPermanently))
	mux.Handle("GET /console/", console.Handler())
	mux.Handle("GET /console/ws", http.HandlerFunc(n.edge.ServeWS))
	listing := make(chan struct{}, 1) // one at a time: a list looks at every session
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, r *http.Request) { n.sessions(w, r, listing) })
}

// wantsPage says whether who asks for / is a browser.
func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// ownNamesOnly answers requests for other names than the loopback interface's with 403 if the port listens
// there alone: another site's name that is pointed at 127.0.0.1 would otherwise make its pages this node's own.
// /healthz answers to any name, as it says nothing that anybody could want.
func (n *Node) ownNamesOnly(next http.Handler) http.Handler {
	addr, _ := n.admin.Addr().(*net.TCPAddr)
	if addr == nil || !addr.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		name = strings.Trim(name, "[]")
		if r.URL.Path != "/healthz" && net.ParseIP(name) == nil && !strings.EqualFold(name, "localhost") {
			http.Error(w, fmt.Sprintf("this port listens on the loopback interface and does not answer to the name %q: open http://%s/console/", name, addr), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// SessionList is what GET /sessions answers.
type SessionList struct {
	Node bridge.NodeID `json:"node"`
	Now  int64         `json:"now"` // unix milliseconds, as since is
	wsedge.SessionPage
}

const (
	sessionsTimeout = 5 * time.Second
	sessionsLimit   = 50 // sessions told unless asked for another number
	sessionsSubs    = 5  // subscriptions of each
)

// sessions answers GET /sessions?limit=&offset=&subscriptions=&session=.
func (n *Node) sessions(w http.ResponseWriter, r *http.Request, listing chan struct{}) {
	q := wsedge.SessionQuery{ID: r.URL.Query().Get("session")}
	for _, p := range []struct {
		name  string
		to    *int
		value int
		most  int
	}{
		{"limit", &q.Limit, sessionsLimit, wsedge.MaxSessionsListed},
		{"offset", &q.Offset, 0, wsedge.MaxSessionsListed},
		{"subscriptions", &q.Subscriptions, sessionsSubs, wsedge.MaxSubscriptionsListed},
	} {
		*p.to = p.value
		text := r.URL.Query().Get(p.name)
		if text == "" {
			continue
		}
		v, err := strconv.Atoi(text)
		if err != nil || v < 0 || v > p.most {
			http.Error(w, fmt.Sprintf("%s=%.40q: want a number from 0 to %d", p.name, text, p.most), http.StatusBadRequest)
			return
		}
		*p.to = v
	}
	ctx, cancel := context.WithTimeout(r.Context(), sessionsTimeout)
	defer cancel()
	select {
	case listing <- struct{}{}:
		defer func() { <-listing }()
	case <-ctx.Done():
		http.Error(w, "the sessions are being listed for somebody else; ask again", http.StatusServiceUnavailable)
		return
	}
	page, err := n.edge.Sessions(ctx, q)
	if err != nil {
		http.Error(w, fmt.Sprintf("the sessions could not be listed within %s; ask again", sessionsTimeout), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, SessionList{Node: n.cfg.NodeID, Now: time.Now().UnixMilli(), SessionPage: page})
}
