package main

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

const verifySynopsis = `verify [flags]

Loads a cluster, records what Kafka took and what every client saw, and says whether a promise was broken:
records lost, repeated, out of order; positions on which nodes disagree; acknowledged publishes that are
missing or came twice; losses that were declared and were none, and losses that were not declared. Besides
it tells the longest silence and the time that clients took to resume.

It writes to the topics: idempotently, in transactions of which some are aborted, and through the nodes with
message ids that it repeats. The cluster must expose them and, unless -publishers is -1, take publishes to them
(TIDEWIRE_TOPICS, TIDEWIRE_PUBLISH_TOPICS). Use topics of their own; -create makes those that are missing.

Everything is kept in memory until it is judged, some 150 bytes for each record that a subscriber gets: by
default about 15 subscribers get every record or some, so 250 records/s take some 1 GB an hour.

Ctrl-C ends the load and judges what there is; a second one ends it at once. Exit codes: 0 no promise was
broken, 1 one was (or the run failed), 2 wrong usage.

  tidectl verify -topics verify -create -duration 1m
  tidectl verify -topics verify -o json -history run.json.gz
  tidectl verify -judge run.json.gz`

// errBreach ends verify when it found a promise broken: the report has said what.
var errBreach = errors.New("a promise was broken")

func runVerify(ctx context.Context, args []string, e env) error {
	f := flags("verify", verifySynopsis, e)
	var c clientFlags
	c.register(f, e)
	var o verify.Options
	var k kafkaFlags
	k.register(f, e)
	topics := f.String("topics", "", "`topics` to use, separated by commas")
	f.BoolVar(&o.Create, "create", false, "create the topics that are missing")
	f.IntVar(&o.Partitions, "partitions", 6, "of a topic that is created")
	f.IntVar(&o.Replication, "replication", -1, "of a topic that is created; -1: Kafka's default")
	f.DurationVar(&o.Duration, "duration", 30*time.Second, "of the load")
	f.IntVar(&o.Rate, "rate", 200, "records per second written to Kafka; -1: none")
	f.IntVar(&o.PublishRate, "publish-rate", 50, "publishes per second through the nodes")
	f.IntVar(&o.Publishers, "publishers", 4, "clients that publish; -1: none")
	f.IntVar(&o.KeySubs, "keys", 6, "subscribers of one key each, per topic; -1: none")
	f.IntVar(&o.Roamers, "roamers", 4, "subscribers that are cut and go to another node, per topic; -1: none")
	f.IntVar(&o.SlowSubs, "slow", 2, "subscribers that read slowly, per topic; -1: none")
	f.IntVar(&o.SlowRate, "slow-rate", 16<<10, "`bytes` per second that a slow one reads")
	f.IntVar(&o.Histories, "histories", 2, "subscribers at a time that ask for the history, per topic; -1: none")
	f.DurationVar(&o.CutEvery, "cut-every", 300*time.Millisecond, "how often a roaming subscriber is cut; -1s: never")
	f.DurationVar(&o.Settle, "settle", time.Minute, "how long subscribers may take at the end to get what is left")
	f.DurationVar(&o.Limits.Silence, "max-silence", 0, "a longer silence of a subscriber is a breach; 0: none is")
	f.DurationVar(&o.Limits.Resume, "max-resume", 0, "a longer way from a disconnect to the next subscription is a breach; 0: none is")
	f.Uint64Var(&o.Seed, "seed", 0, "of what is chosen at random; 0: a new one")
	output := f.String("o", "text", "`form` of the report: text or json")
	keep := f.String("history", "", "write what was recorded to this `file`, compressed if it ends in .gz")
	judge := f.String("judge", "", "judge a `file` that -history wrote; nothing is run")
	rest, err := parse(f, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return fmt.Errorf("%w: verify takes no argument, not %q", errUsage, rest[0])
	case *output != "text" && *output != "json":
		return fmt.Errorf("%w: -o is text or json, not %q", errUsage, *output)
	case o.Duration <= 0 || o.Settle <= 0:
		return fmt.Errorf("%w: -duration and -settle are above zero", errUsage)
	case *judge == "" && len(list(*topics)) == 0:
		return fmt.Errorf("%w: name the topics to use with -topics; they are written to", errUsage)
	}
	var h verify.History
	if *judge != "" {
		if h, err = readHistory(*judge); err != nil {
			return err
		}
	} else {
		o.Nodes, o.Topics, o.Brokers = list(c.nodes), list(*topics), list(k.brokers)
		if o.Token, err = c.theToken(e); err != nil {
			return err
		}
		if o.Kafka, err = k.options(e); err != nil {
			return err
		}
		if h, err = record(ctx, o, e); err != nil {
			if *keep != "" && h.Version != 0 { // Kafka could not be read back: what clients saw may still help
				err = errors.Join(err, writeHistory(*keep, &h))
			}
			return err
		}
	}
	report := verify.Judge(h)
	if *keep != "" {
		if err := writeHistory(*keep, &h); err != nil {
			return err
		}
	}
	if *output == "json" {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(struct {
			Clean bool `json:"clean"`
			verify.Report
		}{report.Clean(), report})
	} else {
		err = report.WriteText(e.out)
	}
	switch {
	case err != nil:
		return err
	case !report.Clean():
		return errBreach
	case report.Delivered == 0:
		return errors.New("no record was delivered to anyone: nothing was checked")
	}
	return nil
}

