package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	tidewire "github.com/tidewire/tidewire/clients/go"
)

// Driver loads a cluster and records what happens. New makes it, Run runs it once; the other methods may
// be called from any goroutine meanwhile.
type Driver struct {
	o        Options
	run      string // in every identity, so that runs on one topic do not meet
	began    time.Time
	counters counters
	bursts   atomic.Int64
	writes   writes
	loading  chan struct{} // closed when all subscriptions are made and the load begins
	failed   chan error    // one slot: the run cannot go on

	mu         sync.Mutex
	recorders  []*recorder
	publishers []*publisher
	away       []Away
	removed    []Removal
	strings    map[string]string
}

// Errors of Run, besides those of the options.
var (
	// ErrNotSubscribed: the cluster did not take all subscriptions at the beginning.
	ErrNotSubscribed = errors.New("not all subscriptions could be made")
	// ErrRefused: the cluster refused an op in a way that waiting does not mend.
	ErrRefused = errors.New("refused")
)

// New checks the options; the error is ErrOptions.
func New(o Options) (*Driver, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Driver{o: o, run: strconv.FormatUint(rand.Uint64()>>32, 36), began: time.Now(), loading: make(chan struct{}),
		failed: make(chan error, 1), strings: map[string]string{}}, nil
}

// Run drives a cluster as the options say, until their duration is over or ctx ends, lets the subscribers
// reach Kafka's end, and returns what was recorded. With an error of the recording's end (Kafka could not be
// read back) the history is returned as far as it goes, and not settled.
func Run(ctx context.Context, o Options) (History, error) {
	d, err := New(o)
	if err != nil {
		return History{}, err
	}
	return d.Run(ctx)
}

// Seed returns the seed of the run's choices.
func (d *Driver) Seed() uint64 { return d.o.Seed }

// Now returns the time on the history's clock.
func (d *Driver) Now() time.Duration { return time.Since(d.began) }

// Counters returns what was done so far.
func (d *Driver) Counters() Counters { return d.counters.read() }

// Loading is closed when all subscriptions are made and the load begins.
func (d *Driver) Loading() <-chan struct{} { return d.loading }

// intern keeps one copy of a string that comes again and again.
func (d *Driver) intern(s string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if kept, ok := d.strings[s]; ok {
		return kept
	}
	d.strings[s] = s
	return s
}

// fail ends the run.
func (d *Driver) fail(err error) {
	select {
	case d.failed <- fmt.Errorf("%w: %w", ErrRefused, err):
	default:
	}
}

// rng returns the source of random choices of one part.
func (d *Driver) rng(part uint64) *rand.Rand { return rand.New(rand.NewPCG(d.o.Seed, part)) }

// subscribeTime bounds the making of all subscriptions at the beginning: a topic that was just created has
// yet to be noticed by the cluster.
const subscribeTime = time.Minute

