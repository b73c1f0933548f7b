package kafkaio

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

// GroupConfig holds a Group's settings. Client, GroupID, Node and Coordinator are required; zero stands
// for the default elsewhere.
type GroupConfig struct {
	Client  *Client
	GroupID string
	Node    bridge.NodeID
	// Coordinator is the node that coordinates a partition, as far as this node knows.
	Coordinator func(bridge.TopicPartition) (bridge.NodeID, bool)
	// Offsets returns what to commit for the partitions that this node coordinates. Nil: nothing.
	Offsets func() []bridge.CommitOffset
	Log     zerolog.Logger

	SessionTimeout    time.Duration // default 10 s; a broker allows 6 s and more (group.min.session.timeout.ms)
	HeartbeatInterval time.Duration // default 1 s
	CommitInterval    time.Duration // default 1 s
	SettleTime        time.Duration // how long assignment and coordinators may differ; default 3 s
}

// Group keeps this node a member of the consumer group for as long as it is open. The membership does not
// decide who reads (the coordinators do, and at once); it shows to Kafka's tools who reads what and how
// far, and it fences commits: a node that fell out of the group cannot overwrite what others commit.
//
// The assignment follows the coordinators. When a node coordinates a partition that it has not been
// assigned for SettleTime on end, it joins again with changed metadata, which makes the broker rebalance
// without anyone leaving. If that does not help, because the group's leader knows of other coordinators,
// it waits twice as long before it tries again, up to a minute: a cluster in turmoil must not turn it
// into a storm of rebalances.
type Group struct {
	cfg     GroupConfig
	started int64
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	changed chan struct{} // one slot: the topics have changed
	commits *committer

	mu      sync.Mutex
	topics  map[string]int32 // name to number of partitions
	round   uint64
	member  *membership // nil: not in a live generation
	closing bool
	conns   map[*trackedConn]struct{} // of kafka-go's group, which cannot be interrupted otherwise
}

// membership is a live generation.
type membership struct {
	generation int32
	id         string
	assigned   map[bridge.TopicPartition]bool
	since      time.Time
	leave      context.CancelFunc // ends the generation; the member joins again
}

const (
	rebalanceTimeout   = 10 * time.Second
	joinBackoff        = 200 * time.Millisecond
	checkInterval      = 250 * time.Millisecond
	maxSettle          = time.Minute
	groupTimeout       = 5 * time.Second
	topicsSettle       = 200 * time.Millisecond
	finalCommitTimeout = 2 * time.Second
	finalCommitRetry   = 50 * time.Millisecond
)

var _ bridge.OffsetStore = (*Group)(nil)

// NewGroup starts the membership. The node joins as soon as SetTopics has named a topic.
func NewGroup(cfg GroupConfig) (*Group, error) {
	if cfg.Client == nil || cfg.GroupID == "" || cfg.Node == "" || cfg.Coordinator == nil {
		return nil, errors.New("kafkaio: a group needs a client, a group id, a node id and coordinators")
	}
	orDefault := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	orDefault(&cfg.SessionTimeout, 10*time.Second)
	orDefault(&cfg.HeartbeatInterval, time.Second)
	orDefault(&cfg.CommitInterval, time.Second)
	orDefault(&cfg.SettleTime, 3*time.Second)
	if cfg.HeartbeatInterval*3 > cfg.SessionTimeout {
		return nil, errors.New("kafkaio: the group's heartbeat interval must be at most a third of its session timeout")
	}
	g := &Group{
		cfg:     cfg,
		started: time.Now().UnixNano(),
		changed: make(chan struct{}, 1),
		topics:  map[string]int32{},
		conns:   map[*trackedConn]struct{}{},
	}
	g.commits = newCommitter(cfg)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.wg.Add(3)
	go g.run()
	go g.watch()
	go g.commitLoop()
	return g, nil
}

