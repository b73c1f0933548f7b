package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// kafkaElectionScenarios are those in which a role in Kafka goes to another broker, or to somebody who should not
// have it.
func kafkaElectionScenarios() []Scenario {
	return []Scenario{
		{Name: "controller-failover", About: "the broker that is Kafka's active controller is killed with −9 and started again", Run: repeat(3, controllerFailover)},
		{Name: "group-coordinator", About: "the broker that coordinates the nodes' consumer group is stopped or killed", Run: repeat(3, groupCoordinator)},
		{Name: "group-stranger", About: "an ordinary consumer joins the nodes' consumer group, beside them and while they are all dead", Run: groupStranger},
		{Name: "unclean-election", About: "a broker that missed records becomes the leader: Kafka loses what it had acknowledged", Copies: 2,
			TopicConfig: map[string]string{"min.insync.replicas": "1", "unclean.leader.election.enable": "true"},
			// Little is cached, so that many are fed from Kafka while it is another log than was read.
			Env: []string{"TIDEWIRE_CACHE_BYTES=1MiB"},
			// A transaction whose end is lost hangs for ever, and with it all who read what is committed.
			Load: func(o *verify.Options) { o.TxnRate = -1 },
			Run:  repeat(2, uncleanElection), Measure: acknowledgedAndLost},
	}
}

func controllerFailover(ctx context.Context, r *Rig) error {
	i, err := r.Kafka.Controller(ctx)
	if err != nil {
		return err
	}
	r.Note("kill k%d, the controller", i+1)
	r.Kafka.Kill(i)
	if err := r.Pause(ctx, 0, 6*time.Second); err != nil {
		return err
	}
	r.Note("start it")
	return errors.Join(r.Kafka.Start(i), r.Kafka.WaitReady(ctx))
}

func groupCoordinator(ctx context.Context, r *Rig) error {
	group := r.Nodes.Group()
	if err := r.Kafka.WaitCommits(ctx, group, r.Topic, r.Parts); err != nil {
		return err
	}
	i, err := r.Kafka.GroupCoordinator(ctx, group)
	if err != nil {
		return err
	}
	if r.Rand.IntN(2) == 0 {
		r.Note("stop k%d, the group's coordinator", i+1)
		r.Kafka.Stop(i)
	} else {
		r.Note("kill k%d, the group's coordinator", i+1)
		r.Kafka.Kill(i)
	}
	err = poll(ctx, func() error {
		j, err := r.Kafka.GroupCoordinator(ctx, group)
		if err == nil && j == i {
			err = errors.New("the group's coordinator has not moved")
		}
		return err
	})
	if err != nil {
		return err
	}
	r.Note("it has moved")
	if err := r.Kafka.WaitCommits(ctx, group, r.Topic, r.Parts); err != nil {
		return err
	}
	r.Note("the group commits again; start the broker")
	return errors.Join(r.Kafka.Start(i), r.Kafka.WaitReady(ctx))
}

// stranger is an ordinary member of a consumer group, which polls and commits as such members do, with the
// strategies that Kafka's own consumers offer.
func (r *Rig) stranger(ctx context.Context, group string) (leave func(), err error) {
	addrs, err := r.Kafka.Addrs(Driver)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(r.Topic), kgo.SessionTimeout(10*time.Second),
		kgo.Balancers(kgo.RangeBalancer(), kgo.CooperativeStickyBalancer()), kgo.AutoCommitInterval(200*time.Millisecond))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			cl.PollFetches(ctx)
		}
	})
	return func() { cancel(); wg.Wait(); cl.Close() }, nil
}