// Run is what the package's Run does. It may be called once.
func (d *Driver) Run(ctx context.Context) (History, error) {
	o := &d.o
	before, err := d.prepare(ctx)
	if err != nil {
		return History{}, err
	}
	// Three lives: of what makes load, of what finishes it, and of the subscribers, who go last.
	load, endLoad := context.WithCancel(ctx)
	defer endLoad()
	finishing, endFinishing := context.WithCancel(context.Background())
	defer endFinishing()
	recording, endRecording := context.WithCancel(context.Background())
	defer endRecording()
	var loaders, recorders sync.WaitGroup
	defer func() { endRecording(); recorders.Wait() }()
	defer func() { endLoad(); endFinishing(); loaders.Wait() }()

	d.subscribers(func(r *recorder) { recorders.Go(func() { r.run(recording) }) })
	o.Progress("waiting for %d subscriptions at %v", len(d.recorders), o.Nodes)
	if err := d.awaitSubscriptions(ctx); err != nil {
		return History{}, err
	}
	o.Progress("load for %s: %d records/s to Kafka, %d publishes/s, seed %d", o.Duration, o.Rate, o.PublishRate, o.Seed)
	close(d.loading)
	tx := min(max(0, o.TxnRate), max(0, o.Rate))
	if o.Rate > tx {
		loaders.Go(func() { d.produce(load, "w", o.Rate-tx, d.rng(1)) })
	}
	if tx > 0 {
		loaders.Go(func() { d.transact(load, "t", tx, d.rng(2)) })
	}
	for i := range max(0, o.Publishers) {
		p := &publisher{d: d, name: fmt.Sprintf("p%d", i), rng: d.rng(100 + uint64(i)), node: i}
		if i == 1 {
			if p.lib, err = tidewire.New(tidewire.Config{Nodes: o.Nodes, Token: o.Token}); err != nil {
				return History{}, fmt.Errorf("%w: %w", ErrOptions, err)
			}
			defer func() { _ = p.lib.Close() }() // all publishes have ended by then
		}
		d.mu.Lock()
		d.publishers = append(d.publishers, p)
		d.mu.Unlock()
		rate := o.PublishRate / o.Publishers
		if i < o.PublishRate%o.Publishers {
			rate++
		}
		if rate > 0 {
			loaders.Go(func() { p.run(load, finishing, rate) })
		}
	}
	if o.CutEvery > 0 {
		var roamers []*recorder
		for _, r := range d.recorders { // those that come for the history are added from here on
			if !r.pinned {
				roamers = append(roamers, r)
			}
		}
		loaders.Go(func() { d.cutAtRandom(load, roamers, d.rng(3)) })
	}
	for i := range max(0, o.Histories) {
		for _, topic := range o.Topics {
			loaders.Go(func() { d.histories(load, topic, i) })
		}
	}
	timer := time.NewTimer(o.Duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		o.Progress("ended early; what there is will be judged")
	case err = <-d.failed:
		return History{}, err
	}

	// Everything below is bounded by Settle, half of which publishes may take to get their answer.
	deadline := time.Now().Add(o.Settle)
	o.Progress("load ended; waiting up to %s for every subscriber to reach Kafka's end", o.Settle)
	endLoad()
	giveUp := time.AfterFunc(o.Settle/2, endFinishing)
	loaders.Wait()
	giveUp.Stop()
	d.mu.Lock()
	for _, r := range d.recorders {
		if r.pace != nil {
			r.pace.rate.Store(0)
		}
	}
	d.mu.Unlock()
	h, err := d.settle(before, deadline)
	endRecording()
	recorders.Wait()
	d.collect(&h)
	return h, err
}

// prepare makes the topics if it is to, and remembers their state.
func (d *Driver) prepare(ctx context.Context) (map[string]*topicState, error) {
	ctx, cancel := context.WithTimeout(ctx, subscribeTime)
	defer cancel()
	cl, err := d.kafkaClient()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
	}
	defer cl.Close()
	if d.o.Create {
		if err := d.createTopics(ctx, cl); err != nil {
			return nil, err
		}
	}
	before := map[string]*topicState{}
	for _, topic := range d.o.Topics {
		for {
			if before[topic], err = readState(ctx, cl, topic); err == nil {
				break
			}
			sleep(ctx, 200*time.Millisecond) // a new topic has no leaders yet
			if ctx.Err() != nil {
				return nil, err
			}
		}
	}
	return before, nil
}

// subscribers makes the ones that stay to the end.
func (d *Driver) subscribers(start func(r *recorder)) {
	o := &d.o
	n := uint64(1000)
	add := func(s Subscriber, home int, pinned bool, pace *throttle) {
		n++
		r := &recorder{d: d, sub: s, home: home, pinned: pinned, pace: pace, begun: make(chan struct{}), rng: d.rng(n)}
		d.mu.Lock()
		d.recorders = append(d.recorders, r)
		d.mu.Unlock()
		start(r)
	}
	rng := d.rng(4)
	for _, topic := range o.Topics {
		name := func(kind string, i int) string { return fmt.Sprintf("%s-%d of %s", kind, i, topic) }
		all, someKey := "/"+topic+"/*", func() string { return subjectOf(topic, keys[rng.IntN(len(keys)-1)]) }
		for i := range o.Nodes {
			add(Subscriber{Name: name("all", i), Subject: all}, i, true, nil)
		}
		for i := range max(0, o.KeySubs) {
			add(Subscriber{Name: name("key", i), Subject: someKey()}, i, true, nil)
		}
		for i := range max(0, o.Crowd) {
			add(Subscriber{Name: name("crowd", i), Subject: someKey()}, 0, true, nil)
		}
		add(Subscriber{Name: name("prefix", 0), Subject: "/" + topic + "/a/*"}, rng.IntN(len(o.Nodes)), true, nil)
		add(Subscriber{Name: name("null", 0), Subject: "/" + topic}, rng.IntN(len(o.Nodes)), true, nil)
		for i := range max(0, o.Roamers) {
			subject := all
			if i%2 == 1 {
				subject = someKey()
			}
			add(Subscriber{Name: name("roamer", i), Subject: subject}, i, false, nil)
		}
		for i := range max(0, o.SlowSubs) {
			pace := &throttle{}
			pace.rate.Store(int64(o.SlowRate))
			add(Subscriber{Name: name("slow", i), Subject: all, Slow: true}, i, true, pace)
		}
	}
}

