package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
)

// buildTidewire builds the server once for all tests of this package.
var buildTidewire = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tidewire-build-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "tidewire")
	out, err := exec.Command("go", "build", "-o", bin, "github.com/tidewire/tidewire/cmd/tidewire").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

// process is one `tidewire` of its own.
type process struct {
	name  string
	addr  string
	admin string
	env   []string
	cmd   *exec.Cmd
	log   *bytes.Buffer
}

// startProcesses starts three `tidewire` processes and waits until they are ready.
func startProcesses(t *testing.T, k *aKafka, topics string) []*process {
	t.Helper()
	bin, err := buildTidewire()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 9)
	var peers []string
	for i := range 3 {
		peers = append(peers, fmt.Sprintf("n%d=127.0.0.1:%d", i+1, ports[i]))
	}
	group := "tw-" + strconv.FormatUint(rand.Uint64(), 36)
	var out []*process
	for i := range 3 {
		p := &process{name: fmt.Sprintf("n%d", i+1), addr: fmt.Sprintf("127.0.0.1:%d", ports[3+i]), admin: fmt.Sprintf("127.0.0.1:%d", ports[6+i])}
		p.env = append(os.Environ(),
			"TIDEWIRE_NODE_ID="+p.name, "TIDEWIRE_LISTEN="+p.addr, "TIDEWIRE_ADMIN_LISTEN="+p.admin,
			fmt.Sprintf("TIDEWIRE_CLUSTER_LISTEN=127.0.0.1:%d", ports[i]), "TIDEWIRE_CLUSTER_PEERS="+strings.Join(peers, ","),
			"TIDEWIRE_DATA_DIR="+filepath.Join(t.TempDir(), p.name), "TIDEWIRE_KAFKA_BROKERS="+strings.Join(k.brokers, ","),
			"TIDEWIRE_KAFKA_TOPICS="+topics, "TIDEWIRE_KAFKA_PUBLISH_TOPICS="+topics, "TIDEWIRE_KAFKA_GROUP_ID="+group,
			"TIDEWIRE_CACHE_BYTES=64MiB")
		p.start(t, bin)
		out = append(out, p)
	}
	for _, p := range out {
		eventually(t, p.name+" to be ready", p.ready)
	}
	return out
}

func (p *process) start(t *testing.T, bin string) {
	t.Helper()
	p.log = &bytes.Buffer{}
	p.cmd = exec.Command(bin)
	p.cmd.Env = p.env
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, log := p.cmd, p.log
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, tail(log.String(), 60))
		}
	})
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (p *process) get(path string) (int, []byte) {
	client := http.Client{Timeout: 2 * time.Second}
	res, err := client.Get("http://" + p.admin + path)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, b
}

func (p *process) ready() bool {
	code, _ := p.get("/readyz")
	return code == http.StatusOK
}

func (p *process) status() (s bridge.NodeStatus) {
	_, b := p.get("/status")
	_ = json.Unmarshal(b, &s)
	return s
}

// kill -9 of one of three processes under load: subscribers of the others go on with a new epoch,
// nothing lost or repeated; those of the dead node resume on another, by WebSocket and by Server-Sent Events.
func TestKillMinusNineOfACoordinator(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, k *aKafka) {
		topic := k.topic(t, 6, nil)
		nodes := startProcesses(t, k, topic)
		eventually(t, "the node that is to die to coordinate a partition", func() bool {
			return slices.ContainsFunc(nodes[0].status().Partitions, func(p bridge.PartitionStatus) bool { return p.Topic == topic && string(p.Coordinator) == nodes[0].name })
		})
		var watchers, streams []*watcher
		for i := range nodes {
			// Each keeps to its node, and goes to the next when that is dead.
			addrs := func(n int) string { return nodes[(i+n)%3].addr }
			watchers = append(watchers, watch(t, "/"+topic+"/*", 0, addrs), watch(t, "/"+topic+"/key-2", 0, addrs))
			streams = append(streams, watchSSE(t, "/"+topic+"/*", addrs))
		}
		stop := trickle(t, k, topic, 8, 2*time.Millisecond)
		eventually(t, "records to flow", func() bool { return watchers[0].count() > 200 && watchers[2].count() > 200 && streams[0].count() > 200 })

		dead := nodes[0]
		if err := dead.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		before := watchers[2].count()
		eventually(t, "the others to go on with a new epoch", func() bool {
			w := watchers[2]
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.records) > before+500 && len(w.epochs) > 1
		})
		if n := watchers[2].subscriptions(); n != 1 {
			t.Errorf("a subscriber of a living node was disconnected: %d subscriptions", n)
		}
		// It comes back with its disk, and its leaderships return to it.
		bin, err := buildTidewire()
		if err != nil {
			t.Fatal(err)
		}
		_ = dead.cmd.Wait()
		dead.start(t, bin)
		eventually(t, "the dead node to be ready again", dead.ready)
		eventually(t, "leaderships to return", func() bool {
			for _, g := range nodes[1].status().Groups {
				if g.Leader == "n1" {
					return true
				}
			}
			return false
		})
		back := watch(t, "/"+topic+"/*", -1, func(int) string { return dead.addr })
		stop()
		all, n := expected(t, k, topic, nil)
		one, m := expected(t, k, topic, keyIs("key-2"))
		for i, w := range watchers {
			if i%2 == 0 {
				compare(t, w, all, n)
			} else {
				compare(t, w, one, m)
			}
		}
		for _, w := range streams {
			compare(t, w, all, n)
		}
		// The node that came back has filled its cache from Kafka, with the positions that the
		// others gave out.
		compare(t, back, all, n)
		samePositions(t, append(append(watchers, back), streams...)...)
		for _, p := range nodes {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Wait(); err != nil {
				t.Errorf("%s after SIGTERM: %v", p.name, err)
			}
		}
	})
}
