package abuse

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/bench"
)

// probe looks at the nodes from outside: what they tell Prometheus, and what the kernel says of them.
type probe struct {
	nodes []bench.Node
	http  http.Client
}

// maxMetrics bounds a node's answer.
const maxMetrics = 16 << 20

func newProbe(nodes []bench.Node) *probe {
	return &probe{nodes: nodes, http: http.Client{Timeout: 10 * time.Second}}
}

// metrics returns a node's metrics by name with labels, as Prometheus writes them.
func (p *probe) metrics(ctx context.Context, admin string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s", admin, resp.Status)
	}
	return parseMetrics(io.LimitReader(resp.Body, maxMetrics))
}

func parseMetrics(r io.Reader) (map[string]float64, error) {
	out := map[string]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[line[:i]] = v
		}
	}
	return out, lines.Err()
}

// all returns the metrics of all nodes.
func (p *probe) all(ctx context.Context) ([]map[string]float64, error) {
	var out []map[string]float64
	for _, n := range p.nodes {
		m, err := p.metrics(ctx, n.Admin)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// held returns what each node holds now.
func (p *probe) held(ctx context.Context) ([]Held, error) {
	all, err := p.all(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Held, len(all))
	for i, m := range all {
		out[i] = Held{Goroutines: int(m["go_goroutines"]), Descriptors: int(m["process_open_fds"])}
		if out[i].Goroutines == 0 || out[i].Descriptors == 0 {
			return nil, fmt.Errorf("%s tells neither goroutines nor descriptors", p.nodes[i].Name)
		}
	}
	return out, nil
}

// watch samples the nodes until end is called: the most memory that each had, and the most of each gauge.
type watch struct {
	p      *probe
	cancel context.CancelFunc
	wg     sync.WaitGroup
	memory []int64
	kernel int64 // bytes at the beginning
	grown  int64 // by how much there were more at most
	peaks  map[string]float64
	err    error
}

const (
	memoryEvery  = 200 * time.Millisecond
	metricsEvery = 5 // times as long
)

func (p *probe) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{p: p, cancel: cancel, memory: make([]int64, len(p.nodes)), peaks: map[string]float64{}}
	w.kernel, w.err = kernelTCP()
	w.wg.Go(func() {
		t := time.NewTicker(memoryEvery)
		defer t.Stop()
		for k := 0; ; k++ {
			w.look(ctx, k%metricsEvery == metricsEvery-1)
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	return w
}

func (w *watch) look(ctx context.Context, metrics bool) {
	for i, n := range w.p.nodes {
		rss, err := resident(n.PID)
		if err != nil {
			w.err = fmt.Errorf("memory of %s: %w", n.Name, err)
			continue
		}
		w.memory[i] = max(w.memory[i], rss)
	}
	if now, err := kernelTCP(); err != nil {
		w.err = err
	} else {
		w.grown = max(w.grown, now-w.kernel)
	}
	if !metrics {
		return
	}
	all, err := w.p.all(ctx)
	if err != nil {
		return // one that is too busy to tell is not lost for that: its records tell
	}
	for _, m := range all {
		for name, v := range m {
			if !strings.HasSuffix(name, "_total") {
				w.peaks[name] = max(w.peaks[name], v)
			}
		}
	}
}

// end stops it and tells a phase what it saw.
func (w *watch) end(p *Phase) (peaks map[string]float64, err error) {
	w.cancel()
	w.wg.Wait()
	p.Memory, p.Kernel = w.memory, w.grown
	return w.peaks, w.err
}

// kernelTCP is the memory that the kernel keeps for TCP, of all sockets in this network namespace's view, in bytes.
func kernelTCP() (int64, error) {
	b, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(f); i += 2 {
			if f[i] == "mem" {
				pages, err := strconv.ParseInt(f[i+1], 10, 64)
				return pages * int64(os.Getpagesize()), err
			}
		}
	}
	return 0, fmt.Errorf("/proc/net/sockstat tells nothing of TCP's memory: %q", b)
}

// resident is a process's memory, in bytes.
func resident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, fmt.Errorf("/proc/%d/statm: %q", pid, b)
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// cpu is the processor time that all nodes have used; of those that have ended, none.
func (p *probe) cpu() (sum time.Duration) {
	for _, n := range p.nodes {
		d, err := bench.CPUTime(n.PID)
		if err == nil {
			sum += d
		}
	}
	return sum
}

// procTasks lists a process's threads.
func procTasks(pid string) ([]int, error) {
	entries, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// traces are what an attack left in the nodes, between two looks: limits that were met, counters that rose, and the
// peaks of gauges meanwhile.
func traces(before, after []map[string]float64, peaks map[string]float64) map[string]int64 {
	out := map[string]int64{}
	for i, m := range after {
		for name, v := range m {
			rose := int64(v - before[i][name])
			if rose <= 0 || !strings.Contains(name, "_total") || !strings.HasPrefix(name, "tidewire_") {
				continue
			}
			if limit, ok := strings.CutPrefix(name, `tidewire_limited_total{limit="`); ok {
				out["limit "+strings.TrimSuffix(limit, `"}`)] += rose
			} else {
				out["rise "+name] += rose
			}
		}
	}
	for name, v := range peaks {
		if v > 0 && strings.HasPrefix(name, "tidewire_") && !strings.ContainsRune(name, '{') && !strings.Contains(name, "_seconds") {
			out["peak "+name] = int64(v)
		}
	}
	return out
}
