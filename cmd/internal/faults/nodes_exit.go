package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// exitPatience is how long a node that cannot go on may take to end: it hands over and lets clients go first.
const exitPatience = 45 * time.Second

// WaitExit waits until node i ends by itself, as it must when it cannot go on, and returns what it said last
// on its way out: for people, so it has to say what to do. It is an error if the node ends well, or by a
// panic, or not at all.
func (c *Nodes) WaitExit(ctx context.Context, i int) (said string, err error) {
	n := c.list[i]
	p := n.proc
	timer := time.NewTimer(exitPatience)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-ctx.Done():
		return "", ctx.Err()
	case <-timer.C:
		return "", fmt.Errorf("node %s did not end within %v: see %s", n.name, exitPatience, n.log)
	}
	n.proc = nil
	c.leave(i)
	said = lastWords(n.log)
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) || exit.ExitCode() != 1 || said == "" {
		return said, fmt.Errorf("node %s ended with %v, and said %q: want exit code 1 and an error: see %s", n.name, p.err, said, n.log)
	}
	return said, nil
}

// lastWords returns the last line of a log that the program printed for whoever started it.
func lastWords(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	said := ""
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "tidewire: "); ok {
			said = strings.TrimSpace(rest)
		}
	}
	return said
}

// StopAll sends SIGTERM to nodes, all at once, and returns when all have ended. The error is of those that had to
// be killed, or did not end well.
func (c *Nodes) StopAll(nodes ...int) error {
	for _, i := range nodes {
		c.leave(i)
		if p := c.list[i].proc; p != nil {
			p.signal(syscall.SIGTERM)
		}
	}
	var errs []error
	for _, i := range nodes {
		n := c.list[i]
		if n.proc == nil {
			continue
		}
		select { // a second SIGTERM would end it at once
		case <-n.proc.exited:
		case <-time.After(nodeStopGrace):
			n.proc.kill()
		}
		if n.proc.err != nil {
			errs = append(errs, fmt.Errorf("node %s after SIGTERM: %w", n.name, n.proc.err))
		}
		n.proc = nil
	}
	return errors.Join(errs...)
}

// Leader returns the node that leads a Raft group, as node asked knows it; it waits until there is one.
func (c *Nodes) Leader(ctx context.Context, asked, group int) (i int, err error) {
	ctx, cancel := context.WithTimeout(ctx, nodesReady)
	defer cancel()
	err = poll(ctx, func() error {
		s, err := c.Status(ctx, asked)
		if err != nil {
			return err
		}
		if group >= len(s.Groups) {
			return fmt.Errorf("%s has %d groups", c.list[asked].name, len(s.Groups))
		}
		if i = c.Index(string(s.Groups[group].Leader)); i < 0 {
			return fmt.Errorf("group %d has no leader", group)
		}
		return nil
	})
	return i, err
}

// Applied returns how many entries of all Raft groups node i has applied.
func (c *Nodes) Applied(ctx context.Context, i int) (n uint64, err error) {
	s, err := c.Status(ctx, i)
	for _, g := range s.Groups {
		n += g.Applied
	}
	return n, err
}

// Terms returns the highest term of each Raft group that any node knows of, by group.
func (c *Nodes) Terms(ctx context.Context) ([]bridge.Term, error) {
	var out []bridge.Term
	for i := range c.list {
		s, err := c.Status(ctx, i)
		if err != nil {
			return nil, err
		}
		for k, g := range s.Groups {
			if k == len(out) {
				out = append(out, 0)
			}
			out[k] = max(out[k], g.Term)
		}
	}
	return out, nil
}
