package faults

import (
	"os/exec"
	"strings"
)

// tidewireVersion asks the program that was run.
func tidewireVersion(path string) string {
	out, err := exec.Command(path, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