func (d *Driver) awaitSubscriptions(ctx context.Context) error {
	timer := time.NewTimer(subscribeTime)
	defer timer.Stop()
	for i, r := range d.recorders {
		select {
		case <-r.begun:
		case err := <-d.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			why := "no node was reached"
			s := r.snapshot()
			if n := len(s.Events); n > 0 && s.Events[n-1].Detail != nil {
				why = s.Events[n-1].Message
			}
			return fmt.Errorf("%w: %d of %d after %s; %s: %s", ErrNotSubscribed, i, len(d.recorders), subscribeTime, s.Subject, why)
		}
	}
	return nil
}

// cutAtRandom breaks the connections of those that roam.
func (d *Driver) cutAtRandom(ctx context.Context, roamers []*recorder, rng *rand.Rand) {
	if len(roamers) == 0 {
		return
	}
	for ctx.Err() == nil {
		sleep(ctx, d.o.CutEvery/2+time.Duration(rng.Int64N(int64(d.o.CutEvery))))
		roamers[rng.IntN(len(roamers))].cut()
	}
}

// historyStay is how long a subscriber stays that came for the history: a run has many of them.
const historyStay = 2 * time.Second

// histories lets subscribers come that ask for what was before them, one after the other.
func (d *Driver) histories(ctx context.Context, topic string, slot int) {
	rng := d.rng(2000 + uint64(slot))
	for i := 0; ctx.Err() == nil; i++ {
		subject := "/" + topic + "/*"
		if i%2 == 1 {
			subject = subjectOf(topic, keys[rng.IntN(len(keys))])
		}
		r := &recorder{d: d, home: rng.IntN(len(d.o.Nodes)), pinned: true, begun: make(chan struct{}), rng: d.rng(rng.Uint64()),
			sub: Subscriber{Name: fmt.Sprintf("history-%d-%d of %s", slot, i, topic), Subject: subject, History: []int{-1, 1, 10, 100}[rng.IntN(4)], Left: true}}
		d.mu.Lock()
		d.recorders = append(d.recorders, r)
		d.mu.Unlock()
		stay, cancel := context.WithTimeout(ctx, historyStay/2+time.Duration(rng.Int64N(int64(historyStay))))
		r.run(stay)
		cancel()
	}
}

// settle reads back what Kafka took and waits until nothing is missing at any subscriber's end, or the
// deadline.
func (d *Driver) settle(before map[string]*topicState, deadline time.Time) (History, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var h History
	for ctx.Err() == nil {
		// Kafka is read first: what is in it then, everybody must have a moment later, unless they lag.
		after, records, err := d.readBack(ctx)
		if err != nil && h.Settled {
			break
		}
		if err != nil {
			d.collect(&h)
			return h, err
		}
		changed := len(records) != len(h.Kafka)
		h.Kafka, h.Settled = records, true
		d.mu.Lock()
		h.Removed = append([]Removal(nil), d.removed...)
		d.mu.Unlock()
		d.collect(&h)
		h.Removed = append(h.Removed, inferRemovals(before, after, &h, h.Removed)...)
		begun := time.Now()
		missing := Judge(h).Pending
		if missing == 0 && !changed {
			return h, nil
		}
		if missing > 0 {
			d.o.Progress("%d records are still to come", missing)
		}
		sleep(ctx, max(200*time.Millisecond, 3*time.Since(begun)))
	}
	d.o.Progress("not every subscriber reached Kafka's end in %s", d.o.Settle)
	return h, nil
}

// collect puts what the parts have recorded so far into h.
func (d *Driver) collect(h *History) {
	h.Version, h.Began, h.Limits = HistoryVersion, d.began, d.o.Limits
	h.Written = d.writes.snapshot()
	d.mu.Lock()
	recorders, publishers := slices.Clone(d.recorders), slices.Clone(d.publishers)
	h.Away = slices.Clone(d.away)
	d.mu.Unlock()
	h.Subscribers, h.Publishes = nil, nil
	for _, r := range recorders {
		h.Subscribers = append(h.Subscribers, r.snapshot())
	}
	for _, p := range publishers {
		h.Publishes = append(h.Publishes, p.snapshot()...)
	}
	h.End = d.Now()
}
