//go:build !linux

package wsedge

import (
	"errors"
	"syscall"
)

// On other systems connections are written to by a goroutine that may wait (see writeAside).
const canTryWrite = false

const maxBuffers = 1024

type tryWriter struct{}

func (*tryWriter) init()      {}
func (*tryWriter) add([]byte) {}
func (*tryWriter) reset()     {}

func (*tryWriter) write(syscall.RawConn) (int, error) { return 0, errors.ErrUnsupported }

func waitWritable(syscall.RawConn) error { return errors.ErrUnsupported }

func waitReadable(syscall.RawConn) {}
