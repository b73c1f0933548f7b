package tidewire

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

func TestBackoffStaysInItsBounds(t *testing.T) {
	b := backoff{base: 250 * time.Millisecond, max: 20 * time.Second}
	for n := range 100 {
		ceiling := min(b.max, b.base<<min(n, 20))
		if w := b.next(0); w < 0 || w > ceiling {
			t.Fatalf("wait %d is %s, over %s", n, w, ceiling)
		}
	}
	if w := b.next(time.Minute); w != time.Minute {
		t.Fatalf("the floor was not kept: %s", w)
	}
}

func TestVectorText(t *testing.T) {
	v, err := ParseVector(`[[3,7,9],[0,1,0]]`)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(v); string(b) != `[[0,1,0],[3,7,9]]` {
		t.Fatalf("got %s", b)
	}
	v.set(Position{1, 1, 1})
	v.set(Position{3, 8, 0})
	if b, _ := json.Marshal(v); string(b) != `[[0,1,0],[1,1,1],[3,8,0]]` {
		t.Fatalf("got %s", b)
	}
	for _, bad := range []string{``, `7`, `[[1,2]]`, `[[1,2,3,4]]`, `[[-1,0,0]]`, `[[0,0,0],[0,1,0]]`, `[[4294967296,0,0]]`, `[["a",0,0]]`} {
		if v, err := ParseVector(bad); err == nil {
			t.Errorf("%s gave %v", bad, v)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		sub, subject string
		want         bool
	}{
		{"/t", "/t", true}, {"/t", "/t/a", false}, {"/t/*", "/t", true}, {"/t/*", "/t/a/b", true}, {"/t/*", "/tt/a", false},
		{"/t/a/*", "/t/a/b", true}, {"/t/a/*", "/t/a", false}, {"/t/a/*", "/t/ab", false}, {"/t/a*", "/t/a*", true},
	} {
		if got := covers(c.sub, c.subject); got != c.want {
			t.Errorf("covers(%s, %s) = %v", c.sub, c.subject, got)
		}
	}
}

// A bye must not lead a client that speaks TLS to an address that does not, and costs nothing if it is nonsense.
func TestAddressesOfBye(t *testing.T) {
	for _, c := range []struct {
		from, nodes string
		want        []string
	}{
		{"ws://a/ws", `["ws://b:1/ws","wss://c/ws","d:2","n1",""]`, []string{"ws://b:1/ws", "wss://c/ws", "ws://d:2/ws"}},
		{"wss://a/ws", `["ws://b:1/ws","wss://c/ws","d:2"]`, []string{"wss://c/ws"}},
		{"ws://a/ws", `{"n1":1}`, nil}, {"ws://a/ws", ``, nil},
	} {
		if got := (&conn{addr: c.from, c: &Client{cfg: Config{InOrder: true}}}).addresses(json.RawMessage(c.nodes)); !slices.Equal(got, c.want) {
			t.Errorf("from %s to %s: %v", c.from, c.nodes, got)
		}
	}
}
