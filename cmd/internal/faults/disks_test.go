package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A disk is full when it says so and has room again afterwards; it hangs and goes on; and nothing of it is left.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := newDisk(dir, "n1", 16<<20, false)
	if err != nil {
		t.Skipf("no disks here: %v", err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = d.close()
		}
	}()
	file := filepath.Join(d.mount, "file")
	write := func() error { return os.WriteFile(file, make([]byte, 64<<10), 0o644) }
	if err := write(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(file), d.fill()); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write to a full disk: %v", err)
	}
	if err := d.makeRoom(); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("there is room, and still: %v", err)
	}
	if err := d.hang(); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- write() }()
	select {
	case err := <-written:
		t.Errorf("a write to a disk that hangs ended with %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := d.goOn(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
	if err := d.hang(); err != nil { // as when a scenario ends early
		t.Fatal(err)
	}
	closed = true
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), d.mount) {
		t.Errorf("%s is still mounted (%v)", d.mount, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// What a run that lives has mounted is left alone.
func TestAbandonedMounts(t *testing.T) {
	const nobody = 1 << 30 // more than any process id
	mounts := fmt.Sprintf("/dev/vda / ext4 rw 0 0\n/dev/loop0 /tmp/x/twf-%d-n1 ext4 rw 0 0\n/dev/loop1 /tmp/x/twf-%d-n2 ext4 rw 0 0\ntmpfs /tmp/twf-x-y tmpfs rw 0 0\n",
		os.Getpid(), nobody)
	want := []string{fmt.Sprintf("/tmp/x/twf-%d-n2", nobody)}
	if got := abandonedMounts(strings.NewReader(mounts)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The last line that the program printed for people is found among its logs.
func TestLastWords(t *testing.T) {
	log := filepath.Join(t.TempDir(), "n1.log")
	text := "tidewire: an earlier end\n{\"level\":\"error\"}\ntidewire: group 1: make room\n{\"level\":\"info\"}\n"
	if err := os.WriteFile(log, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := lastWords(log); got != "group 1: make room" {
		t.Errorf("got %q", got)
	}
}
