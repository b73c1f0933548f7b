package faults

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Whatever a run makes outside of its folder (namespaces, links, mounts) has a name that begins with this and
// the run's process id, so that runs do not meet, and what a killed one left behind is known and removed by
// the next.
const leftoverPrefix = "twf-"

func ownName(what string) string { return fmt.Sprintf("%s%d-%s", leftoverPrefix, os.Getpid(), what) }

// abandoned says whether a name is that of something whose run lives no more.
func abandoned(name string) bool {
	rest, ours := strings.CutPrefix(name, leftoverPrefix)
	pid, err := strconv.Atoi(strings.SplitN(rest, "-", 2)[0])
	return ours && err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
