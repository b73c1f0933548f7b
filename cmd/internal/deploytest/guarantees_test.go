package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/guarantees.md names the tests that show each guarantee: every one of them exists, and none of the
// invariants is without.
func TestGuaranteesNameRealTests(t *testing.T) {
	b, err := os.ReadFile(root + "docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	reference := regexp.MustCompile("`\\./([a-z0-9/]+) ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)`")
	sources := map[string]string{} // folder -> its tests' text
	for _, m := range reference.FindAllStringSubmatch(page, -1) {
		folder, name := m[1], m[2]
		text, ok := sources[folder]
		if !ok {
			files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				src, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				text += string(src)
			}
			sources[folder] = text
		}
		if !strings.Contains(text, "\nfunc "+name+"(") {
			t.Errorf("docs/guarantees.md names `./%s %s`, which does not exist", folder, name)
		}
	}
	// A name that is written otherwise would not be looked up above.
	for _, word := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(reference.ReplaceAllString(page, ""), -1) {
		if word != "TestResolve" { // of the command at the head of the page
			t.Errorf("docs/guarantees.md: %s is not written as `./folder %s`", word, word)
		}
	}
	for i := 1; i <= 8; i++ {
		_, section, ok := strings.Cut(page, fmt.Sprintf("\n## I%d: ", i))
		section, _, _ = strings.Cut(section, "\n## ")
		if !ok || !reference.MatchString(section) {
			t.Errorf("docs/guarantees.md: I%d has no section with a test", i)
		}
	}
}
