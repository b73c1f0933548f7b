// Package console holds the page on the admin port that shows an operator the cluster, its rates and its
// sessions, and lets them try a subscription or a publish. The page is static: it asks the node's own
// /status, /sessions and /console/ws. Nothing of it comes from another address, and it works without a build.
package console

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed page
var page embed.FS

// policy lets the page load and ask nothing but its own node, and no other page frame it. What a key, a value
// or a name holds could not run even if the page took it for markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// Handler serves the page below /console/.
func Handler() http.Handler {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	server := http.StripPrefix("/console/", http.FileServerFS(files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // a node that was updated serves another page
		server.ServeHTTP(w, r)
	})
}
