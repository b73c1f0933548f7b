//go:build !linux

package kafkatest

import "os/exec"

// dieWithParent does nothing where the kernel offers no such thing: there, a
// test binary killed with SIGKILL leaves its brokers running.
func dieWithParent(*exec.Cmd) {}
