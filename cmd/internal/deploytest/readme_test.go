package deploytest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidewire/tidewire/cmd/internal/node"
)

var update = flag.Bool("update", false, "write the README's table of variables anew")

// The README's table is that of `tidewire -h`. After a change to the variables:
//
//	go test ./cmd/internal/deploytest -update
func TestReadmeTable(t *testing.T) {
	const begin, end = "<!-- config -->\n", "<!-- /config -->\n"
	b, err := os.ReadFile(root + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("the README has no <!-- config --> … <!-- /config -->")
	}
	var table strings.Builder
	table.WriteString("| variable | default | meaning |\n| --- | --- | --- |\n")
	for _, v := range node.Variables() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", v.Name, v.Default, strings.ReplaceAll(v.Meaning, "|", "\\|"))
	}
	want := before + begin + table.String() + end + after
	if want == text {
		return
	}
	if !*update {
		t.Fatal("the README's table of variables is not that of tidewire -h: run go test ./cmd/internal/deploytest -update")
	}
	if err := os.WriteFile(root+"README.md", []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
