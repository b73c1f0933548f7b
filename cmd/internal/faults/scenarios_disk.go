package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// diskBytes is the size of a node's disk: room for all groups' logs, and little enough to be filled quickly.
const diskBytes = 256 << 20

// diskScenarios are those in which what a node keeps on disk fails it.
func diskScenarios() []Scenario {
	return []Scenario{
		{Name: "disk-full", About: "a coordinator's disk is full: it exits and says so, and comes back when there is room", Slice: true,
			Silence: 5 * time.Second, Disk: diskBytes, Env: []string{"TIDEWIRE_GROUPS=3"}, Load: noSlowReaders, Run: diskFull},
		{Name: "disk-hangs", About: "a coordinator's disk hangs for 20 s: it gives its leaderships up, and goes on when the disk does",
			Silence: 5 * time.Second, Disk: diskBytes, DiskHangs: true, Load: noSlowReaders, Run: diskHangs(false), Measure: othersSilence},
		{Name: "disk-hangs-kill", About: "a coordinator's disk hangs for 20 s, and it is killed meanwhile",
			Silence: 5 * time.Second, Disk: diskBytes, DiskHangs: true, Load: noSlowReaders, Run: diskHangs(true), Measure: othersSilence},
		{Name: "disk-flip", About: "a byte flips in the Raft log of a node that is down, and in that of one that runs",
			Silence: 5 * time.Second, Load: noSlowReaders, Run: diskFlip},
		{Name: "disk-torn", About: "kill −9, and the newest part of the Raft log is cut in the middle of an entry", Slice: true,
			Silence: 5 * time.Second, Run: repeat(3, diskTorn)},
		{Name: "disk-snapshot", About: "the snapshots of a node that is down are cut short, the newest alone or all",
			Silence: 5 * time.Second, Load: noSlowReaders, Env: []string{"TIDEWIRE_GROUPS=1"}, Run: diskSnapshot},
	}
}

// noSlowReaders is for scenarios that write much more than such readers could read in time.
func noSlowReaders(o *verify.Options) { o.SlowSubs = -1 }

// diskFull fills a coordinator's disk. What is allocated already can still be written, so more than that
// is written to Kafka.
func diskFull(ctx context.Context, r *Rig) error {
	if err := r.Pause(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
		return err
	}
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	name, disk := r.Nodes.Name(i), r.Nodes.list[i].disk
	r.Note("the disk of %s is full", name)
	r.Nodes.leave(i)
	if err := disk.fill(); err != nil {
		return err
	}
	for n := 0; r.Nodes.list[i].proc.running() && n < 40; n++ {
		if err := errors.Join(r.Load.Burst(ctx, 20, 100<<10), r.Sleep(ctx, 250*time.Millisecond)); err != nil {
			return err
		}
	}
	if _, err := r.exits(ctx, i, "no space left on device", "make room"); err != nil {
		return err
	}
	r.Note("start %s on the full disk", name)
	if err := r.Nodes.Start(i); err != nil {
		return err
	}
	if _, err := r.exits(ctx, i, "no space left on device", "make room"); err != nil {
		return err
	}
	r.Note("make room")
	if err := disk.makeRoom(); err != nil {
		return err
	}
	return errors.Join(restart(ctx, r, false, i), r.Sleep(ctx, time.Second))
}

// exits waits until a node ends by itself and checks that it says all of these. It returns the whole error.
func (r *Rig) exits(ctx context.Context, i int, says ...string) (said string, err error) {
	said, err = r.Nodes.WaitExit(ctx, i)
	if err != nil {
		return said, err
	}
	r.Note("%s ended: %s", r.Nodes.Name(i), said)
	for _, s := range says {
		if !strings.Contains(said, s) {
			return said, fmt.Errorf("%s ended, but its error does not say %q: %s", r.Nodes.Name(i), s, said)
		}
	}
	return said, nil
}

func diskHangs(killed bool) step {
	return func(ctx context.Context, r *Rig) error {
		if err := r.Pause(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
			return err
		}
		i, err := r.Coordinator(ctx)
		if err != nil {
			return err
		}
		name, disk := r.Nodes.Name(i), r.Nodes.list[i].disk
		by, err := r.Nodes.Coordinators(ctx, r.Topic, r.Parts)
		if err != nil {
			return err
		}
		for p, node := range by {
			if node == name {
				r.Led = append(r.Led, verify.Partition{Topic: r.Topic, Index: p}.String())
			}
		}
		r.Note("the disk of %s hangs", name)
		r.Nodes.leave(i)
		if err := disk.hang(); err != nil {
			return err
		}
		from := r.Load.Now()
		err = r.Sleep(ctx, 20*time.Second)
		r.Marks = append(r.Marks, Mark{"hang", from, r.Load.Now()})
		if err == nil {
			err = r.servesNobody(ctx, i)
		}
		if killed {
			r.Note("kill %s; it ends when its disk goes on", name)
			r.Kills++
			r.Nodes.list[i].proc.signal(9)
			err = errors.Join(err, r.Sleep(ctx, 2*time.Second))
		}
		r.Note("its disk goes on")
		err = errors.Join(err, disk.goOn())
		if killed {
			r.Nodes.Kill(i)
		}
		return errors.Join(err, restart(ctx, r, false, i), r.Sleep(ctx, time.Second))
	}
}

