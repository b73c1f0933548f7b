package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

const pubSynopsis = `pub [flags] SUBJECT [VALUE | -]

Publishes VALUE to the subject, or with - each line of standard input as one message, and prints an
acknowledgement a line. A value that is JSON is published as JSON, other text as text; --json, --text
and --b64 say which it must be, --null publishes a tombstone. A message is repeated under one message
id until the cluster has acknowledged or refused it, so it is written once.

  tidectl pub /chat '{"from":"me","text":"hello"}'
  tidectl pub /prices/EURUSD --null
  seq 1000 | tidectl pub /numbers/n -`

// maxLine bounds one line of standard input.
const maxLine = 64 << 20

func runPub(ctx context.Context, args []string, e env) error {
	f := flags("pub", pubSynopsis, e)
	var c clientFlags
	c.register(f, e)
	asText := f.Bool("text", false, "the value is text")
	asJSON := f.Bool("json", false, "the value is JSON; refuse what is not")
	asB64 := f.Bool("b64", false, "the value is base64 of the bytes to publish")
	asNull := f.Bool("null", false, "publish Kafka's null, a tombstone")
	mid := f.String("mid", "", "message `id` for deduplication; one is made if there is none")
	ack := f.String("ack", "kafka", "`level` to wait for: kafka, or replicated")
	timeout := f.Duration("timeout", 30*time.Second, "give up a message after this long")
	headers := map[string]string{}
	f.Func("header", "a record header, `name=value`; may be repeated", func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return fmt.Errorf("%q is not name=value", s)
		}
		headers[name] = value
		return nil
	})
	rest, err := parse(f, args)
	if err != nil {
		return err
	}
	forms := 0
	for _, set := range []bool{*asText, *asJSON, *asB64, *asNull} {
		if set {
			forms++
		}
	}
	switch {
	case len(rest) == 0:
		return fmt.Errorf("%w: name the subject, such as /chat", errUsage)
	case forms > 1:
		return fmt.Errorf("%w: --text, --json, --b64 and --null exclude each other", errUsage)
	case *asNull && len(rest) > 1:
		return fmt.Errorf("%w: --null takes no value", errUsage)
	case !*asNull && len(rest) < 2:
		return fmt.Errorf("%w: give a value, - to read lines from standard input, or --null", errUsage)
	case len(rest) > 2:
		return fmt.Errorf("%w: one value at a time: quote it if it has spaces", errUsage)
	case *ack != string(tidewire.AckKafka) && *ack != string(tidewire.AckReplicated):
		return fmt.Errorf("%w: -ack is kafka or replicated, not %q", errUsage, *ack)
	}
	lines := !*asNull && rest[1] == "-"
	if lines && *mid != "" {
		return fmt.Errorf("%w: -mid is for one message: many lines with one id would be one message", errUsage)
	}
	value := func(s string) (tidewire.Value, error) {
		switch {
		case *asNull:
			return tidewire.Null(), nil
		case *asText:
			return tidewire.Text(s), nil
		case *asB64:
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return tidewire.Value{}, fmt.Errorf("--b64: %w", err)
			}
			return tidewire.Bytes(b), nil
		case json.Valid([]byte(s)):
			return tidewire.JSON(json.RawMessage(s)), nil
		case *asJSON:
			return tidewire.Value{}, fmt.Errorf("--json: %.100q is not JSON", s)
		default:
			return tidewire.Text(s), nil
		}
	}
	var first tidewire.Value
	if !lines {
		text := ""
		if len(rest) == 2 {
			text = rest[1]
		}
		if first, err = value(text); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
	}
	client, err := c.client(e)
	if err != nil {
		return err
	}
	defer client.Close()
	enc := json.NewEncoder(e.out)
	publish := func(v tidewire.Value) error {
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		acked, err := client.Publish(ctx, rest[0], tidewire.Message{Value: v, Headers: headers, Mid: *mid, Ack: tidewire.Ack(*ack)})
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("no acknowledgement within %s (message id %s): %w", *timeout, acked.Mid, err)
		} else if err != nil {
			return err
		}
		return enc.Encode(acked)
	}
	if !lines {
		return publish(first)
	}
	return eachLine(ctx, e.in, func(n int, line string) error {
		v, err := value(line)
		if err == nil {
			err = publish(v)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		return nil
	})
}

// eachLine calls f with every line of r, in order, until r or ctx ends or f returns an error.
//
// Reading cannot be interrupted, so it has a goroutine of its own, which at Ctrl-C is left waiting for
// its line: the process ends with it.
func eachLine(ctx context.Context, r io.Reader, f func(n int, line string) error) error {
	lines := make(chan string)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(r)
		scanner.Buffer(nil, maxLine)
		for scanner.Scan() {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
		failed <- scanner.Err()
	}()
	for n := 1; ; n++ {
		select {
		case line, ok := <-lines:
			if !ok {
				select {
				case err := <-failed:
					if err != nil {
						return fmt.Errorf("standard input, line %d: %w", n, err)
					}
				default:
				}
				return ctx.Err()
			}
			if err := f(n, line); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
