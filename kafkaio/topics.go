package kafkaio

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// Topics knows the cluster as its metadata tells: which topics we concern ourselves with, how many
// partitions they have, and who leads each. One goroutine (Run) asks every Interval, and at once when
// somebody who met a wrong leader calls Refresh; everybody else reads what it found.
type Topics struct {
	cfg    TopicsConfig
	client *Client
	log    zerolog.Logger

	wake chan struct{} // to Run: there are waiters; one slot

	mu      sync.Mutex
	closed  bool
	waiters []chan error // of Refresh, for the next answer
	leaders map[bridge.TopicPartition]leaderInfo
	ids     map[string]bridge.TopicID // of the topics in the last answer
	brokers []string                  // addresses of all brokers in the last answer
	changed []func()                  // told after each answer

	// Owned by Run.
	conn    *wire
	version int16
	turn    int // counts the dialling
	topics  map[string]topicState
	initial map[string]bridge.TopicID // nil before the first answer
	told    map[string]bridge.TopicMeta
	failing bool
	refused bool      // what was complained of last was that Kafka refuses us
	toldAt  time.Time // when that was
}

var _ bridge.TopicIDs = (*Topics)(nil)

// TopicsConfig says which topics matter. Listener may be nil; it is called by Run's goroutine and must
// not call Refresh.
type TopicsConfig struct {
	Expose   Selectors     // TIDEWIRE_KAFKA_TOPICS
	Publish  Selectors     // TIDEWIRE_KAFKA_PUBLISH_TOPICS
	Interval time.Duration // between questions; default 5 s
	Listener bridge.TopicListener
}

const (
	defaultTopicsInterval = 5 * time.Second
	// minRefresh is the least time between two questions, however many ask for it.
	minRefresh = 50 * time.Millisecond
	// maxMisses: a topic that this many answers in a row do not hold is gone. One is not enough: a
	// broker that has just started, or lags, knows fewer topics.
	maxMisses = 2
	// maxStale: after so many answers in a row with an older leader epoch the old one is believed
	// after all (a cluster restored from a backup).
	maxStale = 20
	// dialPatience is how long one broker may take to be connected to while others are left to try,
	// metadataTimeout how long it may take to answer.
	dialPatience    = 1500 * time.Millisecond
	metadataTimeout = 3 * time.Second
	// complainEvery is how often it is said that Kafka cannot be asked.
	complainEvery = time.Minute
)

type leaderInfo struct {
	addr  string // empty: no leader now
	epoch int32
	id    bridge.TopicID
	stale int // answers in a row with an older epoch
}

type topicState struct {
	id         bridge.TopicID
	partitions int32
	internal   bool
	misses     int
}

// NewTopics returns Topics that know nothing until Run runs.
func NewTopics(client *Client, cfg TopicsConfig) *Topics {
	if cfg.Interval <= 0 {
		cfg.Interval = defaultTopicsInterval
	}
	return &Topics{
		cfg:     cfg,
		client:  client,
		log:     client.cfg.Log.With().Str("component", "kafka-topics").Logger(),
		wake:    make(chan struct{}, 1),
		leaders: map[bridge.TopicPartition]leaderInfo{},
		topics:  map[string]topicState{},
		told:    nil,
	}
}

// Run asks for metadata until ctx ends. It never gives up: Kafka may be away for as long as it likes.
func (t *Topics) Run(ctx context.Context) {
	defer t.finish()
	wait := time.Duration(0)
	backoff := minRefresh
	for {
		if !t.pause(ctx, wait) {
			return
		}
		waiters := t.takeWaiters()
		err := t.ask(ctx)
		for _, w := range waiters {
			w <- err
		}
		if err == nil {
			wait, backoff = t.cfg.Interval, minRefresh
			t.tell()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait, backoff = backoff, min(2*backoff, time.Second)
	}
}

// pause waits for d, or less when somebody asks for a refresh, but never less than minRefresh after the
// first time. It returns false when ctx has ended.
func (t *Topics) pause(ctx context.Context, d time.Duration) bool {
	sleep := func(d time.Duration, wake <-chan struct{}) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		case <-wake:
		}
		return true
	}
	if d == 0 {
		return ctx.Err() == nil
	}
	return sleep(minRefresh, nil) && (d <= minRefresh || sleep(d-minRefresh, t.wake))
}

