package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tidewire/tidewire/bridge"
)

const waits = "n4 is not a member of the cluster (n1, n2, n3) yet: run `tidectl members add n4=x:1`"

// A refusal is told at once, and nothing goes on after it: what is asked again until it is granted hides that it was
// refused.
func TestRefusedChangesOfMembers(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(f *fake) error
		asked []string
		nodes int
	}{
		"add":                {func(f *fake) error { return join(t.Context(), f.Rig) }, []string{"add"}, 4},
		"swap":               {func(f *fake) error { return swapMember(t.Context(), f.Rig) }, []string{"add"}, 4},
		"replace, add first": {func(f *fake) error { return replace(t.Context(), f.Rig, 0, true) }, []string{"add"}, 4},
		"replace":            {func(f *fake) error { return replace(t.Context(), f.Rig, 0, false) }, []string{"remove"}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.change = func(w http.ResponseWriter, _ int, _ string) { say(w, `{"error":"no, for a reason"}`) }
			f.set(3, func(s *bridge.NodeStatus) { s.NotReady = []string{waits} })
			if err := c.do(f); err == nil || !strings.Contains(err.Error(), "no, for a reason") {
				t.Errorf("a refusal became %v", err)
			}
			if !slices.Equal(f.changes(), c.asked) || f.Nodes.Len() != c.nodes {
				t.Errorf("asked for %v, and there are %d nodes; want %v and %d", f.changes(), f.Nodes.Len(), c.asked, c.nodes)
			}
		})
	}
}

// A node is added when it says that it waits for that, and not before.
func TestANodeIsAddedWhenItWaits(t *testing.T) {
	f := newFake(t)
	f.set(3, func(s *bridge.NodeStatus) { s.Ready, s.NotReady = false, []string{"starting"} })
	var waiting, early atomic.Bool
	f.onLook(func(n int) {
		if n == 3 {
			waiting.Store(true)
			f.set(3, func(s *bridge.NodeStatus) { s.NotReady = []string{waits} })
		}
	})
	f.change = func(w http.ResponseWriter, _ int, _ string) {
		early.Store(!waiting.Load())
		f.set(3, func(s *bridge.NodeStatus) { s.Ready, s.NotReady = true, nil })
		say(w, `{"done":true}`)
	}
	if err := join(t.Context(), f.Rig); err != nil || early.Load() || len(f.changes()) != 1 {
		t.Errorf("asked for %v, too early: %v; %v", f.changes(), early.Load(), err)
	}
}

// The victim is killed half way through, and a run in which it is not shows nothing.
func TestKillHalfWay(t *testing.T) {
	votes := func(w http.ResponseWriter, from, to int) {
		for k := from; k <= to; k++ {
			say(w, fmt.Sprintf(`{"progress":"group %d: n4 votes (%d of 8)"}`, k%8, k))
		}
	}
	for name, c := range map[string]struct {
		asked, victim int
		change        func(victim *process, w http.ResponseWriter)
		killed        bool
		want          string // of the error; empty: none
	}{
		"who drives it": {0, 0, func(victim *process, w http.ResponseWriter) {
			say(w, `{"progress":"n4 follows in 8 groups"}`)
			votes(w, 1, 4)
			<-victim.exited
		}, true, ""},
		"another, and it is finished all the same": {0, 1, func(victim *process, w http.ResponseWriter) {
			votes(w, 1, 8)
			say(w, `{"done":true}`)
		}, true, ""},
		"who drives it, and it was over": {0, 0, func(victim *process, w http.ResponseWriter) {
			votes(w, 1, 8)
			say(w, `{"done":true}`)
		}, true, "finished what it was killed in the middle of"},
		"it was refused before": {0, 1, func(victim *process, w http.ResponseWriter) { say(w, `{"error":"no"}`) }, false, "no"},
		"it was over before": {0, 1, func(victim *process, w http.ResponseWriter) {
			say(w, `{"progress":"n4 is a member at x:1"}`, `{"progress":"waiting"}`, `{"progress":"waiting"}`, `{"progress":"waiting"}`, `{"done":true}`)
		}, false, "nobody was killed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if _, err := f.Nodes.Join(); err != nil {
				t.Fatal(err)
			}
			proc := f.Nodes.list[c.victim].proc
			f.change = func(w http.ResponseWriter, _ int, _ string) { c.change(proc, w) }
			err := f.addAndKill(t.Context(), 3, c.asked, c.victim)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if killed := !proc.running(); killed != c.killed || f.Kills > 0 != c.killed {
				t.Errorf("killed: %v, %d", killed, f.Kills)
			}
		})
	}
}
