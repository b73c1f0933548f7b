package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/bench"
)

const benchSynopsis = `bench [flags]

Measures a Tidewire cluster with many WebSocket clients and prints a table. Each figure is the median of several
runs, with the least and the greatest. Linux only.

Against a cluster that runs: it writes records of its own to a topic, which the nodes must expose, and spreads its
subscribers over the nodes. With -admin it also tells the nodes' processor time and memory. Use a topic of its own.

  tidectl bench -nodes a:8080,b:8080,c:8080 -kafka k:9092 -topic bench
  tidectl bench -nodes live.example.com:443 -tls -token-file token -kafka k:9092 -topic bench
  tidectl bench -topic bench -scenario 'fanout-200|latency' -duration 30s -o json

With -local, everything on this machine, as "make bench" does: a real Kafka, three nodes, and beside them a program
that only writes ready frames (the floor) and a small server on the centrifuge library. The node under test, the
floor and the centrifuge server have the processors of -server-cpus; Kafka, the other nodes and the load share
those of -load-cpus. "make bench" builds what that needs into bin/. The scenarios secure-… compare Tidewire that asks for
tokens, speaks TLS, or both, with Tidewire that is open to all; certificate and tokens are made for them.

  tidectl bench -local -scenario 'keys-.*'
  tidectl bench -local -doc docs/benchmarks.md -json bench.json

Exit codes: 0 measured, also if a target was missed, 1 something could not be measured, 2 wrong usage.
Ctrl-C ends it and prints what there is; a second one ends it at once.`

func runBench(ctx context.Context, args []string, e env) error {
	if len(args) > 0 && args[0] == "floor" {
		return runFloor(ctx, args[1:], e)
	}
	f := flags("bench", benchSynopsis, e)
	var c clientFlags
	c.register(f, e)
	var k kafkaFlags
	k.register(f, e)
	var o bench.Options
	admin := f.String("admin", e.get("TIDECTL_ADMIN"), "`addresses` of the nodes' admin ports, for their processor time and memory (TIDECTL_ADMIN)")
	overTLS := f.Bool("tls", false, "the client ports of -nodes speak TLS")
	ca := f.String("ca", "", "PEM `file` with the CA of their certificates; it means -tls")
	f.StringVar(&o.Topic, "topic", "", "`topic` to write to")
	f.BoolVar(&o.Create, "create", false, "create the topic if it is missing")
	f.StringVar(&o.Scenarios, "scenario", "", "only those whose name this `expression` matches as a whole; -list lists them")
	f.IntVar(&o.Runs, "runs", 3, "of each scenario")
	f.DurationVar(&o.Duration, "duration", 10*time.Second, "of the measured window")
	f.DurationVar(&o.Warmup, "warmup", 2*time.Second, "before it")
	f.IntVar(&o.Size, "size", 512, "`bytes` of a record's value")
	f.Float64Var(&o.Scale, "scale", 1, "`factor` for the numbers of clients and of keys")
	f.IntVar(&o.Threads, "threads", 1, "of the load")
	f.BoolVar(&o.Local, "local", false, "start everything on this machine and compare")
	f.IntVar(&o.ClusterSize, "cluster-size", 3, "nodes of a local cluster")
	servers := f.String("servers", "tidewire,floor,centrifuge", "what to measure with -local")
	serverCPUs := f.String("server-cpus", "", "`processors` of the server under test, such as 0 or 0,1; default: the first")
	loadCPUs := f.String("load-cpus", "", "`processors` of all else; default: the others")
	f.Int64Var(&o.CacheBytes, "cache-bytes", 256<<20, "cache of a local node")
	f.Func("env", "`NAME=value` for the local nodes; may be repeated", func(s string) error {
		if !strings.Contains(s, "=") {
			return errors.New("want NAME=value")
		}
		o.NodeEnv = append(o.NodeEnv, s)
		return nil
	})
	f.IntVar(&o.Records, "records", 1_000_000, "of the ingest scenario")
	f.StringVar(&o.Profiles, "profiles", "", "`folder` for processor profiles of the node under test, with -local; they cost it a few per cent")
	bin := f.String("bin", "bin", "`folder` with tidewire, benchkafka and benchcentrifuge, for -local")
	f.StringVar(&o.KafkaLine, "kafka-version", "4", "release `line` of the local Kafka")
	f.StringVar(&o.Dir, "dir", "", "`folder` for the logs and data of -local; default: a new one under the system's for temporary files")
	output := f.String("o", "text", "`form` of the report: text or json")
	keep := f.String("json", "", "write the report as JSON to this `file`, too")
	doc := f.String("doc", "", "write the report as markdown to this `file`, with its plots in a folder beside it")
	only := f.Bool("list", false, "list the scenarios")
	rest, err := parse(f, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return fmt.Errorf("%w: bench takes no argument, not %q", errUsage, rest[0])
	case *output != "text" && *output != "json":
		return fmt.Errorf("%w: -o is text or json, not %q", errUsage, *output)
	case *only:
		return listScenarios(e.out)
	case !o.Local && o.Topic == "":
		return fmt.Errorf("%w: name a topic to write to with -topic, or use -local", errUsage)
	}
	if o.ServerCPUs, err = processors(*serverCPUs); err == nil {
		o.LoadCPUs, err = processors(*loadCPUs)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	o.Progress = func(format string, args ...any) { fmt.Fprintf(e.err, "tidectl: "+format+"\n", args...) }
	if o.Local {
		o.Servers = list(*servers)
		remove, err := localBench(&o, *bin)
		if err != nil {
			return err
		}
		defer remove()
	} else {
		o.Admin = list(*admin)
		if o.TLS, err = tlsOf(*overTLS, "-ca", *ca); err != nil {
			return err
		}
		if err := clusterBench(&o, &c, &k, e); err != nil {
			return err
		}
	}
	report, err := bench.Run(ctx, o)
	if report == nil || len(report.Samples) == 0 {
		if err != nil && ctx.Err() == nil && errors.Is(err, bench.ErrOptions) {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		return err
	}
	if *output == "json" {
		err = errors.Join(err, writeJSON(e.out, report))
	} else {
		err = errors.Join(err, report.WriteText(e.out))
	}
	if *keep != "" {
		err = errors.Join(err, toFile(*keep, func(w io.Writer) error { return writeJSON(w, report) }))
	}
	if *doc != "" {
		err = errors.Join(err, report.WriteDoc(*doc))
	}
	if err == nil && len(report.Failed) > 0 && ctx.Err() == nil {
		return fmt.Errorf("%d measurements failed, the first: %s", len(report.Failed), report.Failed[0])
	}
	return err
}

// clusterBench completes the options of a bench of a cluster that runs: how to reach it and what to show.
func clusterBench(o *bench.Options, c *clientFlags, k *kafkaFlags, e env) (err error) {
	o.Nodes, o.Brokers = list(c.nodes), list(k.brokers)
	if o.Token, err = c.theToken(e); err != nil {
		return err
	}
	if o.AdminTransport, err = adminTransport(e, &http.Transport{DisableKeepAlives: true}); err != nil {
		return err
	}
	o.Kafka, err = k.options(e)
	return err
}

// localBench completes the options of a local bench. The folder for logs and data is removed at the end if it is
// ours; that of a bench that was killed stays under the system's for temporary files.
func localBench(o *bench.Options, bin string) (remove func(), err error) {
	remove = func() {}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "tidewire-bench-"); err != nil {
			return nil, err
		}
		dir := o.Dir
		remove = func() { _ = os.RemoveAll(dir) }
	}
	self, err := os.Executable()
	for _, path := range []*string{&o.Dir, &bin} {
		if err == nil {
			*path, err = filepath.Abs(*path)
		}
	}
	if err != nil {
		remove()
		return nil, err
	}
	o.FloorCommand = []string{self, "bench", "floor"}
	o.Tidewire, o.KafkaPath, o.Centrifuge = filepath.Join(bin, "tidewire"), filepath.Join(bin, "benchkafka"), filepath.Join(bin, "benchcentrifuge")
	return remove, nil
}

