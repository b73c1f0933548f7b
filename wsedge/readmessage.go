package wsedge

import (
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

var (
	errFrameTooBig = errors.New("frame over the limit")
	errOverloaded  = errors.New("there was no memory for the frame in time")
)

const (
	// smallMessage is how large a message may grow, in bytes, without being counted in Server.held.
	smallMessage = 16 << 10
	// heldPatience is how long a larger one waits for room. Not for long: those that wait keep what they have of theirs, and
	// where all of them wait for each other some must go.
	heldPatience = time.Second
)

// readMessage reads a frame or a body into buf, up to MaxFrameBytes, growing it by what has come, never by what was
// announced. Where sessions keep too much already it is not read on until there is
// room, or else it is errOverloaded.
func (srv *Server) readMessage(r io.Reader, buf []byte) ([]byte, error) {
	limit := srv.cfg.MaxFrameBytes
	held := 0
	defer func() { srv.held.Add(int64(-held)) }()
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= smallMessage {
				if err := srv.waitHeld(); err != nil {
					return buf, err
				}
			}
			buf = append(buf, 0)[:len(buf)]
			if c := cap(buf); c > smallMessage {
				srv.held.Add(int64(c - held))
				held = c
			}
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return buf, errFrameTooBig
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// waitHeld waits until sessions keep less than they may.
func (srv *Server) waitHeld() error {
	if !srv.overHeld() {
		return nil
	}
	srv.limited(limitPending)
	end := time.NewTimer(heldPatience/2 + rand.N(heldPatience))
	defer end.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if !srv.overHeld() {
				return nil
			}
		case <-end.C:
			return errOverloaded
		case <-srv.ctx.Done():
			return srv.ctx.Err()
		}
	}
}
