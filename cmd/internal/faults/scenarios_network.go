package faults

import (
	"context"
	"fmt"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cmd/internal/verify"
)

// networkScenarios are those in which packets are lost or late.
func networkScenarios() []Scenario {
	return []Scenario{
		{Name: "partition-node", About: "a coordinator is cut off from the other nodes, and keeps Kafka and its clients",
			Run: repeat(2, isolate(true, func(r *Rig, i int) []string { return r.Others(i) }, 4*time.Second, 12*time.Second))},
		{Name: "partition-all", About: "a coordinator is cut off from nodes and Kafka: it commits nothing, and sends its clients to the others", Slice: true,
			Env: []string{"TIDEWIRE_ISOLATION_GRACE=3s"}, Run: repeat(2, cutOff)},
		{Name: "partition-kafka", About: "a coordinator is cut off from Kafka, and keeps the other nodes", Silence: 6 * time.Second,
			Run: repeat(3, isolate(false, func(r *Rig, i int) []string { return r.Kafka.Hosts() }, 8*time.Second, 12*time.Second))},
		{Name: "partition-broker", About: "a coordinator is cut off from the broker that leads its partition, and keeps the others and the nodes", Silence: 6 * time.Second,
			Run: repeat(3, cutOffLeader)},
		{Name: "one-way", About: "what a coordinator sends to the other nodes is lost; it still hears them", Run: repeat(3, oneWay)},
		{Name: "slow-network", About: "200 ms delay and 5% loss between all nodes", Run: slowNetwork},
		{Name: "flip", About: "a partition that cuts off another node every few seconds", Run: repeat(8, flip)},
	}
}

// isolate cuts a coordinator off from some hosts for a time. It counts as away meanwhile if minority says so.
func isolate(minority bool, from func(r *Rig, i int) []string, least, most time.Duration) step {
	return func(ctx context.Context, r *Rig) error {
		i, err := r.Coordinator(ctx)
		if err != nil {
			return err
		}
		return isolateNode(ctx, r, minority, i, from(r, i), least, most)
	}
}

func isolateNode(ctx context.Context, r *Rig, minority bool, i int, hosts []string, least, most time.Duration) error {
	r.Note("cut %s off from %v", r.Nodes.Name(i), hosts)
	if err := r.Isolate(hosts, minority, i); err != nil {
		return err
	}
	if err := r.Pause(ctx, least, most); err != nil {
		return err
	}
	r.Note("heal")
	if err := r.Rejoin(ctx); err != nil {
		return err
	}
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}

// cutOff cuts a coordinator off from everything but its clients, for longer than it may keep them.
func cutOff(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	hosts := append(r.Others(i), r.Kafka.Hosts()...)
	r.Note("cut %s off from %v", r.Nodes.Name(i), hosts)
	if err := r.Isolate(hosts, true, i); err != nil {
		return err
	}
	if err := r.servedElsewhere(ctx, i); err != nil {
		return err
	}
	if err := r.commitsNothing(ctx, i, func() error { return r.Pause(ctx, time.Second, 4*time.Second) }); err != nil {
		return err
	}
	if err := r.servesNobody(ctx, i); err != nil { // nobody has come back
		return err
	}
	r.Note("heal")
	if err := r.Rejoin(ctx); err != nil {
		return err
	}
	return r.Nodes.Settled(ctx, r.Topic, r.Parts)
}

// elsewhereTime bounds how long the clients of a node that was cut off may take to be somewhere else: the grace, what
// the node needs to know, and the time over which clients come to others.
const elsewhereTime = 20 * time.Second

// servedElsewhere waits until a node takes no clients, has none and all of the load's have their subscriptions.
func (r *Rig) servedElsewhere(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, elsewhereTime)
	defer cancel()
	return poll(ctx, func() error {
		s, err := r.Nodes.Status(ctx, i)
		if err != nil {
			return err
		}
		n := r.Load.Counters()
		if !elsewhere(s, n) {
			return fmt.Errorf("%s was cut off, takes clients: %v, and still has %d; %d of %d subscribers are served", r.Nodes.Name(i), s.Away == "", s.Connections, n.Subscribed, n.Subscribers)
		}
		r.Note("%s has sent its clients away; %d subscribers are served by others", r.Nodes.Name(i), n.Subscribed)
		return nil
	})
}

