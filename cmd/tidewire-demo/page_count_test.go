package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidewire/tidewire/clients/go/tidewiretest"
)

// streamScript runs the page's client and its counting against a cluster in memory, and prints what was counted
// once it has the record whose value is "end". When it has
// the history it says so.
const streamScript = `
import { Tidewire } from './tidewire.js';
import { Count } from './count.js';
const got = [], moved = [], count = new Count(false); // the cluster in memory numbers the records of all topics in one
const k = new Tidewire({ nodes: process.argv.slice(2), inOrder: true, backoffBaseMs: 10 });
const s = k.subscribe('/prices/*', { history: 2 });
s.on('recovered', ({ previous, node }) => moved.push(previous + ' ' + node));
const acks = [k.publish('/chat', { text: 'hi' }, { mid: 'm1' })];
s.on('message', async (m) => {
  if (count.take(m) && got.push(m.value.n ?? m.value) === 2) console.log('"it has its history"');
  if (m.value.n === 6) acks.push(k.publish('/chat', 'seen', { mid: 'm2' }));
  if (m.value !== 'end') return;
  await Promise.all(acks);
  console.log(JSON.stringify({ got, moved, missed: count.missed, repeated: count.repeated }));
  k.close();
});
`

// pageScript makes a folder with the page's scripts and one more, and a command that runs it. Where Node.js is
// missing it skips the test.
func pageScript(t *testing.T, text string, args ...string) *exec.Cmd {
	t.Helper()
	if exec.Command("node", "--experimental-websocket", "-e", "new WebSocket('ws://127.0.0.1:1').onerror = () => {}").Run() != nil {
		t.Skip("NOT RUN: the page's scripts need Node.js 20.10 or newer")
	}
	dir := t.TempDir()
	files := map[string][]byte{"run.js": []byte(text), "package.json": []byte(`{"type":"module"}`)}
	for _, name := range []string{"tidewire.js", "count.js"} {
		b, err := page.ReadFile("page/" + name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "node", append([]string{"--experimental-websocket", filepath.Join(dir, "run.js")}, args...)...)
	cmd.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	return cmd
}

// counted is what a script prints.
type counted struct {
	Got              []any
	Moved            []string
	Missed, Repeated int
}

// The page goes on at another node with nothing missed and nothing twice, also where the server sends a record
// again, and its publishes arrive once.
func TestPageStream(t *testing.T) {
	cl := &tidewiretest.Cluster{}
	if err := cl.Start(2); err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	number := func(subject string, n int) { cl.Append(subject, 0, map[string]int{"n": n}) }
	for n := range 3 {
		number("/prices/A", n+1)
	}
	cmd := pageScript(t, streamScript, cl.Addrs()...)
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	subs := func() (n int) {
		for _, op := range cl.Ops() {
			if op.Op == "sub" {
				n++
			}
		}
		return n
	}
	// Until then it has nothing to resume from.
	said := json.NewDecoder(stdout)
	var begun string
	if err := said.Decode(&begun); err != nil {
		t.Fatalf("%v, %v: %s", err, cmd.Wait(), stderr)
	}
	number("/prices/A", 4)
	number("/prices/B", 1)
	cl.Node(0).Stop()
	number("/prices/A", 5)
	eventually(t, "it subscribes at n2", func() bool { return subs() == 2 })
	number("/prices/A", 6)
	eventually(t, "both messages are published", func() bool {
		n := 0
		for _, r := range cl.Records() {
			if r.Subject == "/chat" {
				n++
			}
		}
		return n == 2
	})
	cl.Node(1).Send(`{"op":"msg","subject":"/prices/A","pos":[0,1,1],"ts":1,"data":{"n":1}}`)
	cl.Append("/prices/A", 0, "end")
	var out counted
	err = said.Decode(&out)
	if werr := cmd.Wait(); err != nil || werr != nil {
		t.Fatalf("%v, %v: %s", err, werr, stderr)
	}
	if got, _ := json.Marshal(out.Got); string(got) != `[2,3,4,1,5,6,"end"]` {
		t.Errorf("got %s", got)
	}
	if out.Missed != 0 || out.Repeated != 0 || strings.Join(out.Moved, ",") != "n1 n2" {
		t.Errorf("counted %+v", out)
	}
}

// What the page says of holes and repeats is counted, not assumed.
func TestPageCounts(t *testing.T) {
	for _, c := range []struct {
		name, script     string
		missed, repeated int
	}{
		{"in order", `take(1, 1); take(1, 2); take(1, 3); take(2, 1); take(2, 2);`, 0, 0},
		{"from the middle", `take(3, 117); take(3, 118);`, 0, 0},
		{"again", `take(1, 1); take(1, 2); take(1, 1); take(1, 2);`, 0, 2},
		{"of an earlier epoch", `take(2, 1); take(1, 9);`, 0, 1},
		{"a hole", `take(1, 1); take(1, 4);`, 2, 0},
		{"an epoch's begin", `take(1, 9); take(2, 4);`, 3, 0},
		{"two partitions", `take(1, 1); c.take({ position: [1, 1, 7] }); take(1, 2); c.take({ position: [1, 1, 8] });`, 0, 0},
		{"some of a topic's records", `c = new Count(false); take(1, 1); take(1, 4); take(1, 4);`, 0, 1},
		{"after a reload", `take(1, 1); c = new Count(true, JSON.parse(JSON.stringify(c.keep()))); take(1, 1); take(1, 3);`, 1, 1},
		{"a gap", `take(1, 1); c.gap({ at: [[0, 1, 4]], lost: [{ partition: 0, from: [1, 2], to: [1, 4] }] }); take(1, 5);`, 3, 0},
		{"a cluster made anew", `take(9, 9); c.gap({ at: [[0, 1, 19]], lost: [{ partition: 0 }] }); take(1, 20);`, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := pageScript(t, `
				import { Count } from './count.js';
				let c = new Count(true);
				const take = (epoch, seqno) => c.take({ position: [0, epoch, seqno] });
				`+c.script+`
				console.log(JSON.stringify(c));`)
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var out counted
			if err := json.Unmarshal(text, &out); err != nil || out.Missed != c.missed || out.Repeated != c.repeated {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}
