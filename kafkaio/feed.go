package kafkaio

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/bridge"
)

// Feed reads partitions continuously for the coordinator: a set of brokers, each with the partitions
// that it leads and two connections (lanes, feed_lane.go) on which they are fetched, and a director
// (below) that moves partitions to their leaders.
//
// A partition is asked for by one lane at a time, from the moment it is taken until the sink has what
// came; so its Fetched arrive in order. It is left out while two of its Fetched are open (not yet given
// back by Done), while it backs off after an error, and while its leader is not known. None of these
// concerns its neighbours.
type Feed struct {
	client  *Client
	topics  *Topics
	offsets *Offsets
	sink    bridge.FeedSink
	cfg     FeedConfig
	log     zerolog.Logger

	direct chan struct{} // wakes the director; one slot
	wg     sync.WaitGroup

	mu      sync.Mutex
	parts   map[bridge.TopicPartition]*feedPart
	brokers map[string]*feedBroker
	runs    uint64 // the last run number
	flights uint64 // the last number of a taking
	served  uint64 // the last place in the order of serving
	doubt   bool   // a broker is silent: ask whether it still leads
}

var _ bridge.Feed = (*Feed)(nil)

// FeedConfig tunes a Feed; the zero value is good.
type FeedConfig struct {
	MaxWait time.Duration // how long a broker may wait for a first record; default 500 ms
	Metrics ReadMetrics   // may be nil
}

// ReadMetrics counts what is read from Kafka. Calls come from any goroutine and return at once.
type ReadMetrics interface {
	// Read: records that a consumer sees, and the bytes of the batches they came in, for one fetch.
	Read(topic string, records, bytes int)
	// Failed: a fetch of the topic's partition failed, or brought a broken batch.
	Failed(topic string)
}

const (
	defaultMaxWait = 500 * time.Millisecond
	// maxOpen is how many Fetched of a partition may be with the sink.
	maxOpen = 2
	// Between tries after an error: from minReadBackoff, doubled each time, to maxReadBackoff.
	minReadBackoff = 50 * time.Millisecond
	maxReadBackoff = time.Second
)

func readBackoff(fails int) time.Duration {
	return min(minReadBackoff<<min(max(fails-1, 0), 10), maxReadBackoff)
}

// feedPart is one run of one partition. Starting it again makes a new one, so what a lane still holds
// of the old one is recognised by its address. All fields are guarded by Feed.mu.
type feedPart struct {
	tp    bridge.TopicPartition
	topic bridge.TopicID
	run   uint64
	next  bridge.Offset
	last  bridge.LeaderEpoch // of what was read before next
	open  int                // Fetched that the sink has

	broker   *feedBroker // nil: the leader is not known
	epoch    int32
	flight   uint64 // not 0: a lane has it, under this number
	served   uint64 // when it last brought something; the least goes first
	maxBytes int32

	fails   int       // failures in a row
	failure string    // the last one that was logged
	retryAt time.Time // not before
	seekAt  time.Time // not zero: the leader is in doubt; the director asks for it then
}

func (p *feedPart) ready(now time.Time) bool {
	return p.flight == 0 && p.open < maxOpen && !now.Before(p.retryAt)
}

// NewFeed returns a Feed that reads nothing until Run runs.
func NewFeed(client *Client, topics *Topics, offsets *Offsets, sink bridge.FeedSink, cfg FeedConfig) *Feed {
	if cfg.MaxWait <= 0 {
		cfg.MaxWait = defaultMaxWait
	}
	f := &Feed{
		client:  client,
		topics:  topics,
		offsets: offsets,
		sink:    sink,
		cfg:     cfg,
		log:     client.cfg.Log.With().Str("component", "kafka-feed").Logger(),
		direct:  make(chan struct{}, 1),
		parts:   map[bridge.TopicPartition]*feedPart{},
		brokers: map[string]*feedBroker{},
	}
	topics.OnChange(f.wakeDirector)
	return f
}

// Start begins reading tp, or moves it. See bridge.Feed.
func (f *Feed) Start(tp bridge.TopicPartition, from bridge.FeedStart) (run uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.parts[tp]; old != nil {
		f.moveTo(old, nil)
	}
	f.runs++
	p := &feedPart{tp: tp, topic: from.Topic, run: f.runs, next: from.Next, last: from.Leader, maxBytes: fetchPartitionBytes}
	f.parts[tp] = p
	if !f.seat(p) {
		p.seekAt = time.Now()
		f.wakeDirector()
	}
	return p.run
}

