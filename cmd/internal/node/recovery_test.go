package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/kafkaio/kafkatest"
)

// TestRecoveryTimes measures, and fails only when something does not come back at all. It runs when
// TIDEWIRE_RECOVERY says how often to strike:
//
//	TIDEWIRE_RECOVERY=20 go test ./cmd/internal/node -run TestRecoveryTimes -v -timeout 30m
//
// Three `tidewire` processes, 500 records/s over 6 partitions, 83 to each. Each time one process in turn is
// killed, asked to stop, or stopped (TIDEWIRE_RECOVERY_SIGNALS, a list of KILL, TERM and STOP); the figure
// is the longest time that a subscriber of a living node had no record of one partition, 12 ms when
// nothing happens. With it comes what the survivors logged, in milliseconds from the signal.
// TIDEWIRE_RECOVERY_KAFKA=real has a real Kafka in place of the embedded one.
func TestRecoveryTimes(t *testing.T) {
	strikes, _ := strconv.Atoi(os.Getenv("TIDEWIRE_RECOVERY"))
	if strikes == 0 {
		t.Skip("TIDEWIRE_RECOVERY is not set")
	}
	signals := strings.Split(cmpOr(os.Getenv("TIDEWIRE_RECOVERY_SIGNALS"), "KILL,TERM,STOP"), ",")
	k := &aKafka{}
	if os.Getenv("TIDEWIRE_RECOVERY_KAFKA") == "real" {
		versions := kafkatest.Versions()
		c := kafkatest.Shared(t, versions[len(versions)-1])
		k.brokers, k.real = c.Brokers(), c
	} else {
		k.brokers = kafkatest.Fake(t).Brokers()
	}
	const partitions = 6
	topic := k.topic(t, partitions, nil)
	nodes := startProcesses(t, k, topic)
	stamps := make([]*stampedLog, len(nodes))
	bin, err := buildTidewire()
	if err != nil {
		t.Fatal(err)
	}
	stop := evenly(t, k, topic, partitions, 2*time.Millisecond)
	defer stop()
	for _, name := range signals {
		sig := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP}[name]
		var all []time.Duration
		for i := range strikes {
			victim := i % len(nodes)
			settled(t, nodes)
			var ears []*ear
			for j, p := range nodes {
				if j != victim {
					ears = append(ears, listen(t, p.addr, "/"+topic+"/*"))
				}
			}
			eventually(t, "records before the strike", func() bool { return heard(ears, partitions, 5, time.Time{}) })
			at := time.Now()
			if err := nodes[victim].cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			eventually(t, "records of all partitions to go on", func() bool { return heard(ears, partitions, 40, at.Add(2*time.Second)) })
			var worst time.Duration
			for _, e := range ears {
				worst = max(worst, e.silence(at.Add(-20*time.Millisecond)))
				e.close()
			}
			all = append(all, worst)
			t.Logf("%s %d of %s: silence %d ms", name, i, nodes[victim].name, worst.Milliseconds())
			for j, s := range stamps {
				if j != victim && s != nil {
					for _, line := range s.since(at) {
						t.Logf("    %s %s", nodes[j].name, line)
					}
				}
			}
			if sig == syscall.SIGSTOP {
				_ = nodes[victim].cmd.Process.Signal(syscall.SIGKILL)
			}
			_ = nodes[victim].cmd.Wait()
			stamps[victim] = restart(t, nodes[victim], bin)
		}
		slices.Sort(all)
		t.Logf("%s: %d times, silence median %d ms, worst %d ms: %v", name, len(all), all[len(all)/2].Milliseconds(), all[len(all)-1].Milliseconds(), all)
	}
}

