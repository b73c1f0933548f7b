package node

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A profile that would be taken for hours is not begun.
func TestProfilesAreBounded(t *testing.T) {
	mux := http.NewServeMux()
	(&Node{}).profileRoutes(mux)
	// Whoever asks has gone: a profile that is begun all the same ends at once.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for query, want := range map[string]int{
		"profile?seconds=61": 400, "profile?seconds=1e9": 400, "profile?seconds=-1": 400, "profile?seconds=NaN": 400, "profile?seconds=x": 400, "profile?seconds=60": 200,
		"trace?seconds=3600": 400, "trace?seconds=0.01": 200, "heap?seconds=61": 400, "mutex?seconds=86400": 400, "heap": 200,
		"profile?seconds=86400&seconds=1": 400, "goroutine?debug=1": 200,
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(gone, "GET", "/debug/pprof/"+query, nil))
		if w.Code != want {
			t.Errorf("%s: %d %.80q, want %d", query, w.Code, w.Body, want)
		}
	}
}
