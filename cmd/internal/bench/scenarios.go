package bench

import "regexp"

// Scenario is one thing that is measured. Numbers of clients are before Options.Scale and what the system allows.
type Scenario struct {
	Name    string
	About   string
	Clients int
	Keys    int
	Rate    float64 // messages per second; zero: as many as go
	Targets []Target
	// LocalOnly needs processes of its own to stop, or an empty cluster.
	LocalOnly bool

	kind kind
	// secure compares Tidewire with TLS and tokens with itself, and with no other server.
	secure bool
}

type kind uint8

const (
	kindSteady kind = iota
	kindSaturated
	kindIdle
	kindLatency
	kindIngest
	kindStorm
	kindDead
)

// deadShare is which part of the clients stops reading in the scenario of dead readers.
const deadShare = 0.1

// Scenarios returns all, in the order in which they run. The targets are those of ARCHITECTURE.md.
func Scenarios() []Scenario {
	whole := []Target{{Metric: "missing", AtMost: true}, {Metric: "repeated", AtMost: true}}
	whole = append(whole, Target{Metric: "gc_max_ms", AtMost: true, Bound: 5})
	floor := Target{Metric: "cpu_us", Over: ServerFloor, AtMost: true, Bound: 1.3}
	perKey := []Target{
		{Metric: "cpu_us", AtMost: true, Bound: 20},
		{Metric: "p50_ms", AtMost: true, Bound: 3}, {Metric: "p99_ms", AtMost: true, Bound: 25}, {Metric: "max_ms", AtMost: true, Bound: 200},
	}
	idle := []Target{{Metric: "kb_conn", AtMost: true, Bound: 12}}
	join := func(parts ...[]Target) (all []Target) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	return []Scenario{
		{Name: "fanout-50", About: "1 subject, 1,000 subscribers, 50 messages/s", Clients: 1000, Keys: 1, Rate: 50, Targets: join([]Target{floor}, whole)},
		{Name: "fanout-200", About: "1 subject, 1,000 subscribers, 200 messages/s", Clients: 1000, Keys: 1, Rate: 200, Targets: join([]Target{floor}, whole)},
		{Name: "fanout-1000", About: "1 subject, 1,000 subscribers, 1,000 messages/s", Clients: 1000, Keys: 1, Rate: 1000, Targets: join([]Target{floor}, whole)},
		{Name: "fanout-max", About: "1 subject, 1,000 subscribers, as many messages as go", Clients: 1000, Keys: 1, kind: kindSaturated,
			Targets: join([]Target{{Metric: "rate", Bound: 1_500_000}}, whole)},
		{Name: "keys-5000", About: "10,000 keys, each once a second; 5,000 clients of one key each", Clients: 5000, Keys: 10000, Rate: 10000, Targets: join(perKey, whole)},
		{Name: "keys-20000", About: "10,000 keys, each once a second; 20,000 clients of one key each", Clients: 20000, Keys: 10000, Rate: 10000,
			Targets: join([]Target{{Metric: "cores", AtMost: true, Bound: 0.5}}, perKey, whole)},
		{Name: "idle-10000", About: "10,000 connections with one subscription each, and nothing to send", Clients: 10000, Keys: 10000, kind: kindIdle, Targets: idle},
		{Name: "idle-100000", About: "100,000 connections with one subscription each, and nothing to send", Clients: 100000, Keys: 10000, kind: kindIdle, Targets: idle},
		{Name: "latency", About: "1,000 records/s of 100 keys; ten subscribers of everything on each node beside a plain consumer", Clients: 10, Keys: 100, Rate: 1000, kind: kindLatency,
			Targets: join([]Target{{Metric: "more_p50_ms", AtMost: true, Bound: 2}, {Metric: "more_p99_ms", AtMost: true, Bound: 8}}, whole[:1])},
		{Name: "ingest", About: "a topic of a million records, no subscriber, until every node has them", Keys: 10000, kind: kindIngest, LocalOnly: true,
			Targets: []Target{{Metric: "records_s", Bound: 150_000}}},
		{Name: "storm", About: "10,000 clients of one key each, thrown onto another node while 1,000 messages/s come", Clients: 10000, Keys: 10000, Rate: 1000, kind: kindStorm, LocalOnly: true,
			Targets: join([]Target{{Metric: "resume_s", AtMost: true, Bound: 5}, {Metric: "not_resumed", AtMost: true}}, whole)},
		{Name: "dead", About: "1 subject, 1,000 subscribers, 200 messages/s; one in ten stops reading", Clients: 1000, Keys: 1, Rate: 200, kind: kindDead,
			Targets: join([]Target{{Metric: "p99_ratio", AtMost: true, Bound: 1.25}}, whole)},
		{Name: "secure-50", About: "tokens and TLS: 1 subject, 1,000 subscribers, 50 messages/s", Clients: 1000, Keys: 1, Rate: 50, LocalOnly: true, secure: true, Targets: whole},
		{Name: "secure-200", About: "tokens and TLS: 1 subject, 1,000 subscribers, 200 messages/s", Clients: 1000, Keys: 1, Rate: 200, LocalOnly: true, secure: true, Targets: whole},
		{Name: "secure-idle", About: "tokens and TLS: 10,000 connections with one subscription each, and nothing to send", Clients: 10000, Keys: 10000, kind: kindIdle,
			LocalOnly: true, secure: true},
	}
}

// selected returns the scenarios that the options ask for and allow.
func (o *Options) selected() []Scenario {
	match := regexp.MustCompile("^(?:" + o.Scenarios + ")$")
	var out []Scenario
	for _, s := range Scenarios() {
		if o.Scenarios != "" && !match.MatchString(s.Name) || s.LocalOnly && !o.Local || s.kind == kindStorm && o.ClusterSize < 2 {
			continue
		}
		out = append(out, s)
	}
	return out
}

// possible are the servers on which a scenario is run, of those that are asked for.
func (s *Scenario) possible(o *Options) []string {
	if !o.Local {
		return []string{ServerTidewire}
	}
	var out []string
	for _, name := range o.Servers {
		switch {
		case name == ServerTidewire && s.secure:
			out = append(out, ServerTidewire, ServerJWT, ServerTLS, ServerTLSJWT)
			continue
		case s.secure:
			continue
		case name == ServerTidewire:
		case s.kind == kindLatency || s.kind == kindIngest:
			continue // they compare with a plain consumer
		case name == ServerFloor && s.kind == kindDead:
			continue // it drops what a full socket does not take
		case name == ServerFloor && s.kind == kindStorm:
			continue // it shakes hands in turn, and knows nothing of resuming
		case name == ServerCentrifuge && o.Centrifuge == "":
			continue
		}
		out = append(out, name)
	}
	return out
}