// SetTopics says which topics the group reads and how many partitions each has. It may be called at any
// time; a change of the names makes the node leave and join again.
func (g *Group) SetTopics(topics map[string]int32) {
	g.mu.Lock()
	same := slices.Equal(g.names(), slices.Sorted(maps.Keys(topics)))
	g.topics = maps.Clone(topics)
	g.mu.Unlock()
	if !same {
		kick(g.changed)
	}
}

// names returns the topics, sorted. The mutex is held.
func (g *Group) names() []string { return slices.Sorted(maps.Keys(g.topics)) }

// Assigned returns the partitions that the group has assigned to this node, sorted; joined is false while
// the node is in no live generation.
func (g *Group) Assigned() (tps []bridge.TopicPartition, joined bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == nil {
		return nil, false
	}
	return slices.SortedFunc(maps.Keys(g.member.assigned), compareTP), true
}

// Close commits once more, leaves the group and waits for the group's goroutines. When ctx ends first,
// the connections are cut and the broker finds out by the session timeout. Stop what Offsets reports
// before, so that the last commit is the last state.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		g.wg.Wait()
		return nil
	}
	g.closing = true
	g.mu.Unlock()

	commitCtx, cancel := context.WithTimeout(ctx, finalCommitTimeout)
	err := g.lastCommit(commitCtx)
	cancel()
	g.cancel()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	g.wg.Wait()
	g.commits.close()
	return err
}

// lastCommit commits, if need be after the rebalance that is under way, or when the group's coordinator has moved: when all
// nodes are stopped at once, the first one's leaving ends the generation of the others.
func (g *Group) lastCommit(ctx context.Context) error {
	var last error
	for {
		g.mu.Lock()
		m, member := g.member, len(g.topics) > 0
		g.mu.Unlock()
		if !member || g.cfg.Offsets == nil {
			return nil
		}
		if m != nil {
			last = g.commits.commit(ctx, m, g.cfg.Offsets())
			switch {
			case isFenced(last):
				last = nil
			case !isCoordinatorAway(last):
				return last
			}
		}
		if !nap(ctx, finalCommitRetry) {
			return last // nil when not a member: nothing that could be committed
		}
	}
}

// run is the life as a member: one kafka.ConsumerGroup after another, a new one when the topics change.
// No error ends it.
func (g *Group) run() {
	defer g.wg.Done()
	for g.ctx.Err() == nil {
		g.mu.Lock()
		names := g.names()
		g.mu.Unlock()
		if len(names) == 0 {
			select {
			case <-g.changed:
			case <-g.ctx.Done():
			}
			continue
		}
		cg, err := kafka.NewConsumerGroup(g.groupConfig(names))
		if err != nil {
			g.cfg.Log.Error().Err(err).Msg("consumer group is misconfigured")
			nap(g.ctx, maxSettle)
			continue
		}
		g.serve(cg, names)
		_ = cg.Close() // leaves the group
	}
}

func (g *Group) groupConfig(names []string) kafka.ConsumerGroupConfig {
	return kafka.ConsumerGroupConfig{
		ID:      g.cfg.GroupID,
		Brokers: g.cfg.Client.Brokers(),
		Dialer:  g.dialer(),
		Topics:  names,
		GroupBalancers: []kafka.GroupBalancer{
			&balancer{coordinator: g.cfg.Coordinator, data: g.memberData, topics: g.known},
		},
		HeartbeatInterval: g.cfg.HeartbeatInterval,
		SessionTimeout:    g.cfg.SessionTimeout,
		RebalanceTimeout:  rebalanceTimeout,
		JoinGroupBackoff:  joinBackoff,
		Timeout:           groupTimeout,
	}
}

func (g *Group) known() map[string]int32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.topics)
}

func (g *Group) memberData() memberData {
	g.mu.Lock()
	defer g.mu.Unlock()
	return memberData{Node: g.cfg.Node, Started: g.started, Round: g.round}
}

