package deploytest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// `make fuzz` runs a target again for a race in Go that ends it without a failing input, and for nothing else.
func TestFuzzFailsForFailuresAlone(t *testing.T) {
	script, err := filepath.Abs(root + "testdata/fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	const race = "--- FAIL: FuzzX (10.2s)\n    context deadline exceeded\nFAIL\n"
	const found = "--- FAIL: FuzzX (3.1s)\n    context deadline exceeded\n    Failing input written to testdata/fuzz/FuzzX/1\nFAIL\n"
	for _, tc := range []struct {
		name string
		runs []string // what `go test` prints, run by run; the others say ok
		want int      // how often it runs
		ok   bool
	}{
		{"passes", nil, 1, true},
		{"the race, twice", []string{race, race}, 3, true},
		{"the race, for ever", []string{race, race, race, race}, 3, false},
		{"an input", []string{found}, 1, false},
		{"an input after the race", []string{race, found}, 2, false},
		{"does not build", []string{"undefined: x\nFAIL [build failed]\n"}, 1, false},
		{"panics", []string{"panic: context deadline exceeded\n"}, 1, false},
	} {
		dir := t.TempDir()
		for i, out := range tc.runs {
			if err := os.WriteFile(filepath.Join(dir, "out"+string(rune('1'+i))), []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stub := filepath.Join(dir, "go")
		if err := os.WriteFile(stub, []byte("#!/bin/sh\ncd "+dir+"; echo \"$*\" >>runs; n=$(wc -l <runs); if [ -e out$n ]; then cat out$n; exit 1; fi; echo ok\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(script, "./x", "FuzzX", "10s")
		cmd.Env = append(os.Environ(), "GO="+stub)
		out, err := cmd.CombinedOutput()
		runs, _ := os.ReadFile(filepath.Join(dir, "runs"))
		if n := strings.Count(string(runs), "-fuzz ^FuzzX$ -fuzztime 10s ./x\n"); n != tc.want || (err == nil) != tc.ok {
			t.Errorf("%s: %d runs, %v, %s", tc.name, n, err, out)
		}
		if n := len(tc.runs); !tc.ok && !strings.Contains(string(out), tc.runs[min(n, tc.want)-1]) {
			t.Errorf("%s: does not say why: %s", tc.name, out)
		}
		if tc.ok && !strings.HasSuffix(string(out), "fuzz FuzzX: ok\n") {
			t.Errorf("%s: %s", tc.name, out)
		}
	}
}