// Stop ends the reading of tp. See bridge.Feed.
func (f *Feed) Stop(tp bridge.TopicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.parts[tp]; p != nil {
		f.drop(p)
	}
}

// Done gives back one Fetched. See bridge.Feed.
func (f *Feed) Done(tp bridge.TopicPartition, run uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.parts[tp]
	if p == nil || p.run != run || p.open == 0 {
		return
	}
	p.open--
	if p.broker != nil && p.ready(time.Now()) {
		p.broker.wake()
	}
}

// Run reads until ctx ends, and returns when all of the Feed's goroutines have ended. It is called once.
func (f *Feed) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer f.wg.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.direct:
		}
		due := f.assign(ctx)
		if due.IsZero() {
			continue
		}
		wait := time.Until(due)
		if wait > 0 {
			timer.Reset(wait)
			continue
		}
		// The error is logged by Topics; partitions without a leader come up again below.
		_ = f.topics.Refresh(ctx)
		f.sought()
		timer.Reset(0)
	}
}

func (f *Feed) wakeDirector() {
	select {
	case f.direct <- struct{}{}:
	default:
	}
}

// assign gives each partition to the broker that leads it, starts the lanes of new brokers and ends
// those of brokers that are gone. It returns when to ask for the leaders again; zero: not needed.
func (f *Feed) assign(ctx context.Context) (due time.Time) {
	addrs := f.topics.BrokerAddrs()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.doubt {
		f.doubt, due = false, time.Now()
	}
	// Connections are opened before there is anything to read: a coordinator that has just been
	// elected finds them ready.
	for _, addr := range addrs {
		f.broker(ctx, addr)
	}
	for _, p := range f.parts {
		if addr, _, ok := f.topics.Leader(p.tp); ok {
			f.broker(ctx, addr)
		}
		if !f.seat(p) && p.seekAt.IsZero() {
			p.seekAt = time.Now()
		}
		if !p.seekAt.IsZero() && (due.IsZero() || p.seekAt.Before(due)) {
			due = p.seekAt
		}
	}
	for addr, b := range f.brokers {
		if len(b.parts) == 0 && !slices.Contains(addrs, addr) {
			b.stop()
			delete(f.brokers, addr)
		}
	}
	return due
}

// broker returns the broker at addr and starts its lanes if it is new; f.mu is held.
func (f *Feed) broker(ctx context.Context, addr string) *feedBroker {
	b := f.brokers[addr]
	if b == nil {
		ctx, cancel := context.WithCancel(ctx)
		b = &feedBroker{addr: addr, stop: cancel, parts: map[*feedPart]struct{}{}}
		for i := range b.lanes {
			l := &lane{feed: f, broker: b, express: i == 1, wake: make(chan struct{}, 1), flights: map[bridge.TopicPartition]flight{}}
			b.lanes[i] = l
			f.wg.Go(func() { l.run(ctx) })
		}
		f.brokers[addr] = b
	}
	return b
}

// seat puts p to its leader's lanes, as far as leader and lanes are known; f.mu is held.
func (f *Feed) seat(p *feedPart) bool {
	addr, epoch, ok := f.topics.Leader(p.tp)
	b := f.brokers[addr]
	if !ok || b == nil {
		f.moveTo(p, nil)
		return false
	}
	if p.broker != b || p.epoch != epoch {
		// What went wrong was with the leader before.
		p.retryAt, p.seekAt = time.Time{}, time.Time{}
	}
	p.epoch = epoch
	f.moveTo(p, b)
	return true
}

// moveTo makes b the broker of p; f.mu is held. What a lane of another broker is still waiting for is
// not awaited: that broker may hang, and the answer is dropped by its number.
func (f *Feed) moveTo(p *feedPart, b *feedBroker) {
	if p.broker == b {
		return
	}
	if p.broker != nil {
		delete(p.broker.parts, p)
		p.flight = 0
	}
	p.broker = b
	if b != nil {
		b.parts[p] = struct{}{}
		b.wake()
	}
}

// drop ends a run; f.mu is held.
func (f *Feed) drop(p *feedPart) {
	f.moveTo(p, nil)
	delete(f.parts, p.tp)
}