// groupStranger has a stranger knock while the nodes are there, and come in while they are not: they find a
// group whose members speak another protocol, and commits that are not theirs.
func groupStranger(ctx context.Context, r *Rig) error {
	group := r.Nodes.Group()
	if err := r.Kafka.WaitCommits(ctx, group, r.Topic, r.Parts); err != nil {
		return err
	}
	r.Note("a stranger joins")
	leave, err := r.stranger(ctx, group)
	if err != nil {
		return err
	}
	defer func() { leave() }()
	if err := errors.Join(r.Sleep(ctx, 5*time.Second), r.Kafka.WaitCommits(ctx, group, r.Topic, r.Parts)); err != nil {
		return err
	}
	r.Note("the nodes commit beside it; stop all nodes")
	for i := range r.Nodes.Len() {
		if err := r.Nodes.Stop(i); err != nil {
			return err
		}
	}
	// It is let in, for nobody else is there, and commits as it reads.
	err = poll(ctx, func() error {
		_, epochs, err := r.Kafka.Committed(ctx, group, r.Topic, r.Parts)
		if err == nil && epochs > 0 {
			err = errors.New("the stranger has not committed everywhere")
		}
		return err
	})
	if err != nil {
		return err
	}
	r.Note("the stranger has the group to itself; start all nodes")
	all := make([]int, r.Nodes.Len())
	for i := range all {
		all[i] = i
	}
	if err := restart(ctx, r, false, all...); err != nil {
		return err
	}
	if err := r.Pause(ctx, 3*time.Second, 6*time.Second); err != nil {
		return err
	}
	r.Note("the stranger leaves")
	leave()
	leave = func() {}
	if err := r.Kafka.WaitCommits(ctx, group, r.Topic, r.Parts); err != nil {
		return err
	}
	r.Note("the group is the nodes' again")
	return nil
}

// uncleanElection has one of two brokers miss what the other takes, and then makes it the leader.
func uncleanElection(ctx context.Context, r *Rig) error {
	copies, err := r.Kafka.Copies(ctx, r.Topic)
	if err != nil {
		return err
	}
	p := r.Rand.Int32N(int32(r.Parts))
	leader := copies[p].Leader
	behind := copies[p].On[0]
	if behind == leader {
		behind = copies[p].On[1]
	}
	// What is acknowledged while both are in sync is on both.
	ends, err := r.Kafka.End(ctx, r.Topic, r.Parts)
	if err != nil {
		return err
	}
	r.Note("kill k%d; k%d has partition %d for itself", behind+1, leader+1, p)
	r.Kafka.Kill(behind)
	if err := r.Kafka.WaitCopies(ctx, r.Topic, p, func(c Copies) bool { return slices.Equal(c.InSync, []int{leader}) }); err != nil {
		return err
	}
	if err := r.Pause(ctx, time.Second, 3*time.Second); err != nil {
		return err
	}
	taken, err := r.Kafka.End(ctx, r.Topic, r.Parts)
	if err != nil {
		return err
	}
	over := map[int32]func(){}
	for q, c := range copies {
		if slices.Contains(c.On, leader) && slices.Contains(c.On, behind) {
			over[q] = r.Load.Removing(verify.Removal{Partition: verify.Partition{Topic: r.Topic, Index: q}, Kind: verify.Truncated, From: ends[q], To: taken[q] + growth})
		}
	}
	i := r.Rand.IntN(r.Nodes.Len())
	r.Note("kill k%d and %s, start k%d: what was written meanwhile is lost", leader+1, r.Nodes.Name(i), behind+1)
	r.Nodes.Kill(i)
	r.Kills++
	r.Kafka.Kill(leader)
	if err := r.Kafka.Start(behind); err != nil {
		return err
	}
	for q, f := range over {
		if err := r.Kafka.WaitCopies(ctx, r.Topic, q, func(c Copies) bool { return c.Leader == behind }); err != nil {
			return err
		}
		f()
	}
	r.Note("k%d leads", behind+1)
	if err := restart(ctx, r, r.Rand.IntN(2) == 0, i); err != nil { // it fills its cache from what is there now
		return err
	}
	if err := r.Pause(ctx, 0, 3*time.Second); err != nil {
		return err
	}
	r.Note("start k%d", leader+1)
	return errors.Join(r.Kafka.Start(leader), r.Kafka.WaitReady(ctx), r.Sleep(ctx, 2*time.Second))
}

// acknowledgedAndLost counts what Kafka lost. A run in which it lost nothing shows nothing.
func acknowledgedAndLost(_ *Rig, h verify.History) []Figure {
	held := map[verify.Partition]map[int64]string{}
	for _, k := range h.Kafka {
		if held[k.Partition] == nil {
			held[k.Partition] = map[int64]string{}
		}
		held[k.Partition][k.Offset] = k.ID
	}
	lost := 0
	for _, w := range h.Written {
		if w.Outcome == verify.Committed && held[w.Partition][w.Offset] != w.ID {
			lost++
		}
	}
	f := Figure{Name: "records that Kafka had acknowledged and lost", Value: fmt.Sprint(lost)}
	if lost == 0 {
		f.Breach = "the election lost nothing"
	}
	return []Figure{f}
}
