package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/clients/go/tidewiretest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitTime bounds every wait and every command. It is long because machines are shared: a wait that ends well ends early.
const waitTime = time.Minute

// output is a buffer that may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// result is a command under way.
type result struct {
	out, err output
	cancel   context.CancelFunc
	code     chan int
}

func startCmd(t *testing.T, vars map[string]string, in io.Reader, args ...string) *result {
	return startCmdIn(context.Background(), vars, in, args...)
}

func startCmdIn(ctx context.Context, vars map[string]string, in io.Reader, args ...string) *result {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	r := &result{cancel: cancel, code: make(chan int, 1)}
	go func() {
		r.code <- run(ctx, args, env{in: in, out: &r.out, err: &r.err, get: func(n string) string { return vars[n] }})
		cancel()
	}()
	return r
}

func (r *result) wait(t *testing.T, code int) {
	t.Helper()
	if got := <-r.code; got != code {
		t.Fatalf("exit code %d, want %d\nout: %s\nerr: %s", got, code, r.out.String(), r.err.String())
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	eventuallyOr(t, what, cond, func() string { return "" })
}

// eventuallyOr tells more when it was in vain.
func eventuallyOr(t *testing.T, what string, cond func() bool, more func() string) {
	t.Helper()
	for end := time.Now().Add(waitTime); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what + " " + more())
		}
	}
}

func cluster(t *testing.T, nodes int) (*tidewiretest.Cluster, map[string]string) {
	cl := &tidewiretest.Cluster{}
	if err := cl.Start(nodes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl, map[string]string{"TIDECTL_NODES": strings.Join(cl.Addrs(), ",")}
}

func TestSubEndsAfterN(t *testing.T) {
	cl, vars := cluster(t, 1)
	for i := range 5 {
		cl.Append("/prices/EURUSD", 0, i)
	}
	r := startCmd(t, vars, nil, "sub", "/prices/EURUSD", "-n", "2", "-history", "3", "-vector")
	r.wait(t, exitOK)
	want := `{"op":"msg","subject":"/prices/EURUSD","pos":[0,1,3],"prev":[1,2],"ts":1700000000003,"data":2}
{"op":"msg","subject":"/prices/EURUSD","pos":[0,1,4],"prev":[1,3],"ts":1700000000004,"data":3}
`
	if r.out.String() != want || r.err.String() != "tidectl: /prices/EURUSD reached [[0,1,4]]\n" {
		t.Fatalf("out %s\nerr %s", r.out.String(), r.err.String())
	}
	r = startCmd(t, vars, nil, "sub", "/prices/EURUSD", "-n", "1", "-resume", "[[0,1,4]]", "-o", "value")
	r.wait(t, exitOK)
	if r.out.String() != "4\n" {
		t.Fatalf("out %s", r.out.String())
	}
}

// A subscriber goes on at the next node when its own dies, and Ctrl-C ends it well.
func TestSubSurvivesANodesDeath(t *testing.T) {
	cl, vars := cluster(t, 2)
	r := startCmd(t, vars, nil, "sub", "/a/*", "/b", "-o", "value")
	eventually(t, "both are subscribed", func() bool { return len(cl.Ops()) == 2 })
	cl.Append("/a/k", 0, "one")
	cl.Append("/b", 0, "first")
	eventually(t, "the first records", func() bool { // the client knows of both subscriptions then
		return strings.Contains(r.out.String(), "one") && strings.Contains(r.out.String(), "first")
	})
	cl.Node(0).Stop()
	cl.Append("/a/k", 0, "two")
	cl.Append("/b", 0, "three")
	eventually(t, "the others", func() bool {
		return strings.Contains(r.out.String(), "two") && strings.Contains(r.out.String(), "three")
	})
	r.cancel()
	r.wait(t, exitOK)
	if n := strings.Count(r.out.String(), "\n"); n != 4 {
		t.Fatalf("%d lines: %s", n, r.out.String())
	}
	if !strings.Contains(r.err.String(), "/a/*: went on at n2, nothing missed") {
		t.Fatalf("err: %s", r.err.String())
	}
}

func TestSubTellsOfLoss(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	cl.OnOp = func(op *tidewiretest.Op) any {
		return map[string]any{"op": "subbed", "id": op.ID, "subject": op.Subject, "at": [][]int{{0, 2, 0}}, "recovered": false,
			"gap": "evicted", "lost": []any{map[string]any{"partition": 0, "from": []int{1, 2}, "to": []int{1, 9}}}}
	}
	if err := cl.Start(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	r := startCmd(t, nil, nil, "sub", "/a", "-resume", "[[0,1,1]]", "-nodes", cl.Addrs()[0])
	eventually(t, "the loss is told", func() bool {
		return strings.Contains(r.err.String(), "records are lost (evicted); missing [0,1,2] to [0,1,9]")
	})
	r.cancel()
	r.wait(t, exitOK)
}

func TestPub(t *testing.T) {
	cl, vars := cluster(t, 1)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"/chat", `{"a": 1}`}, `"data":{"a":1}`},
		{[]string{"/chat", "hello there"}, `"text":"hello there"`},
		{[]string{"/chat", "--text", "12"}, `"text":"12"`},
		{[]string{"/chat", "--b64", "/w=="}, `"b64":"/w=="`},
		{[]string{"--null", "/chat/k"}, `"null":true`},
		{[]string{"/chat", "--", "-5"}, `"data":-5`},
	} {
		r := startCmd(t, vars, nil, append([]string{"pub"}, c.args...)...)
		r.wait(t, exitOK)
		records := cl.Records()
		if got := string(records[len(records)-1].Value); got != c.want {
			t.Errorf("%q published %s, want %s", c.args, got, c.want)
		}
		var acked struct {
			Mid string      `json:"mid"`
			Pos json.Number `json:"-"`
		}
		if err := json.Unmarshal([]byte(r.out.String()), &acked); err != nil || acked.Mid == "" {
			t.Errorf("%q printed %s", c.args, r.out.String())
		}
	}
	r := startCmd(t, vars, nil, "pub", "/chat", "x", "-mid", "m1", "-header", "a=b", "-header", "c=d=e", "-ack", "replicated")
	r.wait(t, exitOK)
	ops := cl.Ops()
	if op := ops[len(ops)-1]; op.Mid != "m1" || op.Headers["a"] != "b" || op.Headers["c"] != "d=e" || op.Ack != "replicated" {
		t.Errorf("op %+v", op)
	}
	r = startCmd(t, vars, nil, "pub", "/chat", "x", "-mid", "m1")
	r.wait(t, exitOK)
	if !strings.Contains(r.out.String(), `"duplicate":true`) {
		t.Errorf("out %s", r.out.String())
	}
}