// sought notes that the cluster has just been asked for leaders: partitions whose leader is known are
// tried there, the others sought again later, each in its own rhythm.
func (f *Feed) sought() {
	var reports []flight
	f.mu.Lock()
	now := time.Now()
	for _, p := range f.parts {
		if p.seekAt.IsZero() || now.Before(p.seekAt) {
			continue
		}
		if _, _, ok := f.topics.Leader(p.tp); ok {
			p.seekAt = time.Time{}
			continue
		}
		p.fails++
		p.seekAt = now.Add(readBackoff(p.fails))
		if p.failure == "" {
			p.failure = errLeaderless.Error()
			reports = append(reports, flight{p: p, ask: fetchAsk{offset: p.next}})
		}
	}
	f.mu.Unlock()
	for _, r := range reports {
		f.report(r, errLeaderless)
	}
}

// silent notes that a broker is late with an answer. It may be dead without a sign, which its connection
// shows only much later; its partitions are moved as soon as the metadata say who leads them now.
func (f *Feed) silent() {
	f.mu.Lock()
	f.doubt = true
	f.mu.Unlock()
	f.wakeDirector()
}

// failed notes that reading p did not work; f.mu is held. It returns whether to log it: once for each
// kind of failure until it works again.
func (f *Feed) failed(p *feedPart, err error) (report bool) {
	now := time.Now()
	p.fails++
	p.retryAt = now.Add(readBackoff(p.fails))
	if leaderMoved(err) {
		p.seekAt = now
		f.wakeDirector()
	}
	if p.broker != nil {
		p.broker.wake() // for a lane to see retryAt
	}
	text := err.Error()
	report = text != p.failure
	p.failure = text
	return report
}

// outOfRange settles what an OFFSET_OUT_OF_RANGE of a taken partition means; it has a goroutine of its
// own, as asking for the log's ends must not hold up the lane.
func (f *Feed) outOfRange(ctx context.Context, fl flight) {
	lo, err := f.offsets.Earliest(ctx, fl.p.tp)
	var hi bridge.Offset
	if err == nil {
		hi, err = f.offsets.logEnd(ctx, fl.p.tp)
	}
	f.mu.Lock()
	if !f.holds(fl) {
		f.mu.Unlock()
		return
	}
	at := fl.p.next
	if err == nil && (at < lo || at > hi) {
		f.drop(fl.p)
		f.mu.Unlock()
		f.log.Warn().Str("topic", fl.p.tp.Topic).Int32("partition", fl.p.tp.Partition).Int64("offset", int64(at)).
			Int64("log_start", int64(lo)).Int64("log_end", int64(hi)).Msg("offset is outside Kafka's log")
		f.sink.OutOfRange(fl.run, fl.p.tp, at, lo, hi)
		return
	}
	// The log has come to hold it meanwhile (a new leader that was behind), or nobody answered. Or its
	// leader epochs are all lower than what was read last: a topic that was created again, and ids that
	// would tell so are not to be had. Its records are then read on, as those of a log without epochs.
	if err == nil {
		err = errRangeMended
		if fl.p.topic.IsZero() {
			fl.p.last = bridge.NoLeaderEpoch
		}
	}
	fl.p.flight = 0
	report := f.failed(fl.p, err)
	f.mu.Unlock()
	if report {
		f.report(fl, err)
	}
}

// diverged ends a run whose log is not the one that was read.
func (f *Feed) diverged(fl flight, got *fetchGot) {
	f.mu.Lock()
	if !f.holds(fl) {
		f.mu.Unlock()
		return
	}
	f.drop(fl.p)
	f.mu.Unlock()
	f.log.Warn().Str("topic", fl.p.tp.Topic).Int32("partition", fl.p.tp.Partition).Int64("offset", int64(fl.ask.offset)).
		Int32("leader_epoch", int32(fl.ask.last)).Int32("known_epoch", int32(got.leader)).Int64("epoch_end", int64(got.leaderEnd)).
		Msg("Kafka's log was truncated behind what was read")
	f.sink.Diverged(fl.run, fl.p.tp, fl.ask.offset, got.leader, got.leaderEnd)
}

// holds says whether a taking is still the partition's current one; f.mu is held.
func (f *Feed) holds(fl flight) bool {
	return f.parts[fl.p.tp] == fl.p && fl.p.flight == fl.number
}

func (f *Feed) report(fl flight, err error) {
	f.log.Warn().Err(err).Str("topic", fl.p.tp.Topic).Int32("partition", fl.p.tp.Partition).
		Int64("offset", int64(fl.ask.offset)).Msg("cannot read the partition; trying again")
}
