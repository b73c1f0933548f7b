package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server that the bench started. The kernel kills it when the thread that started it ends, so that
// nothing outlives a bench that was killed; hence one goroutine starts it, and stays on its thread until it ends.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	first  chan string // the first line that it prints
	exited chan struct{}
	err    error // read after exited
	log    string
}

// spawn starts a program on some of the processors (none: all that we may use) with what it prints in a file.
// env is its whole environment.
func spawn(cpus []int, log string, env []string, path string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(path, args...), first: make(chan string, 1), exited: make(chan struct{}), log: log}
	p.cmd.Env, p.cmd.Stderr = env, out
	// A group of its own: a terminal's Ctrl-C is for us, who end them in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: its processors are not those of other threads
		defer close(p.exited)
		defer func() { _ = out.Close() }()
		err := pin(0, cpus)
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			lines := bufio.NewReader(stdout)
			if line, err := lines.ReadString('\n'); err == nil {
				p.first <- strings.TrimSpace(line)
			}
			_, _ = io.Copy(out, lines)
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// allowedCPUs are the processors that this process may use.
func allowedCPUs() (cpus []int, err error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	for i := range len(may) * 64 {
		if may.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// pin binds a thread, 0 for the calling one, to processors; none: leaves it.
func pin(tid int, cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("bind to processors %v: %w", cpus, err)
	}
	return nil
}

// pinProcess binds all threads of a process, and with them those to come.
func pinProcess(pid int, cpus []int) error {
	// A thread may start one while we go through them; the next round finds it.
	for range 3 {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := pin(tid, cpus); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// descendants returns a process and all that it and those have started.
func descendants(pid int) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// PID (name) state parent; the name may hold anything.
		rest := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		child, err1 := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, err2 := strconv.Atoi(rest[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], child)
	}
	pids = []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// line waits for the first line of the process.
func (p *process) line(wait time.Duration) (string, error) {
	select {
	case s := <-p.first:
		return s, nil
	case <-p.exited:
		select {
		case s := <-p.first:
			return s, nil
		default:
		}
		return "", fmt.Errorf("%s ended (%v): %s", filepath.Base(p.cmd.Path), p.err, tail(p.log))
	case <-time.After(wait):
		return "", fmt.Errorf("%s did not start within %v: see %s", filepath.Base(p.cmd.Path), wait, p.log)
	}
}

// stop closes the input of the process and asks it to end; after grace it kills it.
func (p *process) stop(grace time.Duration) {
	_ = p.stdin.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.exited:
	case <-time.After(grace):
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}

// died is the error of a process that ended, nil while it runs.
func (p *process) died() error {
	select {
	case <-p.exited:
		return fmt.Errorf("%s ended (%v): %s", filepath.Base(p.cmd.Path), p.err, tail(p.log))
	default:
		return nil
	}
}

func tail(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b[max(0, len(b)-1000):]))
}

// usage is what a process used.
type usage struct {
	cpu time.Duration // since it began
	rss int64         // bytes now

	pauses pauses // for garbage, since it began; a node's alone
}

// clockTick is the unit of times in /proc: sysconf(_SC_CLK_TCK), which is 100 on every Linux that Go runs on.
const clockTick = time.Second / 100

// usageOf reads what a process used: processor time from /proc/PID/stat, memory from /proc/PID/status.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	cpu, err := parseStat(stat)
	if err != nil {
		return usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	rss, err := parseRSS(status)
	if err != nil {
		return usage{}, fmt.Errorf("/proc/%d/status: %w", pid, err)
	}
	return usage{cpu: cpu, rss: rss}, nil
}

// parseStat returns utime + stime, the 14th and 15th field; the second, a name in brackets, may hold anything.
func parseStat(b []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, errors.New("no name in brackets")
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name", len(fields))
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

func parseRSS(b []byte) (int64, error) {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS: the process has ended")
}

// sendBufferMax is how much a socket's send buffer grows to at most.
func sendBufferMax() int64 {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_wmem")
	fields := strings.Fields(string(b))
	if err == nil && len(fields) == 3 {
		if n, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
			return n
		}
	}
	return 4 << 20 // the kernel's default
}

// reservedFiles is what a process needs besides its clients' sockets.
const reservedFiles = 300

// raiseFiles raises the limit of open files of this process, and so of those that it starts, to need if it may,
// and returns how many sockets of clients are possible.
func raiseFiles(need int) (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	want := uint64(need + reservedFiles)
	if lim.Max < want {
		// Allowed to a privileged process, up to fs.nr_open.
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want}) == nil {
			return need, nil
		}
	}
	if lim.Cur < min(want, lim.Max) {
		lim.Cur = lim.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			return 0, fmt.Errorf("raise the limit of open files to %d: %w", lim.Max, err)
		}
	}
	return int(min(lim.Cur, 1<<30)) - reservedFiles, nil
}