const floorSynopsis = `bench floor [flags]

The floor of the bench, which "tidectl bench -local" starts: it answers WebSocket handshakes and writes ready frames.
It does what lines on its standard input say: "send N" sends N messages, "flood MS" sends as much as the sockets
take for so many milliseconds. At the end of its input it ends.`

func runFloor(ctx context.Context, args []string, e env) error {
	f := flags("bench floor", floorSynopsis, e)
	var o bench.FloorOptions
	f.StringVar(&o.Listen, "listen", "127.0.0.1:0", "`address` for clients; it is printed")
	f.IntVar(&o.Size, "size", 512, "`bytes` of a message's value")
	f.IntVar(&o.Keys, "keys", 1, "message i goes to the clients that asked for the path /(i modulo this number)")
	if rest, err := parse(f, args); err != nil {
		return err
	} else if len(rest) > 0 {
		return fmt.Errorf("%w: bench floor takes no argument, not %q", errUsage, rest[0])
	}
	signal.Ignore(os.Interrupt) // the bench ends it
	return bench.Floor(ctx, o, e.in, e.out)
}

func listScenarios(w io.Writer) error {
	for _, s := range bench.Scenarios() {
		where := ""
		if s.LocalOnly {
			where = " (-local)"
		}
		if _, err := fmt.Fprintf(w, "%-12s %s%s\n", s.Name, s.About, where); err != nil {
			return err
		}
	}
	return nil
}

// processors reads numbers separated by commas.
func processors(s string) ([]int, error) {
	var out []int
	for _, part := range list(s) {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n > 1023 {
			return nil, fmt.Errorf("%q is not a list of processors such as 0 or 0,1", s)
		}
		out = append(out, n)
	}
	return out, nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func toFile(name string, write func(io.Writer) error) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}
