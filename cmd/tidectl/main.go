// Command tidectl subscribes to, publishes to and looks at a Tidewire cluster.
//
// It is built on clients/go and on the nodes' /status, /members and /admin/revoke; verify and bench have clients of their own, apart
// from clients/go.
// Exit codes: 0 done (also when ended by Ctrl-C), 1 failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	code := run(ctx, os.Args[1:], env{in: os.Stdin, out: os.Stdout, err: os.Stderr, get: os.Getenv})
	stop()
	os.Exit(code)
}

// env is what a command touches besides its arguments.
type env struct {
	in       io.Reader
	out, err io.Writer
	get      func(name string) string
}

const usage = `tidectl looks at and talks to a Tidewire cluster.

  tidectl sub SUBJECT...            print records as they come, one JSON object a line
  tidectl pub SUBJECT [VALUE | -]   publish one value, or each line of standard input
  tidectl status                    show nodes, groups and partitions
  tidectl members                   show the nodes that make up the cluster, add and remove some
  tidectl revoke                    take tokens back, show what was taken back
  tidectl verify                    load a cluster and check that it keeps its promises
  tidectl bench                     measure a cluster, or Tidewire on this machine

A subject is /topic (records without a key), /topic/key, or a pattern: /topic/*, /topic/a/*.
"tidectl COMMAND -h" explains a command's flags.

Environment: TIDECTL_NODES (clients' addresses, host:port,…), TIDECTL_TOKEN or TIDEWIRE_TOKEN,
TIDECTL_ADMIN (admin addresses), TIDECTL_ADMIN_TOKEN, or _CERT and _KEY, and _CA for https:// addresses,
TIDECTL_KAFKA (brokers). Exit codes: 0 done, 1 failed, 2 wrong usage.
`

// errUsage marks an error about the arguments.
var errUsage = errors.New("wrong usage")

// run is the whole program; it returns the exit code.
func run(ctx context.Context, args []string, e env) int {
	if len(args) == 0 {
		fmt.Fprint(e.err, usage)
		return exitUsage
	}
	var err error
	switch name := args[0]; name {
	case "sub":
		err = runSub(ctx, args[1:], e)
	case "pub":
		err = runPub(ctx, args[1:], e)
	case "status":
		err = runStatus(ctx, args[1:], e)
	case "members":
		err = runMembers(ctx, args[1:], e)
	case "revoke":
		err = runRevoke(ctx, args[1:], e)
	case "verify":
		err = runVerify(ctx, args[1:], e)
	case "bench":
		err = runBench(ctx, args[1:], e)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(e.out, usage)
		return exitOK
	default:
		err = fmt.Errorf("%w: there is no command %q: use sub, pub, status, members, revoke, verify or bench", errUsage, name)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(e.err, "tidectl:", err)
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, tidewire.ErrUncertain):
		return exitOK // Ctrl-C
	default:
		fmt.Fprintln(e.err, "tidectl:", err)
		return exitFailed
	}
}

// flagSet is a flag.FlagSet with the help of its command.
type flagSet struct {
	*flag.FlagSet
	help func()
}

// flags is a command's flag set; its help goes to standard output, its complaints are returned.
func flags(name, synopsis string, e env) *flagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {} // package flag calls it for every mistake; help is for those who ask
	return &flagSet{f, func() {
		fmt.Fprintf(e.out, "usage: tidectl %s\n\n", synopsis)
		f.SetOutput(e.out)
		f.PrintDefaults()
	}}
}

// parse reads flags before, between and after the other arguments, which it returns. After "--" all is
// arguments.
func parse(f *flagSet, args []string) ([]string, error) {
	var rest []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				f.help()
				return nil, err
			}
			return nil, fmt.Errorf("%w: %s (see tidectl %s -h)", errUsage, err, f.Name())
		}
		used := len(args) - f.NArg()
		if used > 0 && args[used-1] == "--" {
			return append(rest, f.Args()...), nil
		}
		if f.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, f.Arg(0))
		args = f.Args()[1:]
	}
}

// clientFlags are those of the commands that connect as a client.
type clientFlags struct{ nodes, token, tokenFile string }

func (c *clientFlags) register(f *flagSet, e env) {
	f.StringVar(&c.nodes, "nodes", or(e.get("TIDECTL_NODES"), "127.0.0.1:8080,127.0.0.1:8180,127.0.0.1:8280"),
		"`addresses` of the nodes' client ports, tried in this order (TIDECTL_NODES)")
	// The default is not the token itself: -h prints defaults.
	f.StringVar(&c.token, "token", "", "`token` to authenticate with (TIDECTL_TOKEN, TIDEWIRE_TOKEN); others of this machine see it in the list of processes")
	f.StringVar(&c.tokenFile, "token-file", "", "`file` with the token; sub and pub read it again before the token expires")
}

// theToken is the token of a command that keeps to one; empty: none.
func (c *clientFlags) theToken(e env) (string, error) {
	if c.tokenFile == "" {
		return or(or(c.token, e.get("TIDECTL_TOKEN")), e.get("TIDEWIRE_TOKEN")), nil
	}
	if c.token != "" {
		return "", fmt.Errorf("%w: -token and -token-file are both given", errUsage)
	}
	token, err := readToken(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("%w: -token-file: %w", errUsage, err)
	}
	return token, nil
}

// readToken reads a token out of a file. No token has more than 8 KiB.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 16<<10))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", errors.New("there is no token in it")
	}
	return token, nil
}

// client makes the client; what happens to its connection is told on standard error.
func (c *clientFlags) client(e env) (*tidewire.Client, error) {
	token, err := c.theToken(e)
	if err != nil {
		return nil, err
	}
	cfg := tidewire.Config{Nodes: list(c.nodes), InOrder: true, Token: token, OnState: newTeller(e.err).state}
	if c.tokenFile != "" {
		cfg.TokenSource = func(context.Context) (string, error) { return readToken(c.tokenFile) }
	}
	client, err := tidewire.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return client, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// list splits at commas and leaves out what is empty.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
