package faults

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// burn starts processes that do nothing as fast as they can, of the same priority as everything else. They end
// when stop is called, and by themselves a minute after d.
func burn(dir string, count int, d time.Duration) (stop func(), err error) {
	var list []*process
	stop = func() {
		for _, p := range list {
			p.kill()
		}
	}
	for range count {
		// The shell itself is what is to be killed: nothing is left behind it.
		script := fmt.Sprintf("end=$(($(date +%%s)+%d)); while :; do i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; [ $(date +%%s) -lt $end ] || exit; done", int((d+time.Minute)/time.Second))
		p, err := start(exec.Command("sh", "-c", script), filepath.Join(dir, "burn.log"))
		if err != nil {
			stop()
			return nil, err
		}
		list = append(list, p)
	}
	return stop, nil
}
