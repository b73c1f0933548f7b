package tidewire_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// The table that every client is checked with (docs/clients.md).
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../../testdata/protocol/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("the table of scenarios is missing: %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel() // most of the time they wait
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r := &scenario{
				t: t, lines: strings.Split(string(text), "\n"), vars: map[string]any{}, nodes: map[string]*scriptedNode{},
				stores: map[string]memoryStore{}, told: map[string]chan telling{"client": make(chan telling, 100)}, subs: map[string]chan *tidewire.Subscription{},
			}
			r.run()
		})
	}
}

// telling is what the client told the application, in the protocol's words.
type telling struct {
	kind string
	what any // as encoding/json reads it
}

// memoryStore is a VectorStore.
type memoryStore map[string]tidewire.Vector

func (m memoryStore) Load(_ context.Context, key string) (tidewire.Vector, error) { return m[key], nil }
func (m memoryStore) Save(_ context.Context, key string, v tidewire.Vector) error {
	m[key] = v
	return nil
}

type scenario struct {
	t      *testing.T
	lines  []string
	vars   map[string]any
	nodes  map[string]*scriptedNode
	names  []string
	stores map[string]memoryStore
	client *tidewire.Client
	told   map[string]chan telling                // by name of the subscription or publish
	subs   map[string]chan *tidewire.Subscription // one slot each, filled when it was accepted
	wg     sync.WaitGroup
	stop   context.CancelFunc
	ctx    context.Context
	step   time.Time // when the last line was done
}

var (
	nodeName = regexp.MustCompile(`(?m)^(n\d+) |\$addr:(n\d+)`)
	afterMS  = regexp.MustCompile(`^(.*?) ?after (\d+)$`)
)

func (r *scenario) run() {
	r.ctx, r.stop = context.WithCancel(context.Background())
	for _, m := range nodeName.FindAllStringSubmatch(strings.Join(r.lines, "\n"), -1) {
		if name := m[1] + m[2]; r.nodes[name] == nil {
			r.nodes[name] = newScriptedNode(r.t, name)
			r.names = append(r.names, name)
		}
	}
	slices.Sort(r.names)
	defer func() {
		r.stop()
		if r.client != nil {
			r.client.Close()
		}
		r.wg.Wait()
	}()
	for i := 0; i < len(r.lines); i++ {
		line := r.lines[i]
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		at := i + 1
		patterns := []string{}
		for strings.Contains(line, " >~ ") && i+1 < len(r.lines) && strings.Contains(r.lines[i+1], " >~ ") {
			i++
			_, p, _ := strings.Cut(r.lines[i], " >~ ")
			patterns = append(patterns, p)
		}
		if err := r.do(line, patterns); err != nil {
			r.t.Fatalf("line %d: %s\n%v", at, line, err)
		}
		r.step = time.Now()
	}
	if r.client != nil {
		r.client.Close()
	}
	r.stop()
	r.wg.Wait()
	for name, told := range r.told {
		for len(told) > 0 {
			if got := <-told; got.kind != "closed" && name != "client" {
				r.t.Fatalf("at the end %s was told more: %+v", name, got)
			}
		}
	}
}

func (r *scenario) do(line string, also []string) error {
	who, rest, _ := strings.Cut(line, " ")
	what, rest, _ := strings.Cut(rest, " ")
	switch {
	case who == "client" && what != "denied":
		return r.make(strings.TrimPrefix(line, "client "))
	case who == "app":
		return r.app(what, rest)
	case who == "wait":
		ms, err := strconv.Atoi(what)
		time.Sleep(time.Duration(ms) * time.Millisecond) // the scenario says so
		return err
	case r.nodes[who] != nil:
		return r.node(r.nodes[who], what, rest, also)
	case r.told[who] != nil:
		return r.expect(who, what, rest)
	}
	return fmt.Errorf("nobody is called %s", who)
}

func (r *scenario) expect(who, kind, rest string) error {
	select {
	case got := <-r.told[who]:
		if got.kind != kind {
			return fmt.Errorf("%s was told %s %v", who, got.kind, got.what)
		}
		return r.match(rest, got.what, false)
	case <-time.After(20 * time.Second):
		return fmt.Errorf("never: %s %s", who, kind)
	}
}

func (r *scenario) match(pattern string, value any, exact bool) error {
	var p any
	if err := json.Unmarshal([]byte(cmp.Or(pattern, "{}")), &p); err != nil {
		return err
	}
	return matches(p, plain(value), r.vars, exact, "")
}

func (r *scenario) tell(name, kind string, what any) {
	select {
	case r.told[name] <- telling{kind, plain(what)}:
	default:
		r.t.Errorf("%s is told more than 100 things", name)
	}
}

func (r *scenario) make(text string) error {
	var o struct {
		Nodes, Tokens []string
		Token         string
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	cfg := tidewire.Config{InOrder: true, Token: o.Token, BackoffBase: time.Millisecond, BackoffMax: 20 * time.Millisecond}
	for _, name := range slices.Concat(o.Nodes, r.names)[:cmp.Or(len(o.Nodes), len(r.names))] {
		cfg.Nodes = append(cfg.Nodes, r.nodes[name].url())
	}
	if len(o.Tokens) > 0 {
		var mu sync.Mutex
		cfg.TokenSource = func(context.Context) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			token := o.Tokens[0]
			if len(o.Tokens) > 1 {
				o.Tokens = o.Tokens[1:]
			}
			return token, nil
		}
	}
	cfg.OnState = func(s tidewire.State) {
		if e := (*tidewire.Error)(nil); errors.As(s.Err, &e) && e.Code == tidewire.CodeUnauthenticated {
			r.tell("client", "denied", map[string]any{"code": e.Code})
		}
	}
	client, err := tidewire.New(cfg)
	r.client = client
	return err
}

