package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// measure runs a scenario on a server and returns what it gave: of that server, and of a plain consumer where
// there was one.
func (b *bench) measure(ctx context.Context, s *Scenario, server string) (_ map[string]map[string]float64, err error) {
	if b.o.Local && (s.kind == kindIngest || s.kind == kindLatency) {
		restore, err2 := b.shareProcessors()
		if restore != nil {
			defer func() { err = errors.Join(err, restore()) }()
		}
		if err2 != nil {
			return nil, err2
		}
	}
	if s.kind == kindIngest {
		return b.ingest(ctx, s)
	}
	sys, err := b.start(ctx, s, server)
	if err != nil {
		return nil, err
	}
	defer sys.close()
	load, err := newLoad(b.o.Threads)
	if err != nil {
		return nil, err
	}
	defer func() { _ = load.Close() }()
	m := &measurement{b: b, s: s, server: server, sys: sys, load: load}
	if s.kind == kindLatency {
		return m.latency(ctx)
	}
	var values map[string]float64
	switch s.kind {
	case kindIdle:
		values, err = m.idle(ctx)
	case kindStorm:
		values, err = m.storm(ctx)
	case kindDead:
		values, err = m.dead(ctx)
	default:
		values, err = m.steady(ctx)
	}
	if died := sys.died(); died != nil {
		return nil, errors.Join(died, err)
	}
	return map[string]map[string]float64{server: values}, err
}

func (b *bench) start(ctx context.Context, s *Scenario, server string) (system, error) {
	keys := b.keysOf(s)
	switch {
	case server == ServerFloor:
		return b.startFloor(keys)
	case server == ServerCentrifuge:
		return b.startCentrifuge(keys)
	case b.o.Local:
		w, err := b.wallsOf(server)
		if err != nil {
			return nil, err
		}
		return b.startTidewire(ctx, keys, w)
	default:
		return b.joinTidewire(ctx, keys)
	}
}

// measurement is one scenario on one system.
type measurement struct {
	b      *bench
	s      *Scenario
	server string
	sys    system
	load   *Load
	sent   uint64 // messages since the clients were opened
	n      int    // clients that read
}

// mark is where a window begins.
type mark struct {
	at    time.Time
	use   usage
	known bool
	sent  uint64
	count counters
}

// begin begins a window.
func (m *measurement) begin() (mark, error) {
	use, known, err := m.sys.usage()
	if t, ok := m.sys.(*tidewire); ok && t.cluster != nil && m.s.kind != kindIdle {
		m.b.prof.take(m.b, m.s.Name+strings.TrimPrefix(m.server, ServerTidewire), t.cluster.nodes[0].admin, m.b.o.Duration)
	}
	w := m.load.take()
	return mark{time.Now(), use, known, m.sent, w.count}, err
}

// end ends it: what was delivered, and what that took.
func (m *measurement) end(from mark) (map[string]float64, *window, error) {
	w := m.load.take()
	took := time.Since(from.at)
	use, known, err := m.sys.usage()
	if err != nil {
		return nil, nil, err
	}
	c := w.count.sub(from.count)
	if c.messages == 0 {
		return nil, nil, errNothing
	}
	v := map[string]float64{
		"rate":   float64(c.messages) / took.Seconds(),
		"closed": float64(c.closed), "load_us": micros(w.cpu) / float64(c.messages), "per_read": float64(c.messages) / float64(max(1, c.reads)),
		"load_busy": 100 * (w.cpu + w.wait).Seconds() / (took.Seconds() * float64(m.b.o.Threads)),
	}
	if known && from.known {
		cpu := use.cpu - from.use.cpu
		v["cpu_us"] = micros(cpu) / float64(c.messages)
		v["cores"] = cpu.Seconds() / took.Seconds()
		v["rss_mb"] = float64(use.rss) / 1e6
		if p := use.pauses.since(from.use.pauses); len(p) > 0 {
			v["gc_pauses"], v["gc_p999_ms"], v["gc_max_ms"] = p[len(p)-1].count, millisAtMost(p, 0.999), millisAtMost(p, 1)
		}
	}
	if m.s.kind != kindSaturated { // there it is the length of the queues
		latencies(v, "", &w.groups[0])
	}
	if neg := w.groups[0].neg; neg > 0 {
		m.b.problem("%s: %d messages came before they were made: the clocks differ, and latencies are wrong by as much", m.s.Name, neg)
	}
	m.b.prof.wait()
	return v, w, nil
}

// errNothing: in a window no message came, on a machine that stood still or from a server that does not work.
var errNothing = errors.New("nothing was delivered")

func latencies(v map[string]float64, prefix string, h *histogram) {
	v[prefix+"p50_ms"], v[prefix+"p99_ms"] = millis(h.quantile(0.5)), millis(h.quantile(0.99))
	if prefix == "" {
		v["p999_ms"], v["max_ms"] = millis(h.quantile(0.999)), millis(time.Duration(h.max))
	}
}

func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// openWait bounds connecting and subscribing.
const openWait = 2 * time.Minute

func (m *measurement) open(ctx context.Context, clients []client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openWait, fmt.Errorf("they took longer than %v", openWait))
	defer cancel()
	m.n += len(clients)
	err := m.load.open(ctx, clients)
	if agreed := m.load.agreed(); agreed != "" {
		m.b.report.Settings["TLS of the clients"] = agreed
	}
	return err
}

