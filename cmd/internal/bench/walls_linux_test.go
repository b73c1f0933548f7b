package bench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Tidewire with tokens and TLS beside Tidewire without: all four deliver everything.
func TestBenchWithWalls(t *testing.T) {
	o := local(t)
	o.ClusterSize, o.Scenarios = 1, "secure-200"
	r, err := runEnough(t, o, whatever)
	check(t, r, err, []string{"secure-200 tidewire", "secure-200 tidewire+jwt", "secure-200 tidewire+tls", "secure-200 tidewire+tls+jwt"})
	if tls := r.Settings["TLS of the clients"]; !strings.HasPrefix(tls, "TLS 1.3, TLS_") {
		t.Errorf("the report says of TLS: %q", tls)
	}
}

// The secure scenarios are Tidewire's alone, and the others have it as it is.
func TestServersOfScenarios(t *testing.T) {
	o := Options{Local: true, Servers: []string{ServerTidewire, ServerFloor, ServerCentrifuge}, Centrifuge: "x"}
	secure := 0
	for _, s := range Scenarios() {
		if !strings.HasPrefix(s.Name, "secure-") {
			if slices.ContainsFunc(s.possible(&o), func(name string) bool { return strings.Contains(name, "+") }) {
				t.Errorf("%s: %v", s.Name, s.possible(&o))
			}
			if got := slices.Contains(s.possible(&o), ServerFloor); got != (s.Name != "storm" && s.Name != "dead" && s.Name != "latency" && s.Name != "ingest") {
				t.Errorf("%s on the floor: %v", s.Name, got)
			}
			continue
		}
		secure++
		if got, want := s.possible(&o), []string{ServerTidewire, ServerJWT, ServerTLS, ServerTLSJWT}; !slices.Equal(got, want) || !s.LocalOnly {
			t.Errorf("%s: %v", s.Name, got)
		}
	}
	if secure != 3 {
		t.Errorf("%d scenarios", secure)
	}
}

// The walls of a node keep out who has not what it takes, so that it is they that are measured; a bench of a cluster that
// runs gets through them.
func TestWallsKeepOut(t *testing.T) {
	o := local(t)
	o.ClusterSize = 1
	b := &bench{o: o, began: time.Now(), brokers: o.Brokers, report: &Report{}}
	if err := b.o.fill(); err != nil {
		t.Fatal(err)
	}
	w, err := b.wallsOf(ServerTLSJWT)
	if err != nil {
		t.Fatal(err)
	}
	sys, err := b.startTidewire(t.Context(), 1, w)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.close()
	joined := tiny(t, Options{Nodes: sys.hosts, Admin: []string{sys.cluster.nodes[0].admin}, Brokers: o.Brokers, Topic: sys.topic, TLS: w.tls, Token: w.tokens(sys.topic)(), Scenarios: "fanout-50"})
	r, err := runEnough(t, joined, whatever)
	check(t, r, err, []string{"fanout-50 tidewire"})
	for want, change := range map[string]func(o *Options){
		"use https:// or wss://":        func(o *Options) { o.TLS = nil },
		"unauthenticated":               func(o *Options) { o.Token = "" },
		"401 Unauthorized":              func(o *Options) { o.Token += "x" },
		"forbidden":                     func(o *Options) { o.Token = w.tokens("other")() },
		"failed to verify certificate:": func(o *Options) { o.TLS = o.TLS.Clone(); o.TLS.RootCAs = nil },
	} {
		o := joined
		change(&o)
		if r, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v, %v", want, err, r)
		}
	}
}

func TestTokensAreOfOneUserEach(t *testing.T) {
	w := walls{secret: []byte(strings.Repeat("s", 32))}
	next := w.tokens("t")
	if a, b := next(), next(); a == b || strings.Count(a, ".") != 2 {
		t.Errorf("%s, %s", a, b)
	}
	if (walls{}).tokens("t") != nil {
		t.Error("tokens without a secret")
	}
}

// A run in which the load was busy all the time, or fell behind, says so.
func TestKeptUp(t *testing.T) {
	for _, c := range []struct {
		busy       float64 // per cent
		sent, came int64
		want       []string
	}{
		{busy: 10, sent: 1000, came: 990},
		{busy: 95, sent: 1000, came: 1000, want: []string{"s, x: the load did not keep up: it was busy, or waited for a processor, more than 90% of"}},
		{busy: 10, sent: 1000, came: 900, want: []string{"s, x: the load or the server did not keep up: of what was sent in a window, 90%"}},
	} {
		b := &bench{o: Options{Threads: 1, Progress: t.Logf}, report: &Report{}}
		m := &measurement{b: b, s: &Scenario{Name: "s"}, server: "x"}
		m.keptUp(map[string]float64{"load_busy": c.busy}, c.sent, c.came)
		if !slices.EqualFunc(b.report.Problems, c.want, strings.HasPrefix) {
			t.Errorf("%+v: %q", c, b.report.Problems)
		}
	}
}
