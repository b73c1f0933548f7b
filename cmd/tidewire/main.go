// Command tidewire is a node of Tidewire. It is configured by environment variables alone:
//
//	tidewire              runs until SIGTERM or SIGINT
//	tidewire -h           prints the variables
//	tidewire config       prints the values in force, secrets masked
//	tidewire healthcheck  asks the node's /healthz, for images without a shell
//	tidewire version
//
// Exit codes: 0 stopped as asked, 1 a failure, 2 a wrong configuration or command line.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/cmd/internal/node"
)

const (
	exitOK = iota
	exitFailure
	exitUsage
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	if len(args) > 1 {
		fmt.Fprintf(stderr, "tidewire: one command at most, not %q: see tidewire -h\n", strings.Join(args, " "))
		return exitUsage
	}
	switch command {
	case "":
		return serve(stderr)
	case "-h", "--help", "-help", "help":
		return usage(stdout)
	case "config":
		if err := node.Print(stdout); err != nil {
			return misconfigured(stderr, err)
		}
		return exitOK
	case "version", "--version", "-version":
		fmt.Fprintln(stdout, node.Version())
		return exitOK
	case "healthcheck":
		return healthcheck(stderr)
	}
	fmt.Fprintf(stderr, "tidewire: no command %q: see tidewire -h\n", command)
	return exitUsage
}

func usage(w io.Writer) int {
	fmt.Fprint(w, `tidewire opens the topics of a Kafka cluster to web and mobile apps over WebSocket.

Usage:
  tidewire              run a node until SIGTERM or Ctrl-C
  tidewire config       print the values in force, secrets masked
  tidewire healthcheck  ask this node's /healthz: exit 0 if it answers
  tidewire version

It is configured by environment variables alone:

`)
	if err := node.Usage(w); err != nil {
		return exitFailure
	}
	return exitOK
}

func misconfigured(w io.Writer, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(w, "tidewire: "+strings.TrimSuffix(line, "\n"))
	}
	fmt.Fprintln(w, "tidewire: not started; `tidewire -h` lists the variables")
	return exitUsage
}

func serve(stderr io.Writer) int {
	// Much happens within one second when a node dies; zerolog's own format stops there.
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	cfg, err := node.FromEnv()
	if err != nil {
		return misconfigured(stderr, err)
	}
	for _, name := range node.Unknown() {
		cfg.Log.Warn().Str("variable", name).Msg("no such variable: it is ignored")
	}
	cfg.LimitMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	n, err := node.New(cfg)
	if err != nil {
		fmt.Fprintln(stderr, "tidewire:", err)
		return exitFailure
	}
	// A second signal ends the process at once, for who does not want to wait for a clean stop.
	context.AfterFunc(ctx, stop)
	if err := n.Run(ctx); err != nil {
		fmt.Fprintln(stderr, "tidewire:", err)
		return exitFailure
	}
	return exitOK
}

func healthcheck(stderr io.Writer) int {
	addr := os.Getenv("TIDEWIRE_ADMIN_LISTEN")
	if addr == "" {
		addr = node.Defaults().AdminListen
	}
	if host, port, err := net.SplitHostPort(addr); err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	client, scheme := http.Client{Timeout: 3 * time.Second}, "http://"
	if os.Getenv("TIDEWIRE_ADMIN_TLS_CERT") != "" {
		// The certificate is for the names that others use. This asks the process beside it whether it lives, and nothing
		// is said that anybody else may not hear.
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		scheme = "https://"
	}
	res, err := client.Get(scheme + addr + "/healthz")
	if err != nil {
		fmt.Fprintln(stderr, "tidewire healthcheck:", err)
		return exitFailure
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		fmt.Fprintln(stderr, "tidewire healthcheck:", res.Status)
		return exitFailure
	}
	return exitOK
}
