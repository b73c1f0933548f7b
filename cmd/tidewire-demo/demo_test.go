package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	tidewire "github.com/tidewire/tidewire/clients/go"
	"github.com/tidewire/tidewire/internal/freeport"
	"go.uber.org/goleak"
)

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// The demo as a newcomer meets it: prices move, the page is there, a message goes through Kafka and comes
// back, a node is stopped and the stream goes on elsewhere, the node is started again, Ctrl-C ends all.
func TestDemo(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	ports, err := freeport.Take(9)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config{
		host: "127.0.0.1", clientPorts: ports[:3], adminPorts: ports[3:6], clusterPorts: ports[6:], rate: 200,
		log: zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // only if it hangs
	defer cancel()
	ready, ended := make(chan *runningDemo, 1), make(chan error, 1)
	begun := time.Now()
	go func() { ended <- demo(ctx, cfg, func(d *runningDemo) { ready <- d }) }()
	var d *runningDemo
	select {
	case d = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Logf("ready after %s", time.Since(begun))
	var said bytes.Buffer
	d.welcome(&said)
	base := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if !strings.Contains(said.String(), base) || !strings.Contains(said.String(), fmt.Sprintf("console    http://127.0.0.1:%d/", ports[3])) {
		t.Errorf("welcome: %s", said.String())
	}

	get := func(path string) (int, string) {
		resp, err := http.Get(base + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(b)
	}
	for path, want := range map[string]string{"/": "<title>Tidewire", "/app.js": "import", "/tidewire.js": "as Tidewire", "/count.js": "class Count", "/kept.js": "class Kept", "/style.css": "color-scheme", "/icon.svg": "<svg", "/demo/config": fmt.Sprint(ports[2])} {
		if code, body := get(path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("GET %s: %d %.100s", path, code, body)
		}
	}
	status := func() (s statusView) {
		_, body := get("/demo/status")
		_ = json.Unmarshal([]byte(body), &s) // while a port changes hands the answer may be none: the caller asks again
		return s
	}
	post := func(path, origin string) int {
		req, err := http.NewRequest(http.MethodPost, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if s := status(); len(s.Nodes) != 3 || len(s.Groups) != 8 || s.Nodes[0].State != running {
		t.Errorf("status %+v", s)
	}
	for _, origin := range []string{"", "http://evil.example", "null", "http://127.0.0.1:1"} {
		if code := post("/demo/stop?node=n1", origin); code != http.StatusForbidden {
			t.Errorf("stop from %q: %d", origin, code)
		}
	}
	if code := post("/demo/stop?node=n9", base); code != http.StatusNotFound {
		t.Errorf("stop of a node that is not there: %d", code)
	}

	var nodes []string
	for _, p := range ports[:3] {
		nodes = append(nodes, fmt.Sprintf("127.0.0.1:%d", p))
	}
	client, err := tidewire.New(tidewire.Config{Nodes: nodes, InOrder: true})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	prices, err := client.Subscribe(ctx, "/prices/*", tidewire.SubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	chat, err := client.Subscribe(ctx, "/chat", tidewire.SubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Each symbol's values count up by one: a hole or a repeat shows.
	counts := map[string]int{}
	follow := func(until func(item tidewire.Item) bool) {
		t.Helper()
		for {
			item, err := prices.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			switch item := item.(type) {
			case *tidewire.Gap:
				t.Fatalf("gap: %+v", item)
			case *tidewire.Record:
				var q quote
				if err := json.Unmarshal(item.Data, &q); err != nil {
					t.Fatal(err)
				}
				if last, ok := counts[q.Symbol]; ok && q.Count != last+1 {
					t.Fatalf("%s: %d after %d", q.Symbol, q.Count, last)
				}
				counts[q.Symbol] = q.Count
			}
			if until(item) {
				return
			}
		}
	}
	records := func(n int) func(tidewire.Item) bool {
		return func(item tidewire.Item) bool {
			if _, ok := item.(*tidewire.Record); ok {
				n--
			}
			return n <= 0
		}
	}
	follow(records(100))

	if _, err := client.Publish(ctx, "/chat", tidewire.Message{Value: tidewire.JSON(map[string]string{"from": "t", "text": "hi"}), Mid: "m1", Headers: map[string]string{"chat-line": "m1"}, Ack: tidewire.AckReplicated}); err != nil {
		t.Fatal(err)
	}
	for {
		item, err := chat.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := item.(*tidewire.Record); ok {
			if string(r.Data) != `{"from":"t","text":"hi"}` || string(r.Headers["chat-line"]) != "m1" {
				t.Fatalf("chat: %s", r.Frame)
			}
			break
		}
	}

	if code := post("/demo/stop?node=n1", base); code != http.StatusAccepted {
		t.Fatalf("stop: %d", code)
	}
	follow(func(item tidewire.Item) bool {
		r, ok := item.(*tidewire.Resumed)
		return ok && r.Previous == "n1" && r.Node != "n1"
	})
	follow(records(100))
	eventually(t, "n1 is stopped and its address answers all the same", func() bool {
		s := status()
		return len(s.Nodes) == 3 && s.Nodes[0].State == stopped && s.Nodes[1].State == running
	})
	if code, _ := get("/ws"); code != http.StatusServiceUnavailable {
		t.Errorf("the stand-in answers /ws with %d", code)
	}
	if code := post("/demo/start?node=n1", base); code != http.StatusAccepted {
		t.Fatalf("start: %d", code)
	}
	eventually(t, "n1 is back", func() bool {
		s := status()
		return len(s.Nodes) == 3 && s.Nodes[0].State == running && s.Nodes[0].Ready
	})
	follow(records(100))

	client.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	http.DefaultClient.CloseIdleConnections()
	goleak.VerifyNone(t, ignore)
}

func TestHostsAndOrigins(t *testing.T) {
	c := config{host: "127.0.0.1", clientPorts: []int{8080, 8180}}
	for host, want := range map[string]bool{
		"127.0.0.1:8080": true, "localhost:8180": true, "[::1]:8080": true, "127.0.0.1:9": false, "127.0.0.1": false,
		"evil.example:8080": false, "10.0.0.1:8080": false, "": false,
	} {
		if got := c.ownHost(host); got != want {
			t.Errorf("ownHost(%q) = %v", host, got)
		}
	}
	c.host = "0.0.0.0"
	if !c.ownHost("10.0.0.1:8080") || c.ownHost("evil.example:8080") {
		t.Error("a demo on every address answers to addresses, not to names")
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{"-x"}, {"x"}, {"-rate", "0"}, {"-kafka-port", "0"}, {"-log", "loud"}, {"-origin", "127.0.0.1:3000"},
		{"-client-ports", "1,2"}, {"-admin-ports", "1,2,2"}, {"-cluster-ports", "1,2,70000"},
	} {
		var out, err bytes.Buffer
		if code := run(context.Background(), args, "", &out, &err); code != 2 || err.Len() == 0 {
			t.Errorf("%q: code %d, %s", args, code, err.String())
		}
	}
}

// A port in use is told with what can be done.
func TestKafkaPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = startKafka(context.Background(), config{kafkaPort: l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "-kafka-port") {
		t.Fatalf("got %v", err)
	}
}

// Prices stay near home, however long they walk.
func TestPricesStaySane(t *testing.T) {
	for _, i := range instruments() {
		for range 200_000 {
			i.step()
		}
		if i.price < i.home/2 || i.price > i.home*2 {
			t.Errorf("%s walked from %g to %g", i.symbol, i.home, i.price)
		}
	}
}
