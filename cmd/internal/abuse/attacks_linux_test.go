package abuse

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/tidewire/tidewire/cmd/internal/node"
	"github.com/tidewire/tidewire/internal/freeport"
	"github.com/tidewire/tidewire/internal/secret"
	"github.com/tidewire/tidewire/kafkaio"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
	"github.com/tidewire/tidewire/wsedge/jwtauth"
)

const waitTime = time.Minute

// startNode starts a node in this process, with tokens and a cluster secret, and returns it as attackers see it, and a client of
// its Kafka.
func startNode(t *testing.T) (Target, *kgo.Client) {
	t.Helper()
	brokers := kafkatest.Fake(t, kfake.SeedTopics(partitions, live, archive, chat)).Brokers()
	ports, err := freeport.Take(1) // the node does not tell which it chose for its peers
	if err != nil {
		t.Fatal(err)
	}
	cfg := node.Defaults()
	cfg.NodeID, cfg.Listen, cfg.AdminListen, cfg.ClusterListen = "n1", "127.0.0.1:0", "127.0.0.1:0", fmt.Sprintf("127.0.0.1:%d", ports[0])
	cfg.ClusterSecret, cfg.Compression = secret.Of(clusterSecret), true
	cfg.DataDir, cfg.KafkaBrokers, cfg.CacheBytes, cfg.Log = t.TempDir(), brokers, 64<<20, zerolog.Nop()
	cfg.Auth = &jwtauth.Config{Secret: func() []byte { return []byte(tokenSecret) }, Claim: "tidewire", MaxLifetime: 720 * time.Hour}
	if cfg.Topics, err = kafkaio.ParseSelectors(live + "," + archive + "," + chat); err != nil {
		t.Fatal(err)
	}
	if cfg.PublishTopics, err = kafkaio.ParseSelectors(chat); err != nil {
		t.Fatal(err)
	}
	n, err := node.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-n.Ready():
	case <-time.After(waitTime):
		t.Fatal("the node is not ready")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	good, err := token("mallory", []string{"/" + live + "/*", "/" + archive + "/*"}, []string{"/" + chat + "/*"})
	if err != nil {
		t.Fatal(err)
	}
	return Target{Clients: []string{n.Addr()}, Cluster: []string{cfg.ClusterListen}, Token: good, Live: live, Archive: archive, Chat: chat, Keys: 3}, cl
}

// Each attack does what it says, to a node whose honest clients get all their records meanwhile, in order. How fast is not
// looked at.
func TestAttacks(t *testing.T) {
	target, kafka := startNode(t)
	for i := range 3 * target.Keys {
		r := kgo.Record{Topic: archive, Key: fmt.Appendf(nil, "k%d", i%target.Keys), Value: []byte("1")}
		if err := kafka.ProduceSync(t.Context(), &r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	crowd, err := openCrowd(t.Context(), keys, keys, target.Clients, live, func(user string) (string, error) {
		return token(user, []string{"/" + live + "/*"}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer crowd.close()
	f := startFeed(kafka, live, 500)
	defer func() { _, _ = f.end(context.Background()) }()

	want := map[string][]string{ // what each attack counts within a moment, all of it
		"half-open":     {"connections", "held at the end"},
		"slow-headers":  {"connections"},
		"never-read":    {"connected"},
		"pings":         {"connected", "pings"},
		"bad-frames":    {"closed 4009", "error bad_request", "error bad_subject"},
		"random-subs":   {"subscriptions asked for"},
		"replays":       {"resumes", "replays to the end"},
		"fragments":     {"closed 1009"},
		"bombs":         {"closed 1009"},
		"wrong-mask":    {"connected", "cut"},
		"reserved-bits": {"closed 1002"},
		"connects":      {"connected"},
		"big-tokens":    {"answered 431", "error unauthenticated"},
		"publishes":     {"acked"},
		"cluster-port":  {"rubbish", "silent", "said again", "TLS without a proof"},
	}
	// All at once, however few processors there are: they mostly wait.
	var wg sync.WaitGroup
	for i, a := range Attacks() {
		wg.Go(func() {
			to := target
			to.Attack, to.Process, to.Processes = a.Name, i, 50
			did, lacks := map[string]int64{}, want[a.Name]
			if len(lacks) == 0 {
				t.Errorf("%s: nobody says what it is to do", a.Name)
			}
			// How much can be done in a moment depends on the machine; and what a longer attack did first may be over at its end.
			begun := time.Now()
			for again := 0; len(lacks) > 0 && time.Since(begun) < waitTime; again++ {
				to.For = 2500 * time.Millisecond << (again % 3)
				more, err := attack(t.Context(), to)
				if err != nil {
					t.Errorf("%s: %v", a.Name, err)
					return
				}
				for what, n := range more {
					did[what] += n
				}
				lacks = slices.DeleteFunc(lacks, func(what string) bool { return did[what] > 0 })
			}
			if len(lacks) > 0 {
				t.Errorf("%s: no %q: %v", a.Name, lacks, did)
			}
		})
	}
	wg.Wait()
	sent, err := f.end(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	if behind := crowd.complete(ctx, sent); behind > 0 {
		t.Errorf("%d honest clients did not get all their records", behind)
	}
	if windows, faults, details := crowd.take(time.Now(), time.Second); len(faults) > 0 || windows[0].Records == 0 {
		t.Errorf("honest clients: %v %q, %v", faults, details, windows)
	}
}

// Attackers have a processor only when nobody else wants it, with all their threads.
func TestAttackersHaveTheLowestPriority(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	target, err := json.Marshal(Target{Attack: "connects", Clients: []string{"127.0.0.1:1"}, For: time.Minute, Processes: 1})
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Args[0], "attacker", string(target))
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	for {
		tasks, err := procTasks(fmt.Sprint(cmd.Process.Pid))
		high := 0
		for _, id := range tasks {
			attr, err := unix.SchedGetAttr(id, 0)
			if err != nil || attr.Policy != unix.SCHED_IDLE || attr.Nice != 19 {
				high++
			}
		}
		if err == nil && len(tasks) > 2 && high == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d threads are not of the lowest priority: %v %s", high, len(tasks), err, &errs)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A process of attackers says what it did, in a line. How long it takes until it has done something depends on the machine:
// it has a processor only when nobody else wants it.
func TestAttackerReports(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), waitTime)
	defer cancel()
	for d := 200 * time.Millisecond; ; d *= 2 {
		target, err := json.Marshal(Target{Attack: "connects", Clients: []string{"127.0.0.1:1"}, For: d, Processes: 1})
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(ctx, os.Args[0], "attacker", string(target)).Output()
		if err != nil {
			t.Fatalf("%v after %v, %q", err, d, out)
		}
		var did map[string]int64
		if err := json.Unmarshal(out, &did); err != nil || strings.Count(string(out), "\n") != 1 {
			t.Fatalf("%v: %q", err, out)
		}
		if _, ok := did[didCPU]; !ok {
			t.Fatalf("no processor time: %v", did)
		}
		if did["not connected"] > 0 {
			return
		}
	}
}
