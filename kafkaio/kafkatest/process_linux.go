package kafkatest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process when the thread that started it
// ends, so that a test binary that is itself killed leaves nothing behind.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
