package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// reference is how a page names a test.
var reference = regexp.MustCompile("`\\./([a-z0-9/]+) ((?:Test|Fuzz|Benchmark)[A-Za-z0-9_]+)`")

// docs/guarantees.md and docs/security.md name the tests that show what they say: every one of them exists, and none of
// the invariants is without.
func TestGuaranteesNameRealTests(t *testing.T) {
	for _, name := range []string{"docs/guarantees.md", "docs/security.md"} {
		namesRealTests(t, name)
	}
	b, err := os.ReadFile(root + "docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for i := 1; i <= 8; i++ {
		_, section, ok := strings.Cut(page, fmt.Sprintf("\n## I%d: ", i))
		section, _, _ = strings.Cut(section, "\n## ")
		if !ok || !reference.MatchString(section) {
			t.Errorf("docs/guarantees.md: I%d has no section with a test", i)
		}
	}
}

func namesRealTests(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(root + file)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	sources := map[string]string{} // folder -> its tests' text
	references := reference.FindAllStringSubmatch(page, -1)
	if len(references) == 0 {
		t.Errorf("%s names no test", file)
	}
	for _, m := range references {
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
			t.Errorf("%s names `./%s %s`, which does not exist", file, folder, name)
		}
	}
	// A name that is written otherwise would not be looked up above.
	for _, word := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(reference.ReplaceAllString(page, ""), -1) {
		if word != "TestResolve" { // of the command at the head of docs/guarantees.md
			t.Errorf("%s: %s is not written as `./folder %s`", file, word, word)
		}
	}
}