// othersSilence is how long subscribers waited for records that other nodes coordinated: to those the node whose
// disk hangs is a follower, which must hold nobody up.
func othersSilence(r *Rig, h verify.History) []Figure {
	var longest time.Duration
	for _, m := range r.Marks {
		for _, s := range verify.Silences(h, m.From, m.To) {
			if !slices.Contains(r.Led, s.Partition) {
				longest = max(longest, s.For)
			}
		}
	}
	f := Figure{Name: "longest silence of what other nodes coordinated, while the disk hung", Value: ms(longest).String()}
	if longest > othersLimit {
		f.Breach = fmt.Sprintf("over %v", othersLimit)
	}
	return []Figure{f}
}

// othersLimit is what a busy machine may need of its own.
const othersLimit = 2 * time.Second

// servesNobody checks that a node that hangs or is cut off has sent its clients elsewhere: it has no records for them.
func (r *Rig) servesNobody(ctx context.Context, i int) error {
	s, err := r.Nodes.Status(ctx, i)
	if err != nil {
		return fmt.Errorf("status of %s, which can serve nobody: %w", r.Nodes.Name(i), err)
	}
	r.Note("%s has %d clients", r.Nodes.Name(i), s.Connections)
	if s.Connections > 0 {
		return fmt.Errorf("%s, which can serve nobody, still has %d clients", r.Nodes.Name(i), s.Connections)
	}
	return nil
}

// comesBack starts a node whose disk was damaged. Either it recovers by itself, or it says what to do, and that
// is done.
func comesBack(ctx context.Context, r *Rig, i int) error {
	name := r.Nodes.Name(i)
	r.Note("start %s", name)
	if err := r.Nodes.Start(i); err != nil {
		return err
	}
	if err := r.Nodes.WaitReady(ctx); err == nil {
		r.Note("%s has recovered by itself", name)
		return r.Nodes.Settled(ctx, r.Topic, r.Parts)
	} else if r.Nodes.list[i].proc.running() {
		return err
	}
	return wipedAsTold(ctx, r, i)
}

// refuses starts a node that cannot know what its disk held: it says so and ends, and what it says is done.
func refuses(ctx context.Context, r *Rig, i int) error {
	r.Note("start %s", r.Nodes.Name(i))
	if err := r.Nodes.Start(i); err != nil {
		return err
	}
	return wipedAsTold(ctx, r, i)
}

// gone says whether none of the files is there any more.
func gone(files []string) bool {
	return !slices.ContainsFunc(files, func(f string) bool {
		_, err := os.Stat(f)
		return err == nil
	})
}

// wipedAsTold is for a node that has ended, or is about to, because it cannot read its disk: what its error
// says is to be removed, is.
func wipedAsTold(ctx context.Context, r *Rig, i int) error {
	said, err := r.exits(ctx, i, "corrupt", "stop this node, remove "+r.Nodes.list[i].dir)
	if err != nil {
		return err
	}
	_, what, _ := strings.Cut(said, "stop this node, remove ")
	what, _, _ = strings.Cut(what, " and start it again")
	if rel, err := filepath.Rel(r.Nodes.list[i].dir, what); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s says that %q is to be removed, which is not its own", r.Nodes.Name(i), what)
	}
	r.Note("remove %s", what)
	return errors.Join(os.RemoveAll(what), restart(ctx, r, false, i))
}

