package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine notes what the figures were taken on and with.
func (b *bench) machine() {
	m := b.report.Machine
	m["Go"] = runtime.Version()
	m["load"], m["load before the bench"] = "this program, epoll", loadAverage()
	if !b.o.Local {
		m["nodes"] = strings.Join(b.o.Nodes, ", ")
		return
	}
	m["processors"] = fmt.Sprintf("%d × %s", runtime.NumCPU(), cpuModel())
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		m["system"] = unix.ByteSliceToString(uts.Sysname[:]) + " " + unix.ByteSliceToString(uts.Release[:]) + ", " + runtime.GOARCH
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m["memory"] = fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
	}
	m["Tidewire"] = ask(b.o.Tidewire, "version")
	if b.o.Centrifuge != "" {
		m["centrifuge"] = ask(b.o.Centrifuge, "-version")
	}
}

// ask runs a program that prints a line.
func ask(path string, arg string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, arg).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
