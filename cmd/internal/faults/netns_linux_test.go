package faults

import (
	"net"
	"strings"
	"testing"
	"time"
)

// Ways between namespaces are cut in one direction alone, and delayed, and are whole again afterwards; and
// nothing of a network is left when it is closed.
func TestNetnsImpairments(t *testing.T) {
	n, err := newNetns()
	if err != nil {
		t.Skipf("no network namespaces here: %v", err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = n.Close()
		}
	}()
	for _, h := range []string{"n1", "n2"} {
		if err := n.Add(h); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody listens: a refusal is an answer, and takes the way there and back.
	// What is to come may take as long as the machine needs; what is not to come is waited for a second.
	round := func(seconds string) (time.Duration, bool) {
		addr, _ := n.Dial("n1", "n2", 9)
		begin := time.Now()
		out, _ := n.Command("n1", "timeout", seconds, "bash", "-c", "exec 3<>/dev/tcp/"+strings.Replace(addr, ":", "/", 1)).CombinedOutput()
		return time.Since(begin), strings.Contains(string(out), "refused")
	}
	if _, ok := round("60"); !ok {
		t.Fatal("the hosts do not reach each other")
	}
	for _, w := range []way{{"n1", "n2"}, {"n2", "n1"}} {
		if err := n.Impair(w.from, w.to, Impairment{Cut: true}); err != nil {
			t.Fatal(err)
		}
		if _, ok := round("1"); ok {
			t.Errorf("an answer came over the cut %v", w)
		}
		if err := n.Heal(); err != nil {
			t.Fatal(err)
		}
		if _, ok := round("60"); !ok {
			t.Errorf("%v is not whole again", w)
		}
	}
	if err := between(n, []string{"n1"}, []string{"n2"}, Impairment{Delay: 150 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if d, ok := round("60"); !ok || d < 300*time.Millisecond {
		t.Errorf("150 ms each way, and an answer came (%v) after %v", ok, d)
	}
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	closed = true
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		if strings.HasPrefix(l.Name, n.device("")) {
			t.Errorf("%s is still there", l.Name)
		}
	}
}
