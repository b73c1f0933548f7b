package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disk is a file system of a node's own, that can be filled and made to hang: ext4 in a file behind a loop
// device, or, where that cannot be had, a tmpfs of that size, which can only be filled.
//
// A process that writes to a hanging disk cannot be killed until it goes on, so close makes it go on first.
type disk struct {
	image  string // empty: tmpfs
	mount  string
	hangs  bool
	filler string // path of the file that takes all room; empty: none
}

// newDisk makes a file system of so many bytes, mounted below dir. With mayFallBack a tmpfs will do. The
// error is ErrNotRun if the machine does not allow it.
func newDisk(dir, name string, size int64, mayFallBack bool) (*disk, error) {
	d := &disk{image: filepath.Join(dir, name+".ext4"), mount: filepath.Join(dir, ownName(name))}
	if err := os.MkdirAll(d.mount, 0o755); err != nil {
		return nil, err
	}
	err := d.mountExt4(size)
	if err != nil && mayFallBack {
		d.image = ""
		err = tool("mount", "-t", "tmpfs", "-o", "size="+strconv.FormatInt(size, 10), "tmpfs", d.mount)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: no file system for a node can be mounted here: %w", ErrNotRun, err)
	}
	return d, nil
}

func (d *disk) mountExt4(size int64) error {
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	// Nothing is reserved for root: full is full.
	if err := tool("mkfs.ext4", "-q", "-F", "-m", "0", d.image); err != nil {
		return err
	}
	return tool("mount", "-o", "loop", d.image, d.mount)
}

// path is where the node's data is.
func (d *disk) path() string { return filepath.Join(d.mount, "data") }

// fill takes all room that is left.
func (d *disk) fill() error {
	d.filler = filepath.Join(d.mount, "filler")
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		b := make([]byte, size)
		for err == nil {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return errors.Join(err, f.Close())
		}
		err = nil
	}
	return f.Close()
}

// makeRoom ends a fill.
func (d *disk) makeRoom() error {
	if d.filler == "" {
		return nil
	}
	name := d.filler
	d.filler = ""
	return os.Remove(name)
}

// hang lets every write from now on wait, until goOn.
func (d *disk) hang() error {
	if d.image == "" {
		return errors.New("a tmpfs does not hang")
	}
	if err := tool("fsfreeze", "-f", d.mount); err != nil {
		return err
	}
	d.hangs = true
	return nil
}

func (d *disk) goOn() error {
	if !d.hangs {
		return nil
	}
	d.hangs = false
	return tool("fsfreeze", "-u", d.mount)
}

// unmountTime is how long what used a disk may take to be gone, once it was killed.
const unmountTime = 5 * time.Second

// close removes the disk. Nothing may use it any more.
func (d *disk) close() error {
	err := d.goOn()
	for begun := time.Now(); ; {
		e := tool("umount", d.mount)
		if e == nil {
			break
		}
		if time.Since(begun) > unmountTime {
			err = errors.Join(err, e, tool("umount", "-l", d.mount)) // it goes when its last user does
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if d.image != "" {
		err = errors.Join(err, os.Remove(d.image))
	}
	return errors.Join(err, os.Remove(d.mount))
}

func tool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// sweepDisks removes what processes that live no more have left mounted; failing to is no failure. A disk
// that hangs must go on first, or what was killed with it never ends.
func sweepDisks() {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for _, mount := range abandonedMounts(bytes.NewReader(b)) {
		_ = tool("fsfreeze", "-u", mount)
		_ = tool("umount", "-l", mount)
	}
}

// abandonedMounts reads lines of /proc/self/mounts.
func abandonedMounts(r io.Reader) []string {
	var out []string
	for lines := bufio.NewScanner(r); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) > 1 && abandoned(filepath.Base(f[1])) {
			out = append(out, f[1])
		}
	}
	return out
}
