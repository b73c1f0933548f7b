package node

import (
	"os"
	"strconv"
	"strings"
)

// quarterOfMemory is the default budget of the cache.
func quarterOfMemory() int64 {
	const unknown = 256 << 20
	if total := memory(); total > 0 {
		return total / 4
	}
	return unknown
}

// memory is what the process may use, in bytes: the container's limit where there is one and the machine's memory
// otherwise; 0 if neither can be read.
func memory() (total int64) {
	total = machineMemory()
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 && (total == 0 || n < total) {
			total = n
		}
	}
	return total
}
