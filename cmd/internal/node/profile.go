package node

import (
	"net/http"
	"net/http/pprof"
)

// profileRoutes adds Go's profiles to the operators' port: go tool pprof http://HOST:8081/debug/pprof/profile. They hold
// names of functions and numbers, and, of the process's arguments, none: there are no secrets in these.
func (n *Node) profileRoutes(mux *http.ServeMux) {
	for _, kind := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		mux.Handle("GET /debug/pprof/"+kind, pprof.Handler(kind))
	}
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