func cmpOr(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// settled waits until all nodes are ready and each leads its share.
func settled(t *testing.T, nodes []*process) {
	t.Helper()
	eventually(t, "the cluster to settle", func() bool {
		led := map[bridge.NodeID]int{}
		for _, p := range nodes {
			s := p.status()
			if !s.Ready {
				return false
			}
			for _, g := range s.Groups {
				led[g.Leader]++
			}
		}
		for _, n := range led {
			if n < 2*len(nodes) { // of 8 groups, as seen by each of three nodes
				return false
			}
		}
		return len(led) == len(nodes)
	})
}

// evenly writes a record every pace, to each partition in turn.
func evenly(t *testing.T, k *aKafka, topic string, partitions int32, pace time.Duration) (stop func()) {
	keys := make([][]byte, partitions)
	for i, found := 0, int32(0); found < partitions; i++ {
		key := fmt.Appendf(nil, "key-%d", i)
		if p := bridge.PartitionFor(key, partitions); keys[p] == nil {
			keys[p] = key
			found++
		}
	}
	producer := kafkatest.NewProducer(t, k.brokers)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pace)
		defer tick.Stop()
		value := fmt.Appendf(nil, `"%0500d"`, 0)
		for n := 0; ctx.Err() == nil; n++ {
			producer.Client.Produce(ctx, &kafkatest.Record{Topic: topic, Key: keys[n%len(keys)], Value: value}, nil)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// ear notes when each record of each partition came in over one connection.
type ear struct {
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	at     map[int32][]time.Time
	lost   error
}

func listen(t *testing.T, addr, subject string) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w, err := dialWire(ctx, addr)
	if err == nil {
		_, err = w.ask(ctx, 1, map[string]any{"op": "sub", "subject": subject})
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	e := &ear{cancel: cancel, done: make(chan struct{}), at: map[int32][]time.Time{}}
	go func() {
		defer close(e.done)
		defer w.close()
		for {
			f, err := w.next(ctx)
			if err != nil {
				e.mu.Lock()
				e.lost = err
				e.mu.Unlock()
				return
			}
			if f.Op == "msg" {
				e.mu.Lock()
				e.at[int32(f.Pos[0])] = append(e.at[int32(f.Pos[0])], time.Now())
				e.mu.Unlock()
			}
		}
	}()
	return e
}

func (e *ear) close() { e.cancel(); <-e.done }

// heard says whether all ears have so many records of each partition, the last of them after a moment.
func heard(ears []*ear, partitions, records int, after time.Time) bool {
	for _, e := range ears {
		e.mu.Lock()
		ok := len(e.at) == partitions
		for _, at := range e.at {
			ok = ok && len(at) >= records && at[len(at)-1].After(after)
		}
		e.mu.Unlock()
		if !ok {
			return false
		}
	}
	return true
}

// silence is the longest time between two records of one partition from a moment on.
func (e *ear) silence(from time.Time) (worst time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.at {
		for i := 1; i < len(at); i++ {
			if at[i].After(from) {
				worst = max(worst, at[i].Sub(at[i-1]))
			}
		}
	}
	return worst
}

// restart starts a process again, with a log whose lines are stamped as they come.
func restart(t *testing.T, p *process, bin string) *stampedLog {
	t.Helper()
	s := &stampedLog{}
	p.cmd = exec.Command(bin)
	p.cmd.Env = p.env
	p.cmd.Stderr = s
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := p.cmd
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return s
}

// stampedLog is what a process said, and when.
type stampedLog struct {
	mu    sync.Mutex
	at    []time.Time
	lines []string
}

func (s *stampedLog) Write(p []byte) (int, error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(p) {
		s.at = append(s.at, now)
		s.lines = append(s.lines, strings.TrimSpace(string(line)))
	}
	return len(p), nil
}

// since returns the lines of the three seconds from a moment on, with the milliseconds in front.
func (s *stampedLog) since(from time.Time) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, at := range s.at {
		if d := at.Sub(from); d >= 0 && d < 3*time.Second {
			out = append(out, fmt.Sprintf("%6.1f %s", float64(d.Microseconds())/1000, s.lines[i]))
		}
	}
	return out
}