func TestPubLines(t *testing.T) {
	cl, vars := cluster(t, 1)
	r := startCmd(t, vars, strings.NewReader("1\ntwo\n\n"), "pub", "/n", "-")
	r.wait(t, exitOK)
	var got []string
	for _, rec := range cl.Records() {
		got = append(got, string(rec.Value))
	}
	if strings.Join(got, " ") != `"data":1 "text":"two" "text":""` || strings.Count(r.out.String(), "\n") != 3 {
		t.Fatalf("published %q, printed %s", got, r.out.String())
	}
	r = startCmd(t, vars, strings.NewReader("1\nx{\n3\n"), "pub", "--json", "/n", "-")
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), "line 2: --json:") || len(cl.Records()) != 4 {
		t.Fatalf("err %s", r.err.String())
	}
	// Ctrl-C while standard input says nothing.
	in, w := io.Pipe()
	defer w.Close()
	r = startCmd(t, vars, in, "pub", "/n", "-")
	if _, err := io.WriteString(w, "last\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line is acknowledged", func() bool { return r.out.String() != "" })
	r.cancel()
	r.wait(t, exitOK)
}

func TestPubGivesUp(t *testing.T) {
	cl := &tidewiretest.Cluster{OnOp: func(*tidewiretest.Op) any { return tidewiretest.Silent }}
	if err := cl.Start(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	r := startCmd(t, nil, nil, "pub", "/n", "x", "-timeout", "50ms", "-nodes", cl.Addrs()[0], "-mid", "m7")
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), "no acknowledgement within 50ms (message id m7)") {
		t.Fatalf("err %s", r.err.String())
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"nonsense"}, {"sub"}, {"sub", "-x"}, {"sub", "/a", "-n", "-1"}, {"sub", "/a", "-n", "x"}, {"sub", "/a", "-o", "xml"},
		{"sub", "/a", "/b", "-resume", "[]"}, {"sub", "/a", "-resume", "x"}, {"sub", "/a", "-nodes", ""}, {"sub", "/a", "-history", "-2"},
		{"pub"}, {"pub", "/a"}, {"pub", "/a", "x", "y"}, {"pub", "/a", "--null", "x"}, {"pub", "/a", "x", "--json"}, {"pub", "/a", "x", "--b64"},
		{"pub", "/a", "x", "--json", "--text"}, {"pub", "/a", "x", "-ack", "all"}, {"pub", "/a", "-", "-mid", "m"}, {"pub", "/a", "x", "-header", "y"},
		{"status", "x"}, {"status", "-o", "xml"}, {"status", "-admin", ","},
	} {
		r := startCmd(t, nil, strings.NewReader(""), args...)
		r.wait(t, exitUsage)
		if r.out.String() != "" || r.err.String() == "" {
			t.Errorf("%q: out %q, err %q", args, r.out.String(), r.err.String())
		}
	}
	for _, args := range [][]string{{"-h"}, {"help"}, {"sub", "-h"}, {"pub", "--help"}, {"status", "-h"}} {
		r := startCmd(t, map[string]string{"TIDECTL_TOKEN": "secret"}, nil, args...)
		r.wait(t, exitOK)
		if !strings.Contains(r.out.String(), "tidectl") || r.err.String() != "" || strings.Contains(r.out.String(), "secret") {
			t.Errorf("%q: out %q, err %q", args, r.out.String(), r.err.String())
		}
	}
}