const (
	// drainIdle is how long nothing comes before what is missing is taken for lost.
	drainIdle = 10 * time.Second
	// drainWait bounds how long it may come: the floor, which gathers nothing, is behind by most of a window at 1,000 messages/s.
	drainWait = 2 * time.Minute
)

// drain waits for what was sent, and notes what did not come. want is how many messages that is.
func (m *measurement) drain(ctx context.Context, v map[string]float64, want int64) error {
	return m.drainOf(ctx, v, want, func(c counters) int64 { return c.messages })
}

func (m *measurement) drainOf(ctx context.Context, v map[string]float64, want int64, have func(counters) int64) error {
	ctx, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	if err := m.sys.settle(ctx); err != nil {
		return err
	}
	last, at := int64(-1), time.Now()
	err := m.load.until(ctx, func(c counters) (bool, string) {
		got := have(c)
		if got != last {
			last, at = got, time.Now()
		}
		return got-c.repeated >= want || time.Since(at) > drainIdle, fmt.Sprintf("%d of %d messages came", got, want)
	})
	if err != nil {
		return err
	}
	c := m.load.counters()
	// What has a gap was seen to be missing; what is missing at the end has no gap.
	v["missing"] = float64(max(c.missing, want-(have(c)-c.repeated)))
	v["repeated"] = float64(c.repeated)
	if c.foreign > 0 {
		m.b.problem("%s: %d records came that others wrote: figures hold them, too", m.s.Name, c.foreign)
	}
	return nil
}

// steady sends at a rate, or as much as goes.
func (m *measurement) steady(ctx context.Context) (map[string]float64, error) {
	n, keys := m.b.clientsOf(m.s), m.b.keysOf(m.s)
	if err := m.open(ctx, m.sys.clients(n)); err != nil {
		return nil, err
	}
	if f, ok := m.sys.(*piped); ok && f.dialect == speakFloor && m.s.kind == kindSaturated {
		return m.flood(ctx, f)
	}
	flow := m.pace
	if m.s.kind == kindSaturated {
		flow = m.saturate
	}
	if err := flow(ctx, m.b.o.Warmup); err != nil {
		return nil, err
	}
	from, err := m.begin()
	if err != nil {
		return nil, err
	}
	if err := flow(ctx, m.b.o.Duration); err != nil {
		return nil, err
	}
	v, w, err := m.end(from)
	if err != nil {
		return nil, err
	}
	if m.s.secure {
		m.keptUp(v, expected(m.sent, n, keys)-expected(from.sent, n, keys), w.count.messages-from.count.messages)
	}
	return v, m.drain(ctx, v, expected(m.sent, n, keys))
}

const (
	// busyLoad is which per cent of the time the load may be busy before latencies are its own.
	busyLoad = 90
	// keptUpShare is which part of what was sent in a window has to come in it.
	keptUpShare = 0.97
)

// keptUp notes where the load, to which TLS is dear, or the server did not keep up with what was sent in a window.
func (m *measurement) keptUp(v map[string]float64, sent, came int64) {
	if v["load_busy"] > busyLoad {
		m.b.problem("%s, %s: the load did not keep up: it was busy, or waited for a processor, more than %d%% of the time; latencies are its own, "+
			"and a reader that does not sleep need not be woken, which spares the server something", m.s.Name, m.server, busyLoad)
	}
	if float64(came) < keptUpShare*float64(sent) {
		m.b.problem("%s, %s: the load or the server did not keep up: of what was sent in a window, %.0f%% came in it",
			m.s.Name, m.server, 100*float64(came)/float64(sent))
	}
}

// flood has the floor write as much as sockets take. Messages have no order there.
func (m *measurement) flood(ctx context.Context, f *piped) (map[string]float64, error) {
	all := m.b.o.Warmup + m.b.o.Duration + time.Second
	if err := f.flood(all); err != nil {
		return nil, err
	}
	if err := sleep(ctx, m.b.o.Warmup); err != nil {
		return nil, err
	}
	from, err := m.begin()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, m.b.o.Duration); err != nil {
		return nil, err
	}
	v, _, err := m.end(from)
	return v, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// tickEvery is how often messages are sent: what is due within a tick goes together, on every server alike.
const tickEvery = time.Millisecond

// pace sends at the scenario's rate for so long.
func (m *measurement) pace(ctx context.Context, d time.Duration) error {
	rate := m.b.rateOf(m.s)
	began, first := time.Now(), m.sent
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		gone := time.Since(began)
		if due := int(min(gone, d).Seconds()*rate) - int(m.sent-first); due > 0 {
			if err := m.send(due); err != nil {
				return err
			}
		}
		if gone >= d {
			return nil
		}
	}
}

func (m *measurement) send(n int) error {
	if err := m.sys.died(); err != nil {
		return err
	}
	m.sent += uint64(n)
	return m.sys.send(n)
}

const (
	// outstanding is how many messages a client may be behind in the saturated scenario.
	outstanding = 512
	// burst is how many are sent at a time there.
	burst = 128
)

// saturate sends as fast as clients take it, for so long.
func (m *measurement) saturate(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	// What clients that were closed did not get is no reason to wait: behind counts from here whenever nothing comes.
	var forgiven, last int64
	moved := time.Now()
	for time.Now().Before(end) {
		c := m.load.counters()
		if c.messages != last {
			last, moved = c.messages, time.Now()
		}
		behind := int64(m.sent)*int64(m.n) - c.messages - forgiven
		if behind > 0 && time.Since(moved) > time.Second {
			forgiven += behind
			behind = 0
		}
		if behind/int64(m.n) <= outstanding-burst {
			if err := m.send(burst); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
