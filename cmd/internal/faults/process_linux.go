package faults

import (
	"os/exec"
	"syscall"
)

// childAttributes keeps a terminal's Ctrl-C from the children, which are ended in order, and has them die
// with us.
func childAttributes(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
