//go:build !linux

package bench

import (
	"context"
	"errors"
	"io"
)

// errLinux says why there is nothing here.
var errLinux = errors.New("the bench is for Linux: it needs epoll, /proc and sched_setaffinity")

// Run measures what the options say. It is for Linux.
func Run(context.Context, Options) (*Report, error) { return nil, errLinux }

// FloorOptions are the flags of the floor program.
type FloorOptions struct {
	Listen string
	Size   int
	Keys   int
}

// Floor runs the floor program. It is for Linux.
func Floor(context.Context, FloorOptions, io.Reader, io.Writer) error { return errLinux }
