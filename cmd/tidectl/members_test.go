package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/replication"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
	"github.com/twmb/franz-go/pkg/kfake"
)

// nodes are real ones in this process, with a Kafka that is not.
type nodes struct {
	t       *testing.T
	brokers []string
	topic   string
	auth    *jwtauth.Config // nil: nobody is asked for a token
	running map[string]*runningNode
}

type runningNode struct {
	node   *node.Node
	cancel context.CancelFunc
	done   chan error
}

// peer takes a port for a node.
func peer(t *testing.T, name string) replication.Peer {
	ports, err := freeport.Take(1)
	if err != nil {
		t.Fatal(err)
	}
	return replication.Peer{ID: bridge.NodeID(name), Addr: fmt.Sprintf("127.0.0.1:%d", ports[0])}
}

func (c *nodes) start(self replication.Peer, peers []replication.Peer) {
	c.t.Helper()
	selectors, err := kafkaio.ParseSelectors(c.topic)
	if err != nil {
		c.t.Fatal(err)
	}
	cfg := node.Defaults()
	cfg.NodeID, cfg.Peers = self.ID, peers
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.ClusterListen, cfg.ClusterAdvertise = self.Addr, self.Addr
	cfg.Groups = 4
	cfg.DataDir = filepath.Join(c.t.TempDir(), "data")
	cfg.KafkaBrokers, cfg.Topics, cfg.PublishTopics, cfg.KafkaGroupID = c.brokers, selectors, selectors, "members-"+c.topic
	cfg.CacheBytes = 64 << 20
	cfg.Auth = c.auth
	n, err := node.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningNode{node: n, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	c.running[string(self.ID)] = r
	c.t.Cleanup(func() { c.stop(string(self.ID)) })
}

func (c *nodes) stop(name string) {
	r := c.running[name]
	if r == nil {
		return
	}
	delete(c.running, name)
	r.cancel()
	if err := <-r.done; err != nil {
		c.t.Errorf("node %s: %v", name, err)
	}
}

func (c *nodes) ready(name string) {
	c.t.Helper()
	select {
	case <-c.running[name].node.Ready():
	case err := <-c.running[name].done:
		c.t.Fatalf("node %s: %v", name, err)
	case <-time.After(waitTime):
		c.t.Fatalf("node %s is not ready: %v", name, c.running[name].node.Status().NotReady)
	}
}

// A node is added and another removed, through the admin ports of real nodes. The new one serves what was there.
func TestMembersOfARealCluster(t *testing.T) {
	c := &nodes{t: t, topic: "chat", running: map[string]*runningNode{}}
	c.brokers = kafkatest.Fake(t, kfake.SeedTopics(4, c.topic)).Brokers()
	var peers []replication.Peer
	for _, name := range []string{"n1", "n2", "n3"} {
		peers = append(peers, peer(t, name))
	}
	for _, p := range peers {
		c.start(p, peers)
	}
	for _, p := range peers {
		c.ready(string(p.ID))
	}
	vars := map[string]string{
		"TIDECTL_ADMIN": "127.0.0.1:1," + c.running["n2"].node.AdminAddr(), "TIDECTL_NODES": c.running["n1"].node.Addr(),
	}
	tidectl := func(code int, args ...string) string {
		t.Helper()
		r := startCmd(t, vars, nil, args...)
		r.wait(t, code)
		return r.out.String() + r.err.String()
	}
	// done repeats a command until it succeeds, as its errors say: one node takes another that was silent for a moment for dead.
	// It returns all that was said.
	done := func(args ...string) (said string) {
		t.Helper()
		for end := time.Now().Add(waitTime); ; {
			r := startCmd(t, vars, nil, args...)
			code := <-r.code
			out := r.out.String() + r.err.String()
			if said += out; code == exitOK {
				return said
			}
			again := strings.Contains(out, "run it again") || strings.Contains(out, context.DeadlineExceeded.Error())
			if !again || time.Now().After(end) {
				t.Fatalf("%q: exit code %d: %s", args, code, said)
			}
		}
	}
	// members waits until the nodes that there are to be are whole members, which see each other.
	members := func(want ...string) (out map[string]member) {
		t.Helper()
		var last string
		eventuallyOr(t, fmt.Sprintf("the members are %v", want), func() bool {
			last = tidectl(exitOK, "members", "-o", "json")
			var a membersAnswer
			if err := json.Unmarshal([]byte(last), &a); err != nil {
				t.Fatal(err)
			}
			out = map[string]member{}
			whole := len(a.Members) == len(want)
			for _, m := range a.Members {
				whole = whole && slices.Contains(want, m.Node) && m.Votes == m.Groups && m.Groups == 4 && m.Alive && m.Version != ""
				out[m.Node] = m
			}
			return whole
		}, func() string { return last })
		return out
	}
	if m := members("n1", "n2", "n3"); m["n3"].Addr != peers[2].Addr {
		t.Errorf("at first: %+v", m)
	}
	tidectl(exitOK, "pub", "/"+c.topic+"/k", "1")

	n4 := peer(t, "n4")
	add := "n4=" + n4.Addr
	if out := tidectl(exitFailed, "members", "add", add); !strings.Contains(out, "no node answers at "+n4.Addr) {
		t.Errorf("added before it runs: %s", out)
	}
	c.start(n4, append(slices.Clone(peers), n4))
	eventually(t, "n4 says what it waits for", func() bool {
		return strings.Contains(strings.Join(c.running["n4"].node.Status().NotReady, ""), "run `tidectl members add "+add+"`")
	})
	if out := done("members", "add", add); !strings.Contains(out, "group 0: n4 votes (4 of 4)") || !strings.Contains(out, "done: n4 is a member") {
		t.Errorf("added: %s", out)
	}
	c.ready("n4")
	if out := done("members", "remove", "n2"); !strings.Contains(out, "done: n2 is not a member") { // it is asked itself
		t.Errorf("removed: %s", out)
	}
	eventually(t, "n2 says that it was removed", func() bool {
		return strings.Contains(strings.Join(c.running["n2"].node.Status().NotReady, ""), "was removed from the cluster")
	})
	c.stop("n2")
	vars["TIDECTL_ADMIN"] = c.running["n4"].node.AdminAddr()
	if m := members("n1", "n3", "n4"); m["n4"].Addr != n4.Addr {
		t.Errorf("at last: %+v", m)
	}
	if out := tidectl(exitOK, "members"); strings.Count(out, "\n") != 4 || !strings.Contains(out, n4.Addr) {
		t.Errorf("the table: %s", out)
	}
	var told, errs string
	eventuallyOr(t, "all nodes tell their status", func() bool { // one that stands still is not waited for
		r := startCmd(t, vars, nil, "status", "-o", "json")
		code := <-r.code
		told, errs = r.out.String(), r.err.String()
		return code == exitOK
	}, func() string { return told + errs })
	var s clusterStatus
	if err := json.Unmarshal([]byte(told), &s); err != nil || len(s.Nodes) != 3 || s.Nodes[0].Formats != replication.Formats() {
		t.Errorf("status: %v, %+v", err, s)
	}
	vars["TIDECTL_NODES"] = c.running["n4"].node.Addr()
	tidectl(exitOK, "pub", "/"+c.topic+"/k", "2")
	if out := tidectl(exitOK, "sub", "/"+c.topic+"/k", "-history", "9", "-n", "2", "-o", "value"); out != "1\n2\n" {
		t.Errorf("n4 serves %q", out)
	}
}

func TestMembersRefusals(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("content type %q", r.Header.Get("Content-Type"))
		}
		switch r.URL.Path {
		case "/members/add":
			fmt.Fprintln(w, `{"progress":"going on"}`)
		case "/members/remove":
			fmt.Fprintln(w, `{"progress":"going on"}`)
			fmt.Fprintln(w, `{"error":"no majority"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	vars := map[string]string{"TIDECTL_ADMIN": srv.URL}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"add"}, exitUsage, "NAME=HOST:PORT"},
		{[]string{"add", "n4"}, exitUsage, "NAME=HOST:PORT"},
		{[]string{"add", "n4=nowhere"}, exitUsage, "NAME=HOST:PORT"},
		{[]string{"remove"}, exitUsage, "remove NAME"},
		{[]string{"drop", "n4"}, exitUsage, "remove NAME"},
		{[]string{"-o", "xml"}, exitUsage, "table or json"},
		{[]string{"-admin", ","}, exitUsage, "-admin is empty"},
		{[]string{"add", "n4=127.0.0.1:1"}, exitFailed, "broken off: run the same command again"},
		{[]string{"remove", "n4"}, exitFailed, "no majority"},
		{nil, exitFailed, "too old"},
	} {
		r := startCmd(t, vars, nil, append([]string{"members"}, c.args...)...)
		r.wait(t, c.code)
		if !strings.Contains(r.err.String(), c.says) {
			t.Errorf("%v: %s", c.args, r.err.String())
		}
	}
}
