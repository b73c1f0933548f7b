package console

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// What a page shows is data of whoever may write to a topic or connect: it goes in as text, never as markup. And
// the page works where there is no Internet, under a policy that lets nothing else in: so it has no style and no
// script of its own in its markup either.
func TestPageTakesNoMarkupAndNothingFromOutside(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|setHTML|document\.write|\beval\b|new Function|srcdoc| style=| on[a-z]+=|javascript:`)
	outside := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}`)
	files := 0
	err := fs.WalkDir(page, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := fs.ReadFile(page, path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "") // a name, not an address
		if m := forbidden.FindString(text); m != "" {
			t.Errorf("%s uses %q", path, m)
		}
		if m := outside.FindString(text); m != "" {
			t.Errorf("%s refers to %s", path, m)
		}
		return nil
	})
	if err != nil || files < 5 {
		t.Fatal(files, err)
	}
}

// Every file goes out with the policy, and nothing else is there.
func TestHandler(t *testing.T) {
	h := Handler()
	for path, want := range map[string]int{
		"/console/": 200, "/console/app.js": 200, "/console/style.css": 200, "/console/icon.svg": 200,
		"/console/console.go": 404, "/console/../console.go": 404, "/console/page/": 404,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("GET %s: %d, want %d", path, w.Code, want)
		}
		for name, value := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer",
		} {
			if got := w.Header().Get(name); got != value {
				t.Errorf("GET %s: %s is %q", path, name, got)
			}
		}
	}
}