func (r *scenario) app(what, rest string) error {
	if r.client == nil {
		if err := r.make("{}"); err != nil {
			return err
		}
	}
	name, rest, _ := strings.Cut(rest, " ")
	subject, text, _ := strings.Cut(rest, " ")
	text = cmp.Or(text, "{}")
	switch what {
	case "close":
		return r.client.Close()
	case "unsub":
		s := <-r.subs[name]
		return s.Close()
	case "sub":
		return r.subscribe(name, subject, text)
	case "pub":
		return r.publish(name, subject, text)
	}
	return fmt.Errorf("unknown: app %s", what)
}

func (r *scenario) subscribe(name, subject, text string) error {
	var o struct {
		History    int
		Resume     tidewire.Vector
		ConflateMS int64 `json:"conflate_ms"`
		Storage    string
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	opts := tidewire.SubOptions{History: o.History, Resume: o.Resume, Conflate: time.Duration(o.ConflateMS) * time.Millisecond}
	if o.Storage != "" {
		if r.stores[o.Storage] == nil {
			r.stores[o.Storage] = memoryStore{}
		}
		opts.Store = r.stores[o.Storage]
	}
	client, accepted := r.client, make(chan *tidewire.Subscription, 1)
	r.told[name], r.subs[name] = make(chan telling, 100), accepted
	r.wg.Go(func() {
		s, err := client.Subscribe(r.ctx, subject, opts)
		if err != nil {
			r.ended(name, err)
			return
		}
		accepted <- s
		for {
			item, err := s.Next(r.ctx)
			if err != nil {
				r.ended(name, err)
				return
			}
			r.item(name, item)
		}
	})
	return nil
}

func (r *scenario) ended(name string, err error) {
	var refused *tidewire.Error
	var unsubbed *tidewire.UnsubscribedError
	switch {
	case errors.As(err, &refused):
		r.tell(name, "denied", map[string]any{"code": refused.Code})
	case errors.As(err, &unsubbed):
		r.tell(name, "denied", map[string]any{"code": unsubbed.Reason})
	case errors.Is(err, tidewire.ErrClosed):
		r.tell(name, "closed", map[string]any{})
	case r.ctx.Err() == nil:
		r.t.Errorf("%s: %v", name, err)
	}
}

func (r *scenario) item(name string, item tidewire.Item) {
	switch item := item.(type) {
	case *tidewire.Record:
		m := map[string]any{"subject": item.Subject, "pos": item.Position, "ts": item.Time.UnixMilli()}
		switch {
		case item.Null:
			m["null"] = true
		case item.Data != nil:
			m["data"] = item.Data
		case item.Text != nil:
			m["text"] = *item.Text
		default:
			m["b64"] = item.Bytes
		}
		headers := map[string]any{}
		for k, v := range item.Headers {
			headers[k] = string(v)
			if !utf8.Valid(v) {
				headers[k] = map[string]any{"b64": v}
			}
		}
		m["headers"] = headers
		r.tell(name, "msg", m)
	case *tidewire.Live:
		r.tell(name, "live", map[string]any{})
	case *tidewire.Resumed:
		r.tell(name, "recovered", map[string]any{"node": item.Node, "previous": item.Previous, "at": item.At})
	case *tidewire.Gap:
		lost := []any{}
		for _, l := range item.Lost {
			lost = append(lost, map[string]any{"partition": l.Partition, "from": []uint64{l.From.Epoch, l.From.Seqno}, "to": []uint64{l.To.Epoch, l.To.Seqno}})
		}
		r.tell(name, "gap", map[string]any{"reason": item.Reason, "at": item.At, "lost": lost})
	}
}

func (r *scenario) publish(name, subject, text string) error {
	var o struct {
		Data     json.RawMessage
		Text     *string
		B64      *string
		Headers  map[string]string
		Ack, Mid string
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	m := tidewire.Message{Value: tidewire.Null(), Headers: o.Headers, Ack: tidewire.Ack(o.Ack), Mid: o.Mid}
	switch {
	case o.Data != nil:
		m.Value = tidewire.JSON(o.Data)
	case o.Text != nil:
		m.Value = tidewire.Text(*o.Text)
	case o.B64 != nil:
		b, err := base64.StdEncoding.DecodeString(*o.B64)
		if err != nil {
			return err
		}
		m.Value = tidewire.Bytes(b)
	}
	r.told[name] = make(chan telling, 100)
	pending, err := r.client.PublishAsync(subject, m)
	if err != nil {
		return err
	}
	r.wg.Go(func() {
		acked, err := pending.Wait(context.Background()) // ends with the client
		var refused *tidewire.Error
		switch {
		case err == nil:
			r.tell(name, "acked", acked)
		case errors.Is(err, tidewire.ErrUncertain):
			r.tell(name, "refused", map[string]any{"code": "uncertain"})
		case errors.As(err, &refused):
			r.tell(name, "refused", map[string]any{"code": refused.Code})
		case errors.Is(err, tidewire.ErrClosed):
			r.tell(name, "refused", map[string]any{"code": "closed"})
		default:
			r.t.Errorf("%s: %v", name, err)
		}
	})
	return nil
}
