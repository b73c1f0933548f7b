package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

// script runs the page's client against a cluster in memory and prints what it counted once it has the
// record whose value is "end".
const script = `
import { Client } from './client.mjs';
const got = [], moved = [];
const client = new Client(process.argv.slice(2).map((url) => ({ url })), {
  record(m) {
    got.push(m.data);
    if (m.data === 6) client.publish('/chat', 'seen', 'm2', {});
    if (m.data === 'end') {
      console.log(JSON.stringify({ got, moved, missed: client.missed, repeated: client.repeated }));
      client.close();
    }
  },
  moved: (m) => moved.push(m.from + ' ' + m.to),
}, { base: 10 });
client.subscribe('/prices/*', 2);
client.publish('/chat', { text: 'hi' }, 'm1', {});
`

// What the page says of holes and repeats is counted, not assumed: none over a change of node, and one of
// each where the server is made to leave one out and to send one again. Runs where Node.js is installed.
func TestPageClient(t *testing.T) {
	if exec.Command("node", "--experimental-websocket", "-e", "new WebSocket('ws://127.0.0.1:1').onerror = () => {}").Run() != nil {
		t.Skip("NOT RUN: the page's client needs Node.js 20.10 or newer")
	}
	cl := &tidewiretest.Cluster{}
	if err := cl.Start(2); err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	dir := t.TempDir()
	source, err := page.ReadFile("page/client.js")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"client.mjs": source, "run.mjs": []byte(script)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		cl.Append("/prices/A", 0, i)
	}
	cmd := exec.CommandContext(t.Context(), "node", "--experimental-websocket", filepath.Join(dir, "run.mjs"), "ws://"+cl.Addrs()[0]+"/ws", "ws://"+cl.Addrs()[1]+"/ws")
	cmd.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	stderr, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	subs := func() (n int) {
		for _, op := range cl.Ops() {
			if op.Op == "sub" {
				n++
			}
		}
		return n
	}
	eventually(t, "the page's client subscribes", func() bool { return subs() == 1 })
	cl.Append("/prices/A", 0, 3)
	cl.Append("/prices/B", 0, 4)
	cl.Node(0).Stop()
	cl.Append("/prices/A", 0, 5)
	eventually(t, "it subscribes at n2", func() bool { return subs() == 2 })
	cl.Append("/prices/B", 0, 6)
	eventually(t, "both messages are published", func() bool {
		n := 0
		for _, r := range cl.Records() {
			if r.Subject == "/chat" {
				n++
			}
		}
		return n == 2
	})
	// One that was delivered comes again; then one whose prev never came; then the end.
	cl.Node(1).Send(`{"op":"msg","subject":"/prices/A","pos":[0,1,1],"ts":1,"data":0}`)
	cl.Node(1).Send(`{"op":"msg","subject":"/prices/B","pos":[0,1,100],"prev":[1,99],"ts":1,"data":"hole"}`)
	cl.Node(1).Send(`{"op":"msg","subject":"/prices/A","pos":[0,1,101],"ts":1,"data":"end"}`)
	var out struct {
		Got              []any
		Moved            []string
		Missed, Repeated int
	}
	err = json.NewDecoder(stdout).Decode(&out)
	if werr := cmd.Wait(); err != nil || werr != nil {
		b, _ := os.ReadFile(stderr.Name())
		t.Fatalf("%v, %v: %s", err, werr, b)
	}
	t.Logf("%+v", out)
	if got, _ := json.Marshal(out.Got); string(got) != `[1,2,3,4,5,6,"hole","end"]` {
		t.Errorf("got %s", got)
	}
	if out.Missed != 1 || out.Repeated != 1 || len(out.Moved) != 1 || out.Moved[0] != "n1 n2" {
		t.Errorf("counted %+v", out)
	}
}