// elsewhere says whether a node takes no clients, and has none: those that roam may all be elsewhere for a moment. And all
// subscribers are served.
func elsewhere(s bridge.NodeStatus, n verify.Counters) bool {
	return s.Away != "" && s.Connections == 0 && n.Subscribed > 0 && n.NotSubscribed == 0
}

// commitsNothing checks that a node that is cut off comes no farther in any log during a time, and that another one
// does.
func (r *Rig) commitsNothing(ctx context.Context, i int, during func() error) error {
	other := (i + 1) % r.Nodes.Len()
	alone, err := r.Nodes.Applied(ctx, i)
	if err != nil {
		return err
	}
	others, err := r.Nodes.Applied(ctx, other)
	if err != nil {
		return err
	}
	if err := during(); err != nil {
		return err
	}
	switch now, err := r.Nodes.Applied(ctx, i); {
	case err != nil:
		return err
	case now != alone:
		return fmt.Errorf("%s, which was cut off, had applied %d entries and then %d: it commits without a majority", r.Nodes.Name(i), alone, now)
	}
	ctx, cancel := context.WithTimeout(ctx, elsewhereTime)
	defer cancel()
	return poll(ctx, func() error {
		now, err := r.Nodes.Applied(ctx, other)
		if err == nil && now <= others {
			err = fmt.Errorf("%s, which has a majority, has applied no entry after %d", r.Nodes.Name(other), others)
		}
		return err
	})
}

// cutOffLeader cuts the coordinator of a partition off from the broker that leads it.
func cutOffLeader(ctx context.Context, r *Rig) error {
	copies, err := r.Kafka.Copies(ctx, r.Topic)
	if err != nil {
		return err
	}
	by, err := r.Nodes.Coordinators(ctx, r.Topic, r.Parts)
	if err != nil {
		return err
	}
	p := r.Rand.Int32N(int32(r.Parts))
	r.Note("partition %d:", p)
	return isolateNode(ctx, r, false, r.Nodes.Index(by[p]), r.Kafka.Hosts()[copies[p].Leader:][:1], 8*time.Second, 12*time.Second)
}

func oneWay(ctx context.Context, r *Rig) error {
	i, err := r.Coordinator(ctx)
	if err != nil {
		return err
	}
	r.Note("what %s sends to the other nodes is lost", r.Nodes.Name(i))
	r.Nodes.leave(i)
	for _, other := range r.Others(i) {
		if err := r.Net.Impair(r.Nodes.Name(i), other, Impairment{Cut: true}); err != nil {
			return err
		}
	}
	if err := r.Pause(ctx, 3*time.Second, 8*time.Second); err != nil {
		return err
	}
	r.Note("heal")
	return r.Rejoin(ctx)
}

func slowNetwork(ctx context.Context, r *Rig) error {
	r.Note("200 ms delay, 5%% loss between nodes")
	names := r.Nodes.Names()
	for i, a := range names {
		if err := between(r.Net, []string{a}, names[i+1:], Impairment{Delay: 200 * time.Millisecond, Loss: 0.05}); err != nil {
			return err
		}
	}
	if err := r.Sleep(ctx, 20*time.Second); err != nil {
		return err
	}
	r.Note("heal")
	if err := r.Rejoin(ctx); err != nil {
		return err
	}
	return r.Sleep(ctx, 2*time.Second)
}

func flip(ctx context.Context, r *Rig) error {
	i := r.Rand.IntN(r.Nodes.Len())
	r.Note("cut %s off from the other nodes", r.Nodes.Name(i))
	if err := r.Isolate(r.Others(i), true, i); err != nil {
		return err
	}
	if err := r.Pause(ctx, time.Second, 4*time.Second); err != nil {
		return err
	}
	// The next cut may come before this node has found its way back.
	r.Note("heal")
	if err := r.Net.Heal(); err != nil {
		return err
	}
	return r.Nodes.WaitReady(ctx)
}
