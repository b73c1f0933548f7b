// Command tidewire-demo is a whole Tidewire in one process, to look at and to try things on: an embedded
// Kafka, three nodes, producers of sample data and a page that shows it. Nothing is kept after its end.
//
//	producers ─▶ Kafka 9092 ─▶ n1 8080, n2 8180, n3 8280 ─▶ the page, tidectl, wscat
//
// The order of starting, which the order of stopping turns around: Kafka and its topics, the nodes, the
// producers. With TIDEWIRE_KAFKA_BROKERS set, the nodes and the producers use that Kafka.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	code := run(ctx, os.Args[1:], os.Getenv("TIDEWIRE_KAFKA_BROKERS"), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// config of a demo; ports are one for each node.
type config struct {
	host         string // where everything listens
	brokers      []string
	kafkaPort    int // of the embedded Kafka, if there are no brokers; 0: a free one
	clientPorts  []int
	adminPorts   []int
	clusterPorts []int
	rate         int      // records a second
	guests       []string // origins besides the page's own whose pages may connect as clients
	log          zerolog.Logger
}

// run is the whole program; it returns the exit code: 0 ended as asked, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, brokers string, stdout, stderr io.Writer) int {
	cfg := config{
		clientPorts: []int{8080, 8180, 8280}, adminPorts: []int{8081, 8181, 8281}, clusterPorts: []int{7070, 7170, 7270},
	}
	f := flag.NewFlagSet("tidewire-demo", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&cfg.host, "host", "127.0.0.1", "`address` to listen on with everything; the demo has no authentication")
	f.IntVar(&cfg.kafkaPort, "kafka-port", 9092, "`port` of the embedded Kafka")
	f.Var((*ports)(&cfg.clientPorts), "client-ports", "`ports` of the three nodes for clients")
	f.Var((*ports)(&cfg.adminPorts), "admin-ports", "their admin `ports`")
	f.Var((*ports)(&cfg.clusterPorts), "cluster-ports", "`ports` for each other")
	f.IntVar(&cfg.rate, "rate", 50, "sample `records` a second")
	f.Func("origin", "an `origin` besides the demo's own, such as http://127.0.0.1:3000, whose pages may connect; may be repeated", func(s string) error {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("%q is not an origin such as http://127.0.0.1:3000", s)
		}
		cfg.guests = append(cfg.guests, s)
		return nil
	})
	level := f.String("log", "error", "`level` of the nodes' log: debug, info, warn, error")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	parsed, err := zerolog.ParseLevel(*level)
	switch {
	case err != nil || *level == "":
		fmt.Fprintf(stderr, "tidewire-demo: -log=%s: want debug, info, warn or error\n", *level)
		return 2
	case f.NArg() > 0:
		fmt.Fprintf(stderr, "tidewire-demo: it takes flags only, not %q\n", f.Arg(0))
		return 2
	case cfg.rate < 1 || cfg.rate > 10000:
		fmt.Fprintf(stderr, "tidewire-demo: -rate=%d: want 1 to 10000 records a second\n", cfg.rate)
		return 2
	case cfg.kafkaPort < 1 || cfg.kafkaPort > 65535:
		fmt.Fprintf(stderr, "tidewire-demo: -kafka-port=%d: want a port\n", cfg.kafkaPort)
		return 2
	}
	for b := range strings.SplitSeq(brokers, ",") {
		if b = strings.TrimSpace(b); b != "" {
			cfg.brokers = append(cfg.brokers, b)
		}
	}
	cfg.log = zerolog.New(zerolog.ConsoleWriter{Out: stderr, TimeFormat: time.TimeOnly}).Level(parsed).With().Timestamp().Logger()
	if err := demo(ctx, cfg, func(d *runningDemo) { d.welcome(stdout) }); err != nil {
		fmt.Fprintln(stderr, "tidewire-demo:", err)
		return 1
	}
	fmt.Fprintln(stdout, "Everything has stopped.")
	return 0
}

// ports are those of the three nodes, as a flag.
type ports []int

func (p *ports) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*p), " ", ","), "[]")
}

func (p *ports) Set(text string) error {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 || n > 65535 || slices.Contains(list, n) {
			return errors.New("want three ports, such as 8080,8180,8280")
		}
		list = append(list, n)
	}
	if len(list) != 3 {
		return errors.New("want three ports, such as 8080,8180,8280")
	}
	*p = list
	return nil
}

// runningDemo is what there is to say about a demo that is ready.
type runningDemo struct {
	cfg   config
	kafka string
	nodes *nodes
}

// demo runs until ctx ends or something fails, and calls ready once everything serves.
func demo(ctx context.Context, cfg config, ready func(*runningDemo)) (err error) {
	dir, err := os.MkdirTemp("", "tidewire-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	k, err := startKafka(ctx, cfg)
	if err != nil {
		return err
	}
	defer k.close()

	ns := newNodes(cfg, k.brokers, dir)
	defer ns.close()
	for _, n := range ns.all {
		if err := n.start(); err != nil {
			return err
		}
	}
	produce, stopProducing := context.WithCancel(ctx)
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		k.produce(produce, cfg.rate, cfg.log)
	}()
	defer func() { stopProducing(); <-produced }()

	if err := ns.waitReady(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	ready(&runningDemo{cfg: cfg, kafka: strings.Join(k.brokers, ","), nodes: ns})
	<-ctx.Done()
	return nil
}

// welcome prints what a newcomer needs.
func (d *runningDemo) welcome(w io.Writer) {
	var addrs []string
	for _, p := range d.cfg.clientPorts {
		addrs = append(addrs, net.JoinHostPort(d.cfg.shownHost(), strconv.Itoa(p)))
	}
	var admin []string
	for _, p := range d.cfg.adminPorts {
		admin = append(admin, net.JoinHostPort(d.cfg.shownHost(), strconv.Itoa(p)))
	}
	flags, adminFlag := "", ""
	if list := strings.Join(admin, ","); list != "127.0.0.1:8081,127.0.0.1:8181,127.0.0.1:8281" {
		adminFlag = " -admin " + list
	}
	if list := strings.Join(addrs, ","); list != "127.0.0.1:8080,127.0.0.1:8180,127.0.0.1:8280" {
		flags = " -nodes " + list
	}
	fmt.Fprintf(w, `
Tidewire is up: three nodes, Kafka on %s.

  page       http://%s/
  console    http://%s/
  subscribe  go run ./cmd/tidectl sub%s /prices/EURUSD
  publish    go run ./cmd/tidectl pub%s /chat '{"from":"me","text":"hello"}'
  cluster    go run ./cmd/tidectl status%s

Ctrl-C ends everything.
`, d.kafka, addrs[0], admin[0], flags, flags, adminFlag)
}

// shownHost is an address that a browser on this machine can open.
func (c *config) shownHost() string {
	if ip := net.ParseIP(c.host); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return c.host
}
