package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// Scenario is one way of breaking things.
type Scenario struct {
	Name   string
	Family string // what it is that breaks; set by Scenarios
	About  string // one line, for the report
	Nodes  int    // 3 if zero
	// Spare is how many more there may come to be (Nodes.Join); the load's clients know where.
	Spare int
	// Slice says that it is short enough for the slice that CI takes.
	Slice bool
	// Silence bounds the longest silence of subscribers whose node lives; zero: not judged. Resume does so
	// for the time from a disconnect to the next subscription.
	Silence, Resume time.Duration
	// Partitions of the topic; 6 if zero. Copies of each; 3 if zero. TopicConfig is what else is set.
	Partitions  int
	Copies      int
	TopicConfig map[string]string
	// Load changes what verify does, Env what the nodes are told.
	Load func(*verify.Options)
	Env  []string
	// Disk gives each node a file system of its own of so many bytes, which can be filled; with DiskHangs
	// it can also be made to hang. Zero: a folder.
	Disk      int64
	DiskHangs bool
	// Old starts all nodes with an earlier build.
	Old bool
	// Settle is how long subscribers may take to reach Kafka's end afterwards; a minute if zero.
	Settle time.Duration
	// Run breaks things, while the load goes on, and mends them again.
	Run func(ctx context.Context, r *Rig) error
	// Measure makes figures of the history, if not nil, as rows for the report.
	Measure func(r *Rig, h verify.History) []Figure
}

// Figure is a number that a scenario measured.
type Figure struct {
	Name, Value string
	Breach      string // not empty: the limit that it is over
}

// Rig is what a scenario works on.
type Rig struct {
	Net    Network
	Kafka  *Kafka
	Nodes  *Nodes
	Load   *verify.Driver
	Topic  string
	Parts  int
	Rand   *rand.Rand // seeded: everything that a scenario chooses comes from here
	Events []Event
	Marks  []Mark
	Led    []string // the partitions that a node coordinated when it was broken, as verify names them
	Kills  int      // processes killed
	tell   func(format string, args ...any)
}

// Event is something that a scenario did, on the history's clock.
type Event struct {
	At   time.Duration
	What string
}

// Mark is a time of which the longest silence is of interest.
type Mark struct {
	Kind     string
	From, To time.Duration
}

// Note records what is about to be done.
func (r *Rig) Note(format string, args ...any) {
	e := Event{r.Load.Now(), fmt.Sprintf(format, args...)}
	r.Events = append(r.Events, e)
	r.tell("    %7.2fs %s", e.At.Seconds(), e.What)
}

// Sleep lets the load run for a while.
func (r *Rig) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Pause sleeps for a time between two bounds, as the seed says.
func (r *Rig) Pause(ctx context.Context, from, to time.Duration) error {
	return r.Sleep(ctx, from+time.Duration(r.Rand.Int64N(int64(to-from))))
}

// Coordinator returns the number of a node that coordinates a partition chosen by the seed.
func (r *Rig) Coordinator(ctx context.Context) (int, error) {
	by, err := r.Nodes.Coordinators(ctx, r.Topic, r.Parts)
	if err != nil {
		return 0, err
	}
	return r.Nodes.Index(by[r.Rand.Int32N(int32(r.Parts))]), nil
}

// Some returns k different nodes, as the seed says.
func (r *Rig) Some(k int) []int { return r.Rand.Perm(r.Nodes.Len())[:k] }

// Others returns the names of all nodes but these.
func (r *Rig) Others(but ...int) []string {
	var out []string
	for i, n := range r.Nodes.Names() {
		if !slices.Contains(but, i) {
			out = append(out, n)
		}
	}
	return out
}

// Isolate cuts nodes off from other hosts, both ways; Driver's clients still reach them. They count as away
// if minority says so, until Rejoin.
func (r *Rig) Isolate(from []string, minority bool, nodes ...int) error {
	for _, i := range nodes {
		if minority {
			r.Nodes.leave(i)
		}
		if err := cutBoth(r.Net, []string{r.Nodes.Name(i)}, from); err != nil {
			return err
		}
	}
	return nil
}

// Rejoin makes the network whole.
func (r *Rig) Rejoin(ctx context.Context) error {
	if err := r.Net.Heal(); err != nil {
		return err
	}
	return r.Nodes.WaitReady(ctx)
}
