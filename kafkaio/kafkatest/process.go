package kafkatest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is one running broker.
//
// A JVM that outlives its test would hold its ports and memory for ever, so the
// kernel is asked to kill it with us (see dieWithParent). Linux ties that to the
// thread that forked, not to the process, and the Go runtime may end threads;
// so one goroutine forks, stays locked to its thread and waits there.
type process struct {
	cmd       *exec.Cmd
	container string        // name of the Docker container, or empty
	exited    chan struct{} // closed once the process is reaped
	err       error         // why it ended; read after exited
}

// startProcess runs cmd with stdout and stderr appended to the file log.
func startProcess(cmd *exec.Cmd, container, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = out, out
	dieWithParent(cmd)
	p := &process{cmd: cmd, container: container, exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		defer func() { _ = out.Close() }()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// stop asks the process to end in order, waits for at most grace, and kills it
// if it is still there. It reports whether it ended by itself.
func (p *process) stop(grace time.Duration) bool {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		p.kill()
		return false
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	if p.container != "" {
		// A killed Docker client leaves its container behind.
		_ = exec.Command("docker", "kill", p.container).Run()
	}
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.exited
}
