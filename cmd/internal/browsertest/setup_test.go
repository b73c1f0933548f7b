package browsertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/internal/freeport"
)

const (
	root           = "../../../"
	scripts        = root + "testdata/browser"
	defaultBrowser = "/usr/bin/chromium"
	// startTime bounds the start of a demo, scenarioTime a scenario: they are long because machines are shared.
	startTime    = 2 * time.Minute
	scenarioTime = 6 * time.Minute
)

// findBrowser returns a browser's path once Node.js and what the scripts need are there too.
func findBrowser(t *testing.T) string {
	t.Helper()
	noticeFiles(t)
	named := os.Getenv("TIDEWIRE_TEST_BROWSER")
	if named == "off" {
		t.Skip("NOT RUN: TIDEWIRE_TEST_BROWSER=off")
	}
	lacking := func(what string) {
		t.Helper()
		if named != "" {
			t.Fatalf("TIDEWIRE_TEST_BROWSER=%s: %s", named, what)
		}
		fmt.Fprintf(os.Stderr, "\n*** NOT RUN: the tests in a real browser: %s\n*** (apt-get install chromium nodejs npm; TIDEWIRE_TEST_BROWSER names another browser, or =required makes this a failure)\n\n", what)
		t.Skip("NOT RUN: " + what)
	}
	if testing.Short() && named == "" {
		t.Skip("NOT RUN: -short")
	}
	path := named
	if named == "" || named == "required" {
		path = defaultBrowser
	}
	if _, err := os.Stat(path); err != nil {
		lacking("there is no browser: " + err.Error())
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			lacking(err.Error())
		}
	}
	if why := install(t); why != "" {
		lacking(why)
	}
	return path
}

// noticeFiles reads what the demo and the scenarios are made of. go test keeps the result of a test until a file
// changes that it has opened, and what other programs open for it does not count. Importing the demo's packages will
// not do: the linker drops what the test does not call, and a binary that is the same has the same result.
func noticeFiles(t *testing.T) {
	t.Helper()
	folders := []string{scripts, root + "go.mod", root + "go.sum"}
	for _, dir := range []string{"bridge", "cache", "cmd", "kafkaio", "replication", "wsedge"} {
		folders = append(folders, root+dir)
	}
	for _, dir := range folders {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "screenshots"):
				return fs.SkipDir
			case d.IsDir() || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// install gets what package-lock.json names, unless it is there already.
func install(t *testing.T) (why string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(scripts, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(scripts, "node_modules", ".tidewire-lock")
	if have, err := os.ReadFile(mark); err == nil && bytes.Equal(have, want) {
		return ""
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = scripts
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("npm ci in testdata/browser: %v\n%.2000s", err, out)
	}
	if err := os.WriteFile(mark, want, 0o600); err != nil {
		t.Fatal(err)
	}
	return ""
}

// demo is a running tidewire-demo.
type demo struct {
	browser string
	clients []string // addresses of the nodes for clients
	admin   []string
	kafka   string
}

// startDemo builds and starts a demo on free ports, and ends it with the test.
func startDemo(t *testing.T) *demo {
	t.Helper()
	d := &demo{browser: findBrowser(t)}
	bin := filepath.Join(t.TempDir(), "tidewire-demo")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../tidewire-demo").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	free, err := freeport.Take(10)
	if err != nil {
		t.Fatal(err)
	}
	var ports []string
	for _, p := range free {
		ports = append(ports, strconv.Itoa(p))
	}
	list := func(ports []string) string { return strings.Join(ports, ",") }
	for i := range 3 {
		d.clients = append(d.clients, "127.0.0.1:"+ports[i])
		d.admin = append(d.admin, "127.0.0.1:"+ports[3+i])
	}
	d.kafka = "127.0.0.1:" + ports[9]
	cmd := exec.Command(bin, "-client-ports", list(ports[:3]), "-admin-ports", list(ports[3:6]), "-cluster-ports", list(ports[6:9]), "-kafka-port", ports[9])
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TIDEWIRE_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	var read sync.WaitGroup
	read.Go(func() {
		for lines, once := bufio.NewScanner(stdout), false; lines.Scan(); {
			if !once && strings.HasPrefix(lines.Text(), "Tidewire is up") {
				once = true
				close(up)
			}
		}
	})
	ended := make(chan error, 1)
	go func() { read.Wait(); ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the demo ended with %v: %s", err, stderr.String())
			}
		case <-time.After(startTime):
			_ = cmd.Process.Kill()
			t.Errorf("the demo did not end: %s", stderr.String())
			<-ended
		}
	})
	select {
	case <-up:
	case err := <-ended:
		ended <- nil // for the cleanup
		t.Fatalf("the demo ended: %v\n%s", err, stderr.String())
	case <-time.After(startTime):
		t.Fatalf("the demo did not start: %s", stderr.String())
	}
	return d
}

// run runs a scenario of testdata/browser.
func (d *demo) run(t *testing.T, scenario string, args map[string]any) {
	t.Helper()
	all := map[string]any{"browser": d.browser, "page": "http://" + d.clients[0] + "/", "admin": "http://" + d.admin[0] + "/"}
	for k, v := range args {
		all[k] = v
	}
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "run.mjs", scenario)
	cmd.Dir, cmd.Env = scripts, append(os.Environ(), "TIDEWIRE_BROWSER_ARGS="+string(b))
	// Its own browser dies with it: asked to end, Playwright closes it.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	late := time.AfterFunc(scenarioTime, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer late.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", scenario, err, out)
	}
}
