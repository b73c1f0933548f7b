package abuse

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Both forms of a report tell each phase, what was counted, and what did not hold.
func TestReport(t *testing.T) {
	r := newReport(Options{Clients: 1000, Rate: 200, Memory: 128 << 20}, "4.1")
	r.Phases, r.Before, _ = good()
	r.finish()
	page := filepath.Join(t.TempDir(), "abuse.md")
	for _, breach := range []bool{false, true} {
		if breach {
			r.Phases[1].Faults = map[Fault]int{Lost: 7}
			r.finish()
		}
		var text strings.Builder
		r.WriteText(&text)
		if err := r.WriteMarkdown(page); err != nil {
			t.Fatal(err)
		}
		md, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for form, got := range map[string]string{"text": text.String(), "markdown": string(md)} {
			for _, want := range []string{"half-open", "2.00", "20.0 ms", "100 MiB"} {
				if !strings.Contains(got, want) {
					t.Errorf("%s has no %q:\n%s", form, want, got)
				}
			}
			if strings.Contains(got, "7 × lost") != breach || strings.Contains(got, "NOT HELD") != breach {
				t.Errorf("%s, breach %v:\n%s", form, breach, got)
			}
		}
		if !strings.Contains(string(md), "connections 20,000, limit handshakes 5") || strings.Contains(string(md), "Everything held.") == breach {
			t.Errorf("breach %v:\n%s", breach, md)
		}
	}
}
