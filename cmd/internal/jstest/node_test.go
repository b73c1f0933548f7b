package jstest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clientDir is where the package is made.
const clientDir = "../../../clients/js"

// needNode skips the test and says why where Node.js, npm or what `make js` installs is missing; with
// TIDEWIRE_TEST_NODE=required it fails.
func needNode(t *testing.T) {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		if os.Getenv("TIDEWIRE_TEST_NODE") == "required" {
			t.Fatalf("TIDEWIRE_TEST_NODE=required, but %s", what)
		}
		t.Skipf("NOT RUN: clients/js is not tested against nodes: %s", what)
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(tool + " is not installed (Debian: apt-get install nodejs npm)")
		}
	}
	if _, err := os.Stat(filepath.Join(clientDir, "node_modules", "ws")); err != nil {
		missing("clients/js/node_modules is not there (make js)")
	}
}

// install makes an empty project with the packed client in it, and the package ws for the WebSocket that
// Node.js before 22 lacks, and returns its folder.
func install(t *testing.T) string {
	t.Helper()
	needNode(t)
	ws, err := filepath.Abs(filepath.Join(clientDir, "node_modules", "ws"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, clientDir, "node", "build.js")
	packed := strings.Fields(run(t, clientDir, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", dir))
	write(t, filepath.Join(dir, "package.json"), `{"private":true,"type":"module"}`)
	run(t, dir, "npm", "install", "--offline", "--no-audit", "--no-fund", filepath.Join(dir, packed[len(packed)-1]))
	if err := os.Symlink(ws, filepath.Join(dir, "node_modules", "ws")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, &stdout, &stderr)
	}
	return stdout.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// script is a script in a Node.js process of its own.
type script struct {
	out     io.Reader
	stdin   io.Closer
	process *os.Process
}

// start starts a script of testdata in a project. The process ends when its standard input is closed, at the
// latest with the test, which fails if the process did.
func start(t *testing.T, dir, name string, args ...string) *script {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name), string(text))
	cmd := exec.Command("node", append([]string{name}, args...)...)
	cmd.Dir, cmd.WaitDelay = dir, waitTime
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if t.Failed() {
			cmd.Process.Kill() // it may wait for what will not come
		}
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("%s: %v", name, err)
		}
		if stderr.Len() > 0 {
			t.Logf("%s said:\n%s", name, &stderr)
		}
	})
	return &script{out: stdout, stdin: stdin, process: cmd.Process}
}