func (t *Topics) takeWaiters() []chan error {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.wake: // those who sent it are among the waiters taken here
	default:
	}
	w := t.waiters
	t.waiters = nil
	return w
}

func (t *Topics) finish() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
	t.mu.Lock()
	t.closed = true
	waiters := t.waiters
	t.waiters = nil
	t.mu.Unlock()
	for _, w := range waiters {
		w <- ErrClosed
	}
}

// Refresh returns when the cluster has been asked anew after the call, with the error of that. Any
// number of callers share a question.
func (t *Topics) Refresh(ctx context.Context) error {
	ch := make(chan error, 1)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return ErrClosed
	}
	t.waiters = append(t.waiters, ch)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-ch:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leader is the address of the partition's leader and its leader epoch (-1 when unknown). ok is false
// when there is none that we know of.
func (t *Topics) Leader(tp bridge.TopicPartition) (addr string, epoch int32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.leaders[tp]
	return l.addr, l.epoch, ok && l.addr != ""
}

// eachLeader calls f with each partition that has a leader, and that one's address. f must not call Topics.
func (t *Topics) eachLeader(f func(tp bridge.TopicPartition, addr string)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tp, l := range t.leaders {
		if l.addr != "" {
			f(tp, l.addr)
		}
	}
}

// TopicID asks Kafka which topic a name stands for now; the name must be one that the selectors match.
// The error is kafka.UnknownTopicOrPartition when there is no such topic. See bridge.TopicIDs.
func (t *Topics) TopicID(ctx context.Context, topic string) (bridge.TopicID, error) {
	if err := t.Refresh(ctx); err != nil {
		return bridge.TopicID{}, fmt.Errorf("ask for the id of topic %s: %w", topic, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	id, ok := t.ids[topic]
	if !ok {
		return bridge.TopicID{}, fmt.Errorf("ask for the id of topic %s: %w", topic, kafkaError(topicMissing))
	}
	return id, nil
}

// BrokerAddrs are the addresses of all brokers in the last answer.
func (t *Topics) BrokerAddrs() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.brokers)
}

// OnChange registers fn, to be called by Run's goroutine after each answer. fn returns at once.
func (t *Topics) OnChange(fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed = append(t.changed, fn)
}

// ask asks once, on the connection that is open or a new one, and takes the answer in.
func (t *Topics) ask(ctx context.Context) error {
	fresh := t.conn == nil
	err := t.askOnce(ctx)
	if err != nil && !fresh && ctx.Err() == nil {
		err = t.askOnce(ctx) // the old connection had died; that says nothing about the cluster
	}
	switch {
	case err == nil && t.failing:
		t.failing = false
		t.log.Info().Msg("Kafka's metadata can be read again")
	case err != nil && ctx.Err() == nil:
		t.complain(err)
	}
	return err
}

// complain logs that Kafka cannot be asked: when that begins, when Kafka begins to refuse us, which somebody has to mend,
// or ends it, and every minute. It is done here, as everything else that needs Kafka may have nothing to do just then.
func (t *Topics) complain(err error) {
	refused := isRefused(err)
	if t.failing && refused == t.refused && time.Since(t.toldAt) < complainEvery {
		return
	}
	t.failing, t.refused, t.toldAt = true, refused, time.Now()
	if refused {
		t.log.Error().Err(err).Msg("Kafka refuses this node's credentials, trying again")
		return
	}
	t.log.Warn().Err(err).Msg("cannot read Kafka's metadata, trying again")
}