func TestStatus(t *testing.T) {
	node := func(id bridge.NodeID, applied uint64, lag int64) bridge.NodeStatus {
		return bridge.NodeStatus{Node: id, Ready: true, Client: "h:8080", Connections: 3, Subscriptions: 4, UptimeSeconds: 61,
			Cache:      bridge.CacheStatus{Bytes: 3 << 20, Budget: 1 << 30},
			Groups:     []bridge.GroupStatus{{Group: 0, Leader: "n1", Term: 5, Applied: applied}},
			Partitions: []bridge.PartitionStatus{{Topic: "prices", Partition: 2, Coordinator: "n1", Epoch: 3, Seqno: 40, Next: 99, Lag: lag}}}
	}
	status := clusterStatus{Nodes: []bridge.NodeStatus{node("n2", 90, -1), node("n1", 100, 7)}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/status?cluster=true" {
			http.NotFound(w, r)
			return
		}
		json.NewEncoder(w).Encode(status)
	}))
	defer server.Close()
	addr := strings.TrimPrefix(server.URL, "http://")
	// The first address answers nothing; the second does.
	dead := httptest.NewServer(http.NotFoundHandler())
	defer dead.Close()
	vars := map[string]string{"TIDECTL_ADMIN": dead.URL + "," + addr}
	r := startCmd(t, vars, nil, "status")
	r.wait(t, exitOK)
	for _, want := range []string{
		"n1    h:8080      3            4              3.0 MiB of 1.0 GiB  1m1s  yes",
		"0      n1           5     100      n2 by 10",
		"prices  2          0      n1           3      40     99           7",
	} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("no line %q in\n%s", want, r.out.String())
		}
	}
	r = startCmd(t, vars, nil, "status", "-o", "json")
	r.wait(t, exitOK)
	var back clusterStatus
	if err := json.Unmarshal([]byte(r.out.String()), &back); err != nil || len(back.Nodes) != 2 || back.Nodes[0].Groups[0].Term != 5 {
		t.Errorf("%v: %s", err, r.out.String())
	}
	status.Unreachable = map[string]string{"n3": "connection refused"}
	r = startCmd(t, vars, nil, "status")
	r.wait(t, exitFailed)
	if !strings.Contains(r.out.String(), "unreachable: connection refused") || !strings.Contains(r.err.String(), "not reached: n3") {
		t.Errorf("out %s\nerr %s", r.out.String(), r.err.String())
	}
	r = startCmd(t, nil, nil, "status", "-admin", dead.URL)
	r.wait(t, exitFailed)
	if !strings.Contains(r.err.String(), fmt.Sprintf("%s: HTTP 404", dead.URL)) {
		t.Errorf("err %s", r.err.String())
	}
}