// diskFlip flips bytes: first of a node that is down, which reads its whole log when it starts; then of a
// coordinator that runs, which notices when a follower that was away needs what is damaged.
func diskFlip(ctx context.Context, r *Rig) error {
	if err := r.Pause(ctx, 2*time.Second, 4*time.Second); err != nil {
		return err
	}
	i := r.Rand.IntN(r.Nodes.Len())
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	logs, err := raftLogs(r.Nodes.list[i].dir)
	if err != nil {
		return err
	}
	log := logs[r.Rand.IntN(len(logs))]
	used, err := usedBytes(log)
	if err != nil {
		return err
	}
	at := r.Rand.Int64N(used)
	r.Note("flip byte %d of %d in %s", at, used, log)
	if err := errors.Join(flipByte(log, at), r.Pause(ctx, 0, 2*time.Second), comesBack(ctx, r, i)); err != nil {
		return err
	}

	i, err = r.Coordinator(ctx)
	if err != nil {
		return err
	}
	away := (i + 1 + r.Rand.IntN(r.Nodes.Len()-1)) % r.Nodes.Len()
	r.Note("kill %s", r.Nodes.Name(away))
	r.Nodes.Kill(away)
	r.Kills++
	if logs, err = raftLogs(r.Nodes.list[i].dir); err != nil {
		return err
	}
	from := make([]int64, len(logs))
	for k, log := range logs {
		if from[k], err = usedBytes(log); err != nil {
			return err
		}
	}
	// More than the leader keeps in memory, and less than a file of its log.
	if err := r.Load.Burst(ctx, 1800, 10<<10); err != nil {
		return err
	}
	if err := r.Sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	flipped, err := flipWritten(logs, from)
	if err != nil {
		return err
	}
	r.Note("flip a byte in %d groups' logs of %s, which runs", len(flipped), r.Nodes.Name(i))
	r.Note("start %s", r.Nodes.Name(away))
	if err := r.Nodes.Start(away); err != nil {
		return err
	}
	// It leads some of the groups, and is asked for what it cannot read; if it is not, it is at its next start.
	noticed, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	select {
	case <-r.Nodes.list[i].proc.exited:
		r.Note("%s has noticed", r.Nodes.Name(i))
		if err := wipedAsTold(ctx, r, i); err != nil {
			return err
		}
	case <-noticed.Done():
		r.Note("%s has not noticed; SIGTERM", r.Nodes.Name(i))
		if err := r.Nodes.WaitReady(ctx); err != nil {
			return err
		}
		if err := r.Nodes.Stop(i); err != nil {
			return err
		}
		again := refuses // it reads its whole log
		if gone(flipped) {
			again = comesBack // what was damaged is in a snapshot now
		}
		if err := again(ctx, r, i); err != nil {
			return err
		}
	}
	return r.Sleep(ctx, time.Second)
}

// diskTorn leaves a log whose last write did not reach the disk whole: its file is shorter, or its tail zero.
func diskTorn(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	r.Note("kill %s", r.Nodes.Name(i))
	r.Nodes.Kill(i)
	r.Kills++
	logs, err := raftLogs(r.Nodes.list[i].dir)
	if err != nil {
		return err
	}
	for _, log := range logs {
		used, err := usedBytes(log)
		if err != nil {
			return err
		}
		if used < 100 {
			continue // nothing but its head
		}
		cut := used - 1 - r.Rand.Int64N(60)
		if err := os.Truncate(log, cut); err != nil {
			return err
		}
		if r.Rand.IntN(2) == 0 { // the file's length was on disk already
			if err := os.Truncate(log, used+4096); err != nil {
				return err
			}
		}
	}
	r.Note("the last entry of each of its %d logs is cut", len(logs))
	return comesBack(ctx, r, i)
}

// diskSnapshot writes enough for two snapshots, and cuts the newest, then all of those that a node has.
func diskSnapshot(ctx context.Context, r *Rig) error {
	i := r.Rand.IntN(r.Nodes.Len())
	for _, which := range []string{"newest", "all"} {
		if err := r.untilSnapshots(ctx, i, 2); err != nil {
			return err
		}
		r.Note("kill %s", r.Nodes.Name(i))
		r.Nodes.Kill(i)
		r.Kills++
		cut, err := cutSnapshots(r.Nodes.list[i].dir, which == "all")
		if err != nil {
			return err
		}
		r.Note("%d snapshots of %s are cut short: %s of each group", cut, r.Nodes.Name(i), which)
		again := comesBack
		if which == "all" {
			again = refuses // its log begins after what they held
		}
		if err := again(ctx, r, i); err != nil {
			return err
		}
	}
	return r.Sleep(ctx, time.Second)
}

// untilSnapshots writes until a node has so many snapshots of some group.
func (r *Rig) untilSnapshots(ctx context.Context, i, want int) error {
	for range 20 {
		files, err := snapshotFiles(r.Nodes.list[i].dir)
		if err != nil {
			return err
		}
		for _, of := range files {
			if len(of) >= want {
				return nil
			}
		}
		if err := errors.Join(r.Load.Burst(ctx, 350, 100<<10), r.Sleep(ctx, 2*time.Second)); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s has not made %d snapshots", r.Nodes.Name(i), want)
}