// tellEvery is the pause between two lines of progress.
const tellEvery = 5 * time.Second

// record runs the driver and tells on standard error how it goes.
func record(ctx context.Context, o verify.Options, e env) (verify.History, error) {
	say := func(format string, args ...any) { fmt.Fprintf(e.err, "tidectl: "+format+"\n", args...) }
	o.Progress = say
	d, err := verify.New(o)
	if err != nil {
		return verify.History{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	done, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				n := d.Counters()
				say("%s: %d written, %d aborted, %d published, %d acked, %d delivered, %d of %d subscribed, %d disconnects, %d losses declared",
					d.Now().Round(time.Second), n.Written, n.Aborted, n.Published, n.Acked, n.Delivered, n.Subscribed, n.Subscribers, n.Disconnects, n.Gaps)
			case <-done:
				return
			}
		}
	}()
	h, err := d.Run(ctx)
	close(done)
	<-told
	if errors.Is(err, context.Canceled) {
		// Not an error that ends a command well: nobody may take this for a verdict.
		return h, errors.New("ended before the load began: nothing was checked")
	}
	return h, err
}

func writeHistory(name string, h *verify.History) (err error) {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var w io.Writer = file
	if strings.HasSuffix(name, ".gz") {
		z := gzip.NewWriter(file)
		defer func() { err = errors.Join(err, z.Close()) }()
		w = z
	}
	return json.NewEncoder(w).Encode(h)
}

func readHistory(name string) (h verify.History, err error) {
	file, err := os.Open(name)
	if err != nil {
		return h, err
	}
	defer file.Close()
	var r io.Reader = file
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(file); err != nil {
			return h, fmt.Errorf("read %s: %w", name, err)
		}
	}
	if err := json.NewDecoder(r).Decode(&h); err != nil {
		return h, fmt.Errorf("read %s: %w", name, err)
	}
	if h.Version != verify.HistoryVersion {
		return h, fmt.Errorf("%s is a history of version %d; this program judges version %d", name, h.Version, verify.HistoryVersion)
	}
	return h, nil
}

// tlsOf reads what a flag for TLS and one with the file of a CA, which means the former, ask for; nil: no TLS.
func tlsOf(on bool, flag, ca string) (*tls.Config, error) {
	if !on && ca == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errUsage, flag, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %s: %s holds no certificate", errUsage, flag, ca)
		}
	}
	return c, nil
}

// kafkaFlags say how to reach Kafka.
type kafkaFlags struct {
	brokers, ca, mechanism, user string
	tls                          bool
}

func (k *kafkaFlags) register(f *flagSet, e env) {
	f.StringVar(&k.brokers, "kafka", or(e.get("TIDECTL_KAFKA"), "127.0.0.1:9092"), "`addresses` of Kafka's brokers (TIDECTL_KAFKA)")
	f.BoolVar(&k.tls, "kafka-tls", false, "use TLS to Kafka")
	f.StringVar(&k.ca, "kafka-ca", "", "PEM `file` with the CA of Kafka's certificates; it means -kafka-tls")
	f.StringVar(&k.mechanism, "kafka-sasl", "", "`mechanism`: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; the password is in TIDECTL_KAFKA_PASSWORD")
	f.StringVar(&k.user, "kafka-user", "", "`name` for -kafka-sasl")
}

func (k *kafkaFlags) options(e env) ([]kgo.Opt, error) {
	var opts []kgo.Opt
	if c, err := tlsOf(k.tls, "-kafka-ca", k.ca); err != nil {
		return nil, err
	} else if c != nil {
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	password := e.get("TIDECTL_KAFKA_PASSWORD")
	switch strings.ToUpper(k.mechanism) {
	case "":
	case "PLAIN":
		opts = append(opts, kgo.SASL(plain.Auth{User: k.user, Pass: password}.AsMechanism()))
	case "SCRAM-SHA-256":
		opts = append(opts, kgo.SASL(scram.Auth{User: k.user, Pass: password}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		opts = append(opts, kgo.SASL(scram.Auth{User: k.user, Pass: password}.AsSha512Mechanism()))
	default:
		return nil, fmt.Errorf("%w: -kafka-sasl is PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, not %q", errUsage, k.mechanism)
	}
	return opts, nil
}
