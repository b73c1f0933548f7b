package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

const subSynopsis = `sub [flags] SUBJECT...

Prints the records of the subjects as they come: one JSON object a line, the protocol's own "msg" (or
with -o value the bare value). It goes on over the death of a node without missing or repeating a
record; where records are lost for good it says so on standard error. It ends with Ctrl-C, or after -n
records.

  tidectl sub /prices/EURUSD
  tidectl sub -history 5 -n 10 '/prices/*' /chat`

func runSub(ctx context.Context, args []string, e env) error {
	f := flags("sub", subSynopsis, e)
	var c clientFlags
	c.register(f, e)
	count := f.Int("n", 0, "end after this `number` of records; 0: never")
	history := f.Int("history", 0, "first the `number` of most recent records of each subject; -1: all that are cached")
	resume := f.String("resume", "", "go on after this `vector`, such as [[0,1,42]] (one subject only)")
	output := f.String("o", "json", "`form` of a line: json, or value")
	vector := f.Bool("vector", false, "at the end print the place reached on standard error, for -resume")
	subjects, err := parse(f, args)
	switch {
	case err != nil:
		return err
	case len(subjects) == 0:
		return fmt.Errorf("%w: name at least one subject, such as /prices/EURUSD", errUsage)
	case *output != "json" && *output != "value":
		return fmt.Errorf("%w: -o is json or value, not %q", errUsage, *output)
	case *count < 0:
		return fmt.Errorf("%w: -n is a number of records, not %d", errUsage, *count)
	case *history < -1:
		return fmt.Errorf("%w: -history is a number of records or -1, not %d", errUsage, *history)
	case *resume != "" && len(subjects) > 1:
		return fmt.Errorf("%w: -resume is for one subject: a vector is a place in one", errUsage)
	}
	opts := tidewire.SubOptions{History: *history}
	if *resume != "" {
		if opts.Resume, err = tidewire.ParseVector(*resume); err != nil {
			return fmt.Errorf("%w: -resume: %w", errUsage, err)
		}
	}
	client, err := c.client(e)
	if err != nil {
		return err
	}
	defer client.Close()

	p := &printer{out: bufio.NewWriter(e.out), e: e, value: *output == "value", left: *count, endless: *count == 0}
	runCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, len(subjects))
	for _, subject := range subjects {
		wg.Go(func() {
			defer cancel()
			failed <- p.follow(runCtx, client, subject, opts, *vector)
		})
	}
	wg.Wait()
	close(failed)
	var first error
	for err := range failed {
		if err != nil && first == nil && !(runCtx.Err() != nil && errors.Is(err, context.Canceled)) {
			first = err
		}
	}
	return first
}

// errEnough ends a subscription after -n records, and with it the command.
var errEnough = errors.New("enough")

// printer writes the lines of all subscriptions.
type printer struct {
	e     env
	value bool

	mu      sync.Mutex
	out     *bufio.Writer
	left    int
	endless bool
}

// follow prints one subject until ctx ends or there is enough.
func (p *printer) follow(ctx context.Context, client *tidewire.Client, subject string, opts tidewire.SubOptions, vector bool) error {
	sub, err := client.Subscribe(ctx, subject, opts)
	if err != nil {
		return err
	}
	defer func() {
		if vector {
			at, _ := json.Marshal(sub.Vector())
			p.tell("%s reached %s", subject, at)
		}
		sub.Close()
	}()
	for {
		item, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		switch item := item.(type) {
		case *tidewire.Record:
			if err := p.record(item); errors.Is(err, errEnough) {
				return nil
			} else if err != nil {
				return err
			}
		case *tidewire.Gap:
			lost := ""
			for _, l := range item.Lost {
				lost += fmt.Sprintf("; missing %s to %s", l.From, l.To)
			}
			p.tell("%s: records are lost (%s)%s", subject, item.Reason, lost)
		case *tidewire.Resumed:
			if item.Previous != "" {
				p.tell("%s: went on at %s, nothing missed", subject, item.Node)
			}
		}
	}
}

// record prints one record at once: what reads the pipe may be waiting for it.
func (p *printer) record(r *tidewire.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.endless && p.left == 0 {
		return errEnough
	}
	if p.value {
		p.out.Write(r.Value())
	} else {
		p.out.Write(r.Frame)
	}
	p.out.WriteByte('\n')
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	if !p.endless {
		if p.left--; p.left == 0 {
			return errEnough
		}
	}
	return nil
}

func (p *printer) tell(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.e.err, "tidectl: "+format+"\n", args...)
}
