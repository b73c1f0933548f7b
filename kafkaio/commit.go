package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"

	"github.com/tidewire/tidewire/bridge"
)

// Offsets are committed and read on a connection of our own to the group's coordinator. kafka-go's
// Client would look the coordinator up for every commit, and would write leader epoch 0 where none is
// meant, which misleads other consumers that take over the group.

// maxMetadata is what a broker takes unless it is configured otherwise (offset.metadata.max.bytes).
const maxMetadata = 4096

const (
	commitTimeout  = 5 * time.Second
	recommitAfter  = 30 * time.Second
	fetchRetryWait = 100 * time.Millisecond
)

// committer talks to the group's coordinator about offsets.
type committer struct {
	cfg  GroupConfig
	slot chan struct{} // held by whoever uses the fields below; one request at a time

	conn   *protocol.Conn // nil: none
	closed bool

	mu       sync.Mutex
	done     map[bridge.TopicPartition]bridge.CommitOffset // committed by this node in this generation
	full     time.Time                                     // when all were last committed
	tooLong  map[bridge.TopicPartition]bool                // told of in the log
	failures int
}

func newCommitter(cfg GroupConfig) *committer {
	return &committer{
		cfg:     cfg,
		slot:    make(chan struct{}, 1),
		done:    map[bridge.TopicPartition]bridge.CommitOffset{},
		tooLong: map[bridge.TopicPartition]bool{},
	}
}

// commitLoop commits once per interval.
func (g *Group) commitLoop() {
	defer g.wg.Done()
	for nap(g.ctx, g.cfg.CommitInterval) {
		ctx, cancel := context.WithTimeout(g.ctx, commitTimeout)
		err := g.CommitNow(ctx)
		cancel()
		if g.ctx.Err() != nil {
			return
		}
		g.commits.report(err)
	}
}

// CommitNow commits what has changed since the last commit. Outside of a live generation, or when the
// generation turns out to be over, it does nothing and returns nil: the next one will do.
func (g *Group) CommitNow(ctx context.Context) error {
	if g.cfg.Offsets == nil {
		return nil
	}
	g.mu.Lock()
	m := g.member
	g.mu.Unlock()
	if m == nil {
		return nil
	}
	err := g.commits.commit(ctx, m, g.cfg.Offsets())
	if isFenced(err) {
		g.cfg.Log.Debug().Err(err).Int32("generation", m.generation).Msg("commit of a past generation is ignored")
		return nil
	}
	return err
}

// Committed implements bridge.OffsetStore. It retries until ctx ends, but for refusals: whoever asks complains of those
// and asks again.
func (g *Group) Committed(ctx context.Context, tps []bridge.TopicPartition) (map[bridge.TopicPartition]bridge.CommitOffset, error) {
	for {
		out, err := g.commits.fetch(ctx, tps)
		if err == nil {
			return out, nil
		}
		final := errors.Is(err, kafka.GroupAuthorizationFailed) || errors.Is(err, kafka.TopicAuthorizationFailed) ||
			errors.Is(err, ErrClosed) || isRefused(err)
		if final || !nap(ctx, fetchRetryWait) {
			return nil, fmt.Errorf("read the committed offsets of group %s: %w", g.cfg.GroupID, err)
		}
	}
}

// forget makes the next commit a full one. Another node may have committed meanwhile.
func (c *committer) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.full = time.Time{}
}

// report logs the first of a row of failures, and the end of the row.
func (c *committer) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && c.failures > 0:
		c.cfg.Log.Info().Int("failures", c.failures).Msg("offsets are committed again")
		c.failures = 0
	case err != nil:
		if c.failures == 0 {
			c.cfg.Log.Warn().Err(err).Str("group", c.cfg.GroupID).Msg("offsets could not be committed, trying again")
		}
		c.failures++
	}
}

// pick returns what is to be committed now: what differs from the last commit, and everything every now
// and then. The latter heals what a former coordinator that did not know of its successor yet has
// written over it.
func (c *committer) pick(all []bridge.CommitOffset) (out []bridge.CommitOffset, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	full = time.Since(c.full) >= recommitAfter
	current := make(map[bridge.TopicPartition]bool, len(all))
	for _, o := range all {
		current[o.TP] = true
		if o.Offset < 0 {
			continue
		}
		if len(o.Metadata) > maxMetadata {
			if !c.tooLong[o.TP] {
				c.tooLong[o.TP] = true
				c.cfg.Log.Error().Stringer("partition", o.TP).Int("bytes", len(o.Metadata)).
					Msg("the offset is not committed: its metadata is over Kafka's limit of 4096 bytes")
			}
			continue
		}
		delete(c.tooLong, o.TP)
		if full || c.done[o.TP] != o {
			out = append(out, o)
		}
	}
	for tp := range c.done {
		if !current[tp] { // coordinated by another node now
			delete(c.done, tp)
			delete(c.tooLong, tp)
		}
	}
	return out, full
}

