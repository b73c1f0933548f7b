package node

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
)

// maxProfile bounds how long a profile may be taken, in seconds: while one is, nobody else gets another, and the node
// works more slowly.
const maxProfile = 60

// profileRoutes adds Go's profiles to the operators' port: go tool pprof http://HOST:8081/debug/pprof/profile. They hold
// names of functions and numbers, and, of the process's arguments, none: there are no secrets in these.
func (n *Node) profileRoutes(mux *http.ServeMux) {
	for _, kind := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		mux.Handle("GET /debug/pprof/"+kind, bounded(pprof.Handler(kind)))
	}
	mux.Handle("GET /debug/pprof/profile", bounded(http.HandlerFunc(pprof.Profile)))
	mux.Handle("GET /debug/pprof/trace", bounded(http.HandlerFunc(pprof.Trace)))
}

// bounded refuses a time over maxProfile.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("seconds"); text != "" {
			if s, err := strconv.ParseFloat(text, 64); err != nil || !(s > 0 && s <= maxProfile) {
				http.Error(w, fmt.Sprintf("seconds=%.40q: want a number above 0, at most %d", text, maxProfile), http.StatusBadRequest)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