func (t *Topics) askOnce(ctx context.Context) (err error) {
	defer func() {
		if err != nil && t.conn != nil {
			t.conn.Close()
			t.conn = nil
		}
	}()
	fresh := t.conn == nil
	if fresh {
		if t.conn, err = t.dial(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	if fresh {
		if t.version, err = t.conn.metadataVersion(ctx); err != nil {
			return err
		}
	}
	m, err := t.conn.metadata(ctx, t.version, t.names())
	if err != nil {
		return err
	}
	t.take(m)
	return nil
}

// dial reaches any broker: those of the last answer and the bootstrap ones, in turn, starting behind the
// one that was used last, as that one may be why there is a new connection to make. A host that is
// silent costs dialPatience; only if none is quicker are they all given the whole dial timeout.
func (t *Topics) dial(ctx context.Context) (*wire, error) {
	addrs := t.BrokerAddrs()
	for _, addr := range t.client.Brokers() {
		if !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	for range addrs {
		t.turn++
		short, cancel := context.WithTimeout(ctx, dialPatience)
		w, err := openWire(short, t.client, addrs[t.turn%len(addrs)])
		cancel()
		if err == nil {
			return w, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return openWire(ctx, t.client, "")
}

// names is what to ask for: nil for all topics, as patterns have to see them.
func (t *Topics) names() []string {
	if len(t.cfg.Expose.patterns)+len(t.cfg.Publish.patterns) > 0 {
		return nil
	}
	all := maps.Clone(t.cfg.Expose.names)
	if all == nil {
		all = map[string]bool{}
	}
	maps.Copy(all, t.cfg.Publish.names)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// take updates what is known from an answer.
func (t *Topics) take(m clusterMeta) {
	first := t.initial == nil
	if first {
		t.initial = map[string]bridge.TopicID{}
	}
	seen := map[string]bool{}
	t.mu.Lock()
	t.brokers = t.brokers[:0]
	for _, addr := range m.brokers {
		t.brokers = append(t.brokers, addr)
	}
	slices.Sort(t.brokers)
	t.ids = make(map[string]bridge.TopicID, len(m.topics))
	for _, a := range m.topics {
		if a.code == topicMissing || !t.wanted(a) {
			continue
		}
		seen[a.name] = true
		t.ids[a.name] = a.id
		if first {
			t.initial[a.name] = a.id
		}
		if a.code == 0 || len(a.partitions) > 0 {
			t.takeTopic(a, m.brokers)
		}
	}
	for name, s := range t.topics {
		if seen[name] {
			continue
		}
		if s.misses++; s.misses < maxMisses {
			t.topics[name] = s
			continue
		}
		delete(t.topics, name)
		for p := range s.partitions {
			delete(t.leaders, bridge.TopicPartition{Topic: name, Partition: p})
		}
	}
	changed := slices.Clone(t.changed)
	t.mu.Unlock()
	for _, fn := range changed {
		fn()
	}
}

func (t *Topics) wanted(a topicAnswer) bool {
	return t.cfg.Expose.Match(a.name, a.internal) || t.cfg.Publish.Match(a.name, a.internal)
}

// takeTopic updates one topic; t.mu is held.
func (t *Topics) takeTopic(a topicAnswer, brokers map[int32]string) {
	s, known := t.topics[a.name]
	if known && s.id != a.id {
		for p := range s.partitions {
			delete(t.leaders, bridge.TopicPartition{Topic: a.name, Partition: p})
		}
		known = false
	}
	if !known {
		s = topicState{id: a.id, internal: a.internal}
	}
	s.misses = 0
	for _, p := range a.partitions {
		if p.index < 0 || p.index >= maxPartitions {
			continue
		}
		// Partitions are only ever added, so a smaller number comes from a broker that lags.
		s.partitions = max(s.partitions, p.index+1)
		tp := bridge.TopicPartition{Topic: a.name, Partition: p.index}
		l := leaderInfo{addr: brokers[p.leader], epoch: p.epoch, id: a.id}
		old, had := t.leaders[tp]
		if had && !a.id.IsZero() && old.id == a.id && p.epoch < old.epoch && old.stale < maxStale {
			old.stale++
			l = old
		}
		t.leaders[tp] = l
	}
	t.topics[a.name] = s
}

// maxPartitions bounds the partitions of a topic that are believed.
const maxPartitions = 1 << 17

// tell calls the listener if the set has changed since the last time.
func (t *Topics) tell() {
	now := make(map[string]bridge.TopicMeta, len(t.topics))
	for name, s := range t.topics {
		id, initial := t.initial[name]
		// Created again under its name, a topic is a new one.
		initial = initial && (id == s.id || id.IsZero())
		now[name] = bridge.TopicMeta{
			ID:         s.id,
			Partitions: s.partitions,
			Exposed:    t.cfg.Expose.Match(name, s.internal),
			Publish:    t.cfg.Publish.Match(name, s.internal),
			Initial:    initial,
		}
	}
	if t.told != nil && maps.Equal(now, t.told) {
		return
	}
	t.told = now
	t.log.Info().Int("topics", len(now)).Msg("topics changed")
	if t.cfg.Listener != nil {
		t.cfg.Listener(maps.Clone(now))
	}
}
