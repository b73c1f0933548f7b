package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A profiler writes processor profiles of the node under test to a folder, one a measured window.
type profiler struct {
	dir    string // empty: none are wanted
	taking sync.WaitGroup

	mu    sync.Mutex
	taken map[string]int
}

// take takes a profile while a window lasts; wait returns when it has been written.
func (p *profiler) take(b *bench, scenario, admin string, d time.Duration) {
	seconds := int(d/time.Second) - 1 // done before the window is
	if p.dir == "" || seconds < 1 {
		return
	}
	p.mu.Lock()
	if p.taken == nil {
		p.taken = make(map[string]int)
	}
	p.taken[scenario]++
	path := filepath.Join(p.dir, fmt.Sprintf("%s-%d.pprof", scenario, p.taken[scenario]))
	p.mu.Unlock()
	p.taking.Go(func() {
		if err := p.write(path, admin, seconds); err != nil {
			b.o.Progress("NOTE: no profile: %v", err)
		}
	})
}

func (p *profiler) wait() { p.taking.Wait() }

func (p *profiler) write(path, admin string, seconds int) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+adminWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, seconds), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.LimitReader(resp.Body, 64<<20)); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
