package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idle measures what a connection with a subscription costs in memory.
func (m *measurement) idle(ctx context.Context) (map[string]float64, error) {
	before, known, err := m.steadyMemory(ctx)
	if err != nil {
		return nil, err
	}
	n := m.b.clientsOf(m.s)
	clients := m.sys.clients(n)
	began := time.Now()
	if err := m.open(ctx, clients); err != nil {
		return nil, err
	}
	v := map[string]float64{"conns": float64(n), "open_s": time.Since(began).Seconds()}
	after, _, err := m.steadyMemory(ctx)
	if err != nil {
		return nil, err
	}
	if known {
		v["rss_mb"] = float64(after) / 1e6
		v["kb_conn"] = float64(after-before) / 1000 / float64(n)
	}
	if c := m.load.counters(); c.closed > 0 {
		return nil, fmt.Errorf("%d connections were closed by the server", c.closed)
	}
	return v, nil
}

// steadyMemory waits until the memory of the server has hardly changed for a while, or for long enough.
func (m *measurement) steadyMemory(ctx context.Context) (int64, bool, error) {
	still, longest := min(3*time.Second, m.b.o.Duration/3), 2*m.b.o.Duration
	began := time.Now()
	var base int64
	since := began
	for {
		u, known, err := m.sys.usage()
		if err != nil || !known {
			return 0, known, err
		}
		if d := u.rss - base; d > base/200 || -d > base/200 {
			base, since = u.rss, time.Now()
		}
		if time.Since(since) >= still || time.Since(began) >= longest {
			return u.rss, true, nil
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return 0, false, err
		}
	}
}

// storm has all clients lose their server at once. With Tidewire they sit on the second node, which is killed, and
// resume on the first; the other servers are one, whose clients hang up and come again.
func (m *measurement) storm(ctx context.Context) (map[string]float64, error) {
	n := m.b.clientsOf(m.s)
	clients := m.sys.clients(n)
	t, ours := m.sys.(*tidewire)
	if ours {
		if len(t.addrs) < 2 {
			return nil, errors.New("it takes two nodes at least")
		}
		for i := range clients {
			clients[i].addr, clients[i].other, clients[i].host, clients[i].resumes = t.addrs[1], t.addrs[0], t.hosts[1], true
		}
	}
	if err := m.open(ctx, clients); err != nil {
		return nil, err
	}
	flow := m.pace
	if !ours {
		flow = func(ctx context.Context, d time.Duration) error { return sleep(ctx, d) }
	}
	if err := flow(ctx, m.b.o.Warmup); err != nil {
		return nil, err
	}
	use, known, err := m.sys.usage()
	if err != nil {
		return nil, err
	}
	m.load.roam()
	before := m.load.counters()
	began := time.Now()
	if ours {
		t.cluster.kill(1)
	} else {
		m.load.cut()
	}
	// The flow goes on while they return.
	flowCtx, endFlow := context.WithCancel(ctx)
	flowed := make(chan error, 1)
	go func() { flowed <- flow(flowCtx, openWait) }()
	wait, cancel := context.WithTimeoutCause(ctx, openWait, fmt.Errorf("they took longer than %v", openWait))
	defer cancel()
	err = m.load.until(wait, func(c counters) (bool, string) {
		return c.closed-before.closed >= int64(n) && c.ready == int64(n), fmt.Sprintf("%d of %d clients are back", c.ready, n)
	})
	endFlow()
	if ferr := <-flowed; err == nil && !errors.Is(ferr, context.Canceled) {
		err = ferr
	}
	if err != nil {
		return nil, err
	}
	c := m.load.counters()
	v := map[string]float64{"conns": float64(n), "resume_s": time.Unix(0, c.lastReady).Sub(began).Seconds()}
	if after, _, err := m.sys.usage(); err == nil && known {
		v["cores"] = (after.cpu - use.cpu).Seconds() / time.Since(began).Seconds()
		v["rss_mb"] = float64(after.rss) / 1e6
	}
	if !ours {
		return v, nil
	}
	v["not_resumed"] = float64(max(int64(n)-(c.resumed-before.resumed), c.notResumed-before.notResumed))
	return v, m.drain(ctx, v, expected(m.sent, n, m.b.keysOf(m.s)))
}

// fillBurst is how many messages fill sends at a time.
const fillBurst = 32

// fill sends, as fast as the living take it, what fills the sockets of those that do not read: until then a server
// does not notice them, and at the scenario's rate that takes longer than the scenario.
func (m *measurement) fill(ctx context.Context, living int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openWait, fmt.Errorf("it took longer than %v to fill their sockets", openWait))
	defer cancel()
	messages := sendBufferMax() / int64(m.b.o.Size)
	base, first := m.load.got(0), m.sent
	var last, lost int64 // lost: what will not come, as its client was closed
	moved := time.Now()
	return m.load.until(ctx, func(counters) (bool, string) {
		sent, got := int64(m.sent-first), m.load.got(0)-base
		if got != last {
			last, moved = got, time.Now()
		}
		behind := sent*living - got - lost
		if time.Since(moved) > 2*time.Second {
			lost, behind = lost+behind, 0
		}
		// Gently: a server that closes slow clients must not find them among those who read.
		if sent < messages && behind/living <= fillBurst {
			if err := m.send(fillBurst); err != nil {
				m.load.threads[0].fail(err)
			}
			return false, ""
		}
		return sent >= messages && behind <= 0, fmt.Sprintf("those who read are %d messages behind", behind)
	})
}

// dead has one client in ten stop reading, and looks at the others.
func (m *measurement) dead(ctx context.Context) (map[string]float64, error) {
	n := m.b.clientsOf(m.s)
	clients := m.sys.clients(n)
	stop := max(1, int(float64(n)*deadShare))
	for i := range stop {
		clients[i].group, clients[i].small = 1, true
	}
	if err := m.open(ctx, clients); err != nil {
		return nil, err
	}
	half := m.b.o.Duration / 2
	if err := m.pace(ctx, m.b.o.Warmup); err != nil {
		return nil, err
	}
	from, err := m.begin()
	if err != nil {
		return nil, err
	}
	if err := m.pace(ctx, half); err != nil {
		return nil, err
	}
	before, _, err := m.end(from)
	if err != nil {
		return nil, err
	}
	m.load.deaden(1)
	if err := m.fill(ctx, int64(n-stop)); err != nil {
		return nil, err
	}
	if from, err = m.begin(); err != nil {
		return nil, err
	}
	if err := m.pace(ctx, m.b.o.Duration); err != nil {
		return nil, err
	}
	v, _, err := m.end(from)
	if err != nil {
		return nil, err
	}
	v["closed"] = float64(m.load.counters().closed) // also while the sockets were filled
	v["before_p99_ms"] = before["p99_ms"]
	if before["p99_ms"] > 0 {
		v["p99_ratio"] = v["p99_ms"] / before["p99_ms"]
	}
	if rss, ok := before["rss_mb"]; ok {
		v["rss_more_mb"] = v["rss_mb"] - rss
	}
	// The living ones must have everything.
	return v, m.drainOf(ctx, v, int64(m.sent)*int64(n-stop), func(counters) int64 { return m.load.got(0) })
}