// serve takes the generations of cg until the topics change or the group is closed. Next is called
// without a pause: an error that nobody takes would keep kafka-go from joining again.
func (g *Group) serve(cg *kafka.ConsumerGroup, names []string) {
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		defer cancel()
		g.untilOtherThan(ctx, names)
	}()
	var lastErr string
	for {
		gen, err := cg.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			lastErr = ""
			g.begin(gen)
		case errors.Is(err, kafka.RebalanceInProgress):
			g.cfg.Log.Debug().Msg("the group is being rebalanced")
		default:
			ev := g.cfg.Log.Debug()
			if s := err.Error(); s != lastErr { // once, not at every attempt
				ev, lastErr = g.cfg.Log.Warn(), s
			}
			ev.Err(err).Str("group", g.cfg.GroupID).Msg("not a member of the consumer group, trying again")
		}
	}
}

// untilOtherThan returns when the topics are others than names, or ctx ends.
func (g *Group) untilOtherThan(ctx context.Context, names []string) {
	for {
		select {
		case <-g.changed:
			nap(ctx, topicsSettle) // several topics often appear at once
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		same := slices.Equal(names, g.names())
		g.mu.Unlock()
		if !same {
			return
		}
	}
}

// begin takes note of a new generation, until it ends.
func (g *Group) begin(gen *kafka.Generation) {
	leave, cancel := context.WithCancel(g.ctx)
	m := &membership{
		generation: gen.ID,
		id:         gen.MemberID,
		assigned:   map[bridge.TopicPartition]bool{},
		since:      time.Now(),
		leave:      cancel,
	}
	for topic, ps := range gen.Assignments {
		for _, p := range ps {
			m.assigned[bridge.TopicPartition{Topic: topic, Partition: int32(p.ID)}] = true
		}
	}
	g.commits.forget()
	g.mu.Lock()
	g.member = m
	g.mu.Unlock()
	g.cfg.Log.Info().Str("group", g.cfg.GroupID).Int32("generation", gen.ID).Int("partitions", len(m.assigned)).
		Msg("joined the consumer group")
	gen.Start(func(ctx context.Context) {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-leave.Done():
		}
		g.mu.Lock()
		if g.member == m {
			g.member = nil
		}
		g.mu.Unlock()
	})
}

// watch compares the assignment with the coordinators and joins again when they stay different.
func (g *Group) watch() {
	defer g.wg.Done()
	var missingSince time.Time
	settle := g.cfg.SettleTime
	for nap(g.ctx, checkInterval) {
		missing, since, leave := g.missing()
		switch {
		case leave == nil: // no generation: the next one brings a new assignment anyway
			missingSince = time.Time{}
			continue
		case missing == 0:
			missingSince, settle = time.Time{}, g.cfg.SettleTime
			continue
		case missingSince.IsZero() || missingSince.Before(since):
			missingSince = time.Now()
			continue
		case time.Since(missingSince) < settle:
			continue
		}
		g.cfg.Log.Info().Str("group", g.cfg.GroupID).Int("partitions", missing).
			Msg("joining the consumer group again for partitions that this node coordinates")
		g.mu.Lock()
		g.round++
		g.mu.Unlock()
		leave()
		missingSince = time.Time{}
		settle = min(2*settle, maxSettle)
	}
}

// missing counts the partitions that this node coordinates and is not assigned. leave is nil outside of
// a generation.
func (g *Group) missing() (n int, since time.Time, leave context.CancelFunc) {
	g.mu.Lock()
	m := g.member
	topics := maps.Clone(g.topics)
	g.mu.Unlock()
	if m == nil {
		return 0, time.Time{}, nil
	}
	for topic, partitions := range topics {
		for i := range partitions {
			tp := bridge.TopicPartition{Topic: topic, Partition: i}
			if node, ok := g.cfg.Coordinator(tp); ok && node == g.cfg.Node && !m.assigned[tp] {
				n++
			}
		}
	}
	return n, m.since, m.leave
}

// nap waits and says whether ctx is still alive.
func nap(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
