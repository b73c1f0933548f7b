package faults

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// fake is a cluster of which the processes do nothing and the admin ports answer what a test wants, so that scenarios
// can be held against nodes that are not as they should be.
type fake struct {
	*Rig
	mu     sync.Mutex
	status []bridge.NodeStatus // by node
	asked  []string            // the changes of members
	change func(w http.ResponseWriter, asked int, what string)
	looked func(n int) // before the answer to each question for a status since onLook, one at a time
	looks  int
	look   sync.Mutex
}

// fakeProgram is what stands for a node's: it lives until it is killed, unless its disk is bad.
const fakeProgram = `#!/bin/sh
if [ -e "$TIDEWIRE_DATA_DIR/bad" ]; then
	echo "tidewire: the log is corrupt: stop this node, remove $TIDEWIRE_DATA_DIR/bad and start it again"
	exit 1
fi
exec sleep 600
`

// newFake has three nodes, of which two more may be started.
func newFake(t *testing.T) *fake {
	dir := t.TempDir()
	program := filepath.Join(dir, "tidewire")
	if err := os.WriteFile(program, []byte(fakeProgram), 0o755); err != nil {
		t.Fatal(err)
	}
	l := newLoopback()
	for _, n := range nodeNames(maxNodes) {
		if err := l.Add(n); err != nil {
			t.Fatal(err)
		}
	}
	nodes := newNodes(l, &Kafka{net: l, classes: nodeNames(maxNodes)}, program, dir, "t", 3, nil)
	load, err := verify.New(verify.Options{Nodes: []string{"-"}, Brokers: []string{"-"}, Topics: []string{"t"}})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{Rig: &Rig{Net: l, Nodes: nodes, Load: load, Topic: "t", Parts: 1, tell: t.Logf, Rand: rand.New(rand.NewPCG(1, 1))}}
	for i, name := range nodeNames(maxNodes) {
		f.status = append(f.status, bridge.NodeStatus{Node: bridge.NodeID(name), Ready: true,
			Groups:     []bridge.GroupStatus{{Leader: bridge.NodeID(name), Applied: 10}},
			Partitions: []bridge.PartitionStatus{{Topic: "t", Coordinator: "n1"}}})
		f.serve(t, i, name)
	}
	t.Cleanup(func() {
		if err := nodes.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 3 {
		if err := nodes.Start(i); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fake) serve(t *testing.T, i int, name string) {
	addr, err := f.Net.Listen(name, adminPort)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		s := f.status[i]
		f.mu.Unlock()
		f.look.Lock()
		if f.looks++; f.looked != nil {
			f.looked(f.looks)
		}
		f.look.Unlock()
		_ = json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("POST /members/{what}", func(w http.ResponseWriter, r *http.Request) {
		what := r.PathValue("what")
		f.mu.Lock()
		f.asked = append(f.asked, what)
		f.mu.Unlock()
		f.change(w, i, what)
	})
	server, done := &http.Server{Handler: mux}, make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
}

func (f *fake) onLook(do func(n int)) {
	f.look.Lock()
	defer f.look.Unlock()
	f.looks, f.looked = 0, do
}

// set changes a node's status.
func (f *fake) set(i int, change func(s *bridge.NodeStatus)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status[i]
	s.Groups = slices.Clone(s.Groups)
	change(&s)
	f.status[i] = s
}

// changes returns what changes of members were asked for.
func (f *fake) changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// say answers a change of members with lines of JSON.
func say(w http.ResponseWriter, lines ...string) {
	for _, l := range lines {
		_, _ = w.Write([]byte(l + "\n"))
	}
	_ = http.NewResponseController(w).Flush()
}
