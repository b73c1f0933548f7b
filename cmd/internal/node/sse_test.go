package node

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// serverEvent is one event as an EventSource dispatches it.
type serverEvent struct{ name, id, data string }

// readEvent reads one event by the rules of the HTML standard ("Interpreting an event stream"), which know
// nothing of what Tidewire sends.
func readEvent(r *bufio.Reader) (ev serverEvent, err error) {
	data := []string(nil)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return ev, err // an event without its empty line is none
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			if data == nil {
				ev = serverEvent{}
				continue
			}
			ev.data = strings.Join(data, "\n")
			return ev, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			ev.name = value
		case "data":
			data = append(data, value)
		case "id":
			ev.id = value
		}
	}
}

// source asks a node for a stream.
func source(ctx context.Context, addr, lastID string, query url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/sse?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err == nil && res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	return res, err
}

// watchSSE is watch by SSE: all it keeps from one connection to the next is the id of the last event.
func watchSSE(t *testing.T, subject string, addrs func(i int) string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{t: t, subject: subject, addrs: addrs, cancel: cancel, done: make(chan struct{}), epochs: map[uint64]bool{}}
	go func() {
		defer close(w.done)
		lastID := ""
		for i := 0; ctx.Err() == nil; i++ {
			lastID = w.events(ctx, addrs(i), lastID)
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(w.stop)
	eventually(t, "subscription to "+subject, func() bool { return w.subscriptions() > 0 })
	return w
}

// events takes what one connection brings and returns the id of its last event.
func (w *watcher) events(ctx context.Context, addr, lastID string) string {
	res, err := source(ctx, addr, lastID, url.Values{"subject": {w.subject}})
	if err != nil {
		return lastID
	}
	defer res.Body.Close()
	w.mu.Lock()
	w.stream = res.Body
	w.mu.Unlock()
	resuming := lastID != ""
	for r := bufio.NewReader(res.Body); ; {
		ev, err := readEvent(r)
		if err != nil {
			return lastID
		}
		if ev.id != "" {
			lastID = ev.id
		}
		var f frame
		if err := json.Unmarshal([]byte(ev.data), &f); err != nil || f.Op != ev.name {
			w.mu.Lock()
			w.problem("event %s: %v: %q", ev.name, err, ev.data)
			w.mu.Unlock()
			return lastID
		}
		if f.Op == "hb" {
			continue
		}
		if w.take(&f, resuming) != nil {
			return lastID
		}
	}
}

// An EventSource that is cut at random 100 times and comes back each time on another node, with nothing but
// the id of the last event that it got whole, misses nothing and gets nothing twice.
func TestHundredCutsOfSSEOnOtherNodes(t *testing.T) {
	t.Parallel()
	eachKafka(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 4, nil)
		c := startCluster(t, k, 3, topic, nil)
		next := func(from int) func(int) string { return func(i int) string { return c.addr(from + i) } }
		all := watchSSE(t, "/"+topic+"/*", next(0))
		one := watchSSE(t, "/"+topic+"/key-3", next(1))
		stop := trickle(t, k, topic, 5, time.Millisecond)
		cut(t, 100, all, one)
		stop()
		checkCuts(t, k, topic, all, one)
	})
}

// The node that a stream is on is stopped, and then started again: the stream goes on elsewhere from where it
// was. It was told when to come back.
func TestSSEOverANodesEnd(t *testing.T) {
	t.Parallel()
	k := &aKafka{brokers: kafkatest.Fake(t).Brokers()}
	topic := k.topic(t, 2, nil)
	c := startCluster(t, k, 3, topic, nil)
	var on atomic.Int64 // which node: a connection that fails has it go to the next one, too
	w := watchSSE(t, "/"+topic+"/*", func(i int) string { on.Store(int64(i % 3)); return c.addr(i) })
	stop := trickle(t, k, topic, 5, 2*time.Millisecond)
	for range 3 {
		n := w.count()
		eventually(t, "records", func() bool { return w.count() > n+20 })
		subs, node := w.subscriptions(), int(on.Load())
		c.stop(node)
		eventually(t, "the stream to resume", func() bool { return w.subscriptions() > subs })
		c.start(node)
		c.waitReady()
	}
	stop()
	everything, n := expected(t, k, topic, nil)
	compare(t, w, everything, n)
}