func (c *committer) commit(ctx context.Context, m *membership, all []bridge.CommitOffset) error {
	offsets, full := c.pick(all)
	if len(offsets) == 0 {
		return nil
	}
	req := &offsetcommit.Request{
		GroupID:         c.cfg.GroupID,
		GenerationID:    m.generation,
		MemberID:        m.id,
		RetentionTimeMs: -1, // the broker's setting
	}
	byTP := make(map[bridge.TopicPartition]bridge.CommitOffset, len(offsets))
	topics := make(map[string]int)
	for _, o := range offsets {
		byTP[o.TP] = o
		i, ok := topics[o.TP.Topic]
		if !ok {
			i = len(req.Topics)
			topics[o.TP.Topic] = i
			req.Topics = append(req.Topics, offsetcommit.RequestTopic{Name: o.TP.Topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, offsetcommit.RequestPartition{
			PartitionIndex:       o.TP.Partition,
			CommittedOffset:      int64(o.Offset),
			CommittedLeaderEpoch: -1,
			CommittedMetadata:    o.Metadata,
		})
	}
	m1, err := c.ask(ctx, req)
	if err != nil {
		return fmt.Errorf("commit offsets: %w", err)
	}
	res, ok := m1.(*offsetcommit.Response)
	if !ok {
		return fmt.Errorf("commit offsets: unexpected answer %T", m1)
	}
	bad := c.record(res, byTP, full)
	c.dropIfMoved(bad)
	return bad
}

// record takes note of what the broker took, and returns an error for what it did not take: that is sent again the next
// time, and alone. A topic that is deleted just then, or that we may not commit for, must not have everything sent each time.
func (c *committer) record(res *offsetcommit.Response, sent map[bridge.TopicPartition]bridge.CommitOffset, full bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bad error
	for tp := range sent {
		delete(c.done, tp)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			tp := bridge.TopicPartition{Topic: t.Name, Partition: p.PartitionIndex}
			if p.ErrorCode != 0 {
				bad = fmt.Errorf("commit the offset of %s: %w", tp, kafka.Error(p.ErrorCode))
			} else if o, ok := sent[tp]; ok {
				c.done[tp] = o
			}
		}
	}
	if full {
		c.full = time.Now()
	}
	return bad
}

func (c *committer) fetch(ctx context.Context, tps []bridge.TopicPartition) (map[bridge.TopicPartition]bridge.CommitOffset, error) {
	out := make(map[bridge.TopicPartition]bridge.CommitOffset, len(tps))
	if len(tps) == 0 {
		return out, nil
	}
	req := &offsetfetch.Request{GroupID: c.cfg.GroupID}
	topics := make(map[string]int)
	for _, tp := range tps {
		i, ok := topics[tp.Topic]
		if !ok {
			i = len(req.Topics)
			topics[tp.Topic] = i
			req.Topics = append(req.Topics, offsetfetch.RequestTopic{Name: tp.Topic})
		}
		req.Topics[i].PartitionIndexes = append(req.Topics[i].PartitionIndexes, tp.Partition)
	}
	m, err := c.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	res, ok := m.(*offsetfetch.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T", m)
	}
	if res.ErrorCode != 0 {
		err := error(kafka.Error(res.ErrorCode))
		c.dropIfMoved(err)
		return nil, err
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			tp := bridge.TopicPartition{Topic: t.Name, Partition: p.PartitionIndex}
			switch {
			case kafka.Error(p.ErrorCode) == kafka.UnknownTopicOrPartition:
			case p.ErrorCode != 0:
				err := fmt.Errorf("%s: %w", tp, kafka.Error(p.ErrorCode))
				c.dropIfMoved(err)
				return nil, err
			case p.CommittedOffset >= 0:
				out[tp] = bridge.CommitOffset{TP: tp, Offset: bridge.Offset(p.CommittedOffset), Metadata: p.Metadata}
			}
		}
	}
	return out, nil
}

// ask sends one request to the group's coordinator. A connection that was open before may have gone
// stale without our knowing, so a failure on it is followed by one attempt on a new one: both kinds of
// request may be repeated.
func (c *committer) ask(ctx context.Context, req protocol.Message) (protocol.Message, error) {
	select {
	case c.slot <- struct{}{}:
		defer func() { <-c.slot }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for {
		if c.closed {
			return nil, ErrClosed
		}
		reused := c.conn != nil
		if !reused {
			conn, err := c.dial(ctx)
			if err != nil {
				return nil, err
			}
			c.conn = conn
		}
		askCtx, cancel := context.WithTimeout(ctx, commitTimeout)
		m, err := RoundTrip(askCtx, c.conn, req)
		cancel()
		if err == nil {
			return m, nil
		}
		c.hangUp()
		if !reused || ctx.Err() != nil {
			return nil, err
		}
	}
}

// dial finds the group's coordinator and connects to it.
func (c *committer) dial(ctx context.Context) (*protocol.Conn, error) {
	conn, err := c.cfg.Client.DialAny(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	askCtx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	m, err := RoundTrip(askCtx, conn, &findcoordinator.Request{Key: c.cfg.GroupID})
	if err != nil {
		return nil, fmt.Errorf("find the group's coordinator: %w", err)
	}
	res, ok := m.(*findcoordinator.Response)
	if !ok {
		return nil, fmt.Errorf("find the group's coordinator: unexpected answer %T", m)
	}
	if res.ErrorCode != 0 {
		return nil, fmt.Errorf("find the group's coordinator: %w", kafka.Error(res.ErrorCode))
	}
	return c.cfg.Client.Dial(ctx, net.JoinHostPort(res.Host, strconv.Itoa(int(res.Port))))
}

func (c *committer) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// dropIfMoved hangs up when err says that the broker does not coordinate the group (any more).
func (c *committer) dropIfMoved(err error) {
	if errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) {
		c.slot <- struct{}{}
		c.hangUp()
		<-c.slot
	}
}

// close hangs up for good.
func (c *committer) close() {
	c.slot <- struct{}{}
	c.closed = true
	c.hangUp()
	<-c.slot
}

// isFenced says that the generation in which a commit was made is over or about to be.
func isFenced(err error) bool {
	return errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId) ||
		errors.Is(err, kafka.RebalanceInProgress)
}

// isCoordinatorAway says that the group's coordinator is not there yet, or no more, and will be.
func isCoordinatorAway(err error) bool {
	return errors.Is(err, kafka.GroupLoadInProgress) || errors.Is(err, kafka.GroupCoordinatorNotAvailable) ||
		errors.Is(err, kafka.NotCoordinatorForGroup)
}
