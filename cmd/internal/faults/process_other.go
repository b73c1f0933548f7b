//go:build !linux

package faults

import (
	"errors"
	"os/exec"
	"syscall"
)

func childAttributes(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func newNetns() (Network, error) { return nil, errors.New("network namespaces are Linux's") }
