//go:build unix

package jstest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/internal/freeport"
)

const root = "../../../"

// buildTime bounds what builds: on a machine with cold caches that others use too it takes minutes.
const buildTime = 8 * time.Minute

// The newcomer's path of the README, line by line as it stands there: clone, start, open the page, install the
// packed client into an empty project, subscribe, see data. Only the ports are others, so that a demo may run
// beside it, and the clone comes from this working tree.
func TestReadmeNewcomer(t *testing.T) {
	needNode(t)
	blocks := newcomerBlocks(t)
	ports, err := freeport.Take(10)
	if err != nil {
		t.Fatal(err)
	}
	list := func(ports []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(ports), " ", ","), "[]") }
	home := t.TempDir()
	env := newcomerEnv(t,
		fmt.Sprintf("DEMOFLAGS=-client-ports %s -admin-ports %s -cluster-ports %s -kafka-port %d", list(ports[:3]), list(ports[3:6]), list(ports[6:9]), ports[9]))

	// The first terminal: a cluster that stays, and a page.
	first := startShell(t, home, env, blocks[0])
	first.until(t, "Tidewire is up", 1)
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "<title>Tidewire") {
		t.Errorf("the page: %d %v %.200s", resp.StatusCode, err, body)
	}

	// The second.
	script := strings.Join(blocks[1:], "\n")
	for i, port := range []string{"127.0.0.1:8080", "127.0.0.1:8180", "127.0.0.1:8280"} {
		if strings.Count(script, port) != 1 {
			t.Fatalf("the README's program does not connect to %s", port)
		}
		script = strings.Replace(script, port, fmt.Sprintf("127.0.0.1:%d", ports[i]), 1)
	}
	second := startShell(t, home, env, script)
	second.until(t, `^/prices/[A-Z]+ \d+(\.\d+)?$`, 50) // more than the history: live data
	second.interrupt(t)
	first.interrupt(t)
	if !strings.Contains(first.said(), "Everything has stopped.") {
		t.Errorf("Ctrl-C did not end make run in order:\n%s", first.said())
	}
}

// newcomerBlocks are the commands of the README's part.
func newcomerBlocks(t *testing.T) (blocks []string) {
	t.Helper()
	b, err := os.ReadFile(root + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "<!-- newcomer -->\n")
	part, _, ok2 := strings.Cut(rest, "<!-- /newcomer -->\n")
	if !ok || !ok2 {
		t.Fatal("the README has no <!-- newcomer --> … <!-- /newcomer -->")
	}
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(part, -1) {
		blocks = append(blocks, m[1])
	}
	program := regexp.MustCompile(`(?s)<<'END'\n(.*?)END\n`).FindStringSubmatch(part)
	if len(blocks) != 3 || program == nil || strings.Count(program[1], "\n") > 10 || !strings.Contains(part, "open http://127.0.0.1:8080/") {
		t.Fatalf("%d blocks and a program %q: not a path of three, with a page to open and a program of ten lines at most", len(blocks), program)
	}
	return blocks
}

// newcomerEnv is the environment without what is set for tests, where a clone from GitHub is one of this working
// tree.
func newcomerEnv(t *testing.T, more ...string) (env []string) {
	t.Helper()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "TIDEWIRE_") && !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") && !strings.HasPrefix(v, "GIT_") {
			env = append(env, v)
		}
	}
	src := t.TempDir()
	files := run(t, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	for name := range strings.SplitSeq(strings.TrimRight(files, "\x00"), "\x00") {
		info, err := os.Stat(root + name)
		if os.IsNotExist(err) {
			continue // deleted, and that is not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(root + name)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	run(t, src, "git", "init", "--quiet")
	run(t, src, "git", "add", "--all")
	run(t, src, "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "-m", "as it is")
	return append(append(env,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url."+src+".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/tidewire/tidewire",
		"npm_config_prefer_offline=true"), more...)
}

// shell is a terminal: a shell in a process group of its own.
type shell struct {
	cmd   *exec.Cmd
	lines chan string // of standard output, closed at its end
	ended chan error

	mu  sync.Mutex
	all bytes.Buffer // both outputs
}

func (s *shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(p)
}

func (s *shell) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// startShell runs commands until one fails. What still runs at the end of the test is ended.
func startShell(t *testing.T, dir string, env []string, commands string) *shell {
	t.Helper()
	s := &shell{cmd: exec.Command("sh", "-e", "-c", commands), lines: make(chan string), ended: make(chan error, 1)}
	s.cmd.Dir, s.cmd.Env, s.cmd.Stderr = dir, env, s
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	quit := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(io.TeeReader(out, s))
		for lines.Scan() {
			select {
			case s.lines <- lines.Text():
			case <-quit:
			}
		}
		close(s.lines)
		s.ended <- s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		close(quit)
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // nothing is left, as a rule
		for range s.ended {
		}
	})
	return s
}

// until waits for n lines of output that match.
func (s *shell) until(t *testing.T, pattern string, n int) {
	t.Helper()
	match := regexp.MustCompile(pattern)
	late := time.After(buildTime)
	for n > 0 {
		select {
		case line, ok := <-s.lines:
			if !ok {
				t.Fatalf("it ended without %q:\n%s", pattern, s.said())
			}
			if match.MatchString(line) {
				n--
			}
		case <-late:
			t.Fatalf("waited in vain for %q:\n%s", pattern, s.said())
		}
	}
}

// interrupt is Ctrl-C. It returns when everything has ended.
func (s *shell) interrupt(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	late := time.After(waitTime)
	for {
		select {
		case _, ok := <-s.lines:
			if !ok {
				<-s.ended // with what a signal leaves
				return
			}
		case <-late:
			t.Fatalf("it does not end:\n%s", s.said())
		}
	}
}
