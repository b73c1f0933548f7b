package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// teller tells a person on standard error what becomes of the connection: its loss, what keeps it from
// being made, and where it was made again. A first connection that works is not worth a line.
type teller struct {
	mu    sync.Mutex
	w     io.Writer
	lost  bool
	last  string
	again time.Time
}

func newTeller(w io.Writer) *teller { return &teller{w: w} }

func (t *teller) state(s tidewire.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.Connected {
		if t.lost {
			fmt.Fprintf(t.w, "tidectl: connected to %s (%s)\n", s.Node, s.Addr)
		}
		t.lost, t.last = false, ""
		return
	}
	t.lost = true
	line := fmt.Sprintf("tidectl: not connected to %s: %v", s.Addr, s.Err)
	if line == t.last && time.Now().Before(t.again) {
		return // the same every few hundred milliseconds helps nobody
	}
	t.last, t.again = line, time.Now().Add(5*time.Second)
	fmt.Fprintln(t.w, line)
}
