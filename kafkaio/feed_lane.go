package kafkaio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tidewire/tidewire/bridge"
)

// A broker is read on two connections. The main lane asks for all partitions that are ready and waits
// for a first record, up to FeedConfig.MaxWait; one request at a time. Kafka answers a connection's
// requests in order, so a partition that becomes ready while that wait goes on (it was started, or its
// Fetched were given back) would sit half a second behind idle neighbours. It goes out on the express
// lane instead, which waits only expressWait, so that the next one is never kept waiting longer than
// that; when the main lane's wait ends, it takes everybody back. The express lane is at work only while
// the main one waits; the price is up to 100 small requests in the rest of that wait.
//
// Rejected: a short wait on a single connection (requests without end from an idle cluster), and
// breaking off the wait by closing the connection (a handshake each time, and answers lost).
const expressWait = 5 * time.Millisecond

// pingInterval keeps idle connections open: brokers close them after connections.max.idle.ms (10 min).
const pingInterval = time.Minute

// silence is how late an answer may be before the leaders are asked for.
const silence = time.Second

// feedBroker is a broker and the partitions it leads. addr, stop and lanes are set once; the rest is
// guarded by Feed.mu.
type feedBroker struct {
	addr  string
	stop  context.CancelFunc
	lanes [2]*lane // main, express

	parts   map[*feedPart]struct{}
	waiting bool // the main lane is out with a request
	fails   int  // connections that failed in a row
	retryAt time.Time
}

func (b *feedBroker) wake() {
	for _, l := range b.lanes {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// lane is one connection to a broker and the goroutine that asks on it.
type lane struct {
	feed    *Feed
	broker  *feedBroker
	express bool
	wake    chan struct{} // one slot

	// Owned by run.
	conn    *wire
	used    time.Time // when conn last worked
	parser  parser
	asks    []fetchAsk
	flights map[bridge.TopicPartition]flight // what asks is about
}

// flight is one taking of a partition by a lane.
type flight struct {
	p      *feedPart
	run    uint64
	number uint64
	ask    fetchAsk
}

var (
	errRangeMended = errors.New("the offset was out of range for a moment")
	errNoAnswer    = errors.New("the broker's answer does not hold the partition")
)

func (l *lane) run(ctx context.Context) {
	defer l.hangUp()
	for ctx.Err() == nil {
		idle := l.take()
		if len(l.asks) == 0 {
			l.rest(ctx, idle)
			continue
		}
		got, err := l.fetch(ctx)
		if err != nil {
			l.failed(ctx, err)
			continue
		}
		l.deliver(ctx, got)
	}
}

func (l *lane) hangUp() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// take fills asks and flights with the partitions to ask for next. If there are none it returns how
// long there will not be any, as far as the clock decides.
func (l *lane) take() (idle time.Duration) {
	f, b := l.feed, l.broker
	l.asks = l.asks[:0]
	clear(l.flights)
	idle = pingInterval
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if l.express && !b.waiting {
		return idle
	}
	if !l.express {
		b.waiting = false
	}
	if now.Before(b.retryAt) {
		return b.retryAt.Sub(now)
	}
	var ready []*feedPart
	for p := range b.parts {
		if p.ready(now) {
			ready = append(ready, p)
		} else if now.Before(p.retryAt) {
			idle = min(idle, p.retryAt.Sub(now))
		}
	}
	// Brokers fill an answer in the order of the request, up to fetchMaxBytes: who was served
	// longest ago goes first. The topic breaks ties, as neighbours of one topic share its name.
	slices.SortFunc(ready, func(a, b *feedPart) int {
		return cmp.Or(cmp.Compare(a.served, b.served), cmp.Compare(a.tp.Topic, b.tp.Topic),
			cmp.Compare(a.tp.Partition, b.tp.Partition))
	})
	for _, p := range ready {
		f.flights++
		p.flight = f.flights
		ask := fetchAsk{tp: p.tp, topic: p.topic, epoch: p.epoch, offset: p.next, last: p.last, maxBytes: p.maxBytes}
		l.asks = append(l.asks, ask)
		l.flights[p.tp] = flight{p: p, run: p.run, number: p.flight, ask: ask}
	}
	if !l.express && len(ready) > 0 {
		b.waiting = true
	}
	return idle
}

// rest waits until there may be something to ask for, and keeps the connection open meanwhile.
func (l *lane) rest(ctx context.Context, idle time.Duration) {
	l.keepOpen(ctx)
	timer := time.NewTimer(idle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-l.wake:
	case <-timer.C:
	}
}

// keepOpen opens the connection of an idle lane, or shows the broker that it is alive. Failures do not
// matter here: the next request will meet them.
func (l *lane) keepOpen(ctx context.Context) {
	if l.conn != nil && time.Since(l.used) < pingInterval {
		return
	}
	if l.conn == nil {
		// A broker that does not answer is tried once a minute; idle lanes have time.
		if time.Since(l.used) < pingInterval {
			return
		}
		l.used = time.Now()
		conn, err := openWire(ctx, l.feed.client, l.broker.addr)
		if err == nil {
			l.conn = conn
		}
		return
	}
	l.used = time.Now()
	if _, err := l.conn.metadataVersion(ctx); err != nil {
		l.hangUp()
	}
}

// fetch asks for asks. An old connection that turns out dead is replaced: brokers close idle ones.
func (l *lane) fetch(ctx context.Context) ([]fetchGot, error) {
	wait := l.feed.cfg.MaxWait
	if l.express {
		wait = min(wait, expressWait)
	}
	for {
		old := l.conn != nil
		if !old {
			conn, err := openWire(ctx, l.feed.client, l.broker.addr)
			if err != nil {
				return nil, err
			}
			l.conn = conn
		}
		late := time.AfterFunc(wait+silence, l.feed.silent)
		got, err := l.conn.fetch(ctx, wait, fetchMaxBytes, l.asks)
		late.Stop()
		l.used = time.Now()
		if err == nil {
			return got, nil
		}
		l.hangUp()
		if !old || ctx.Err() != nil || isTimeout(err) {
			return nil, err
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// failed gives back what was taken after the broker could not be asked. The leaders are sought anew, as
// the broker may be gone for good.
func (l *lane) failed(ctx context.Context, err error) {
	f, b := l.feed, l.broker
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	now := time.Now()
	b.fails++
	b.retryAt = now.Add(readBackoff(b.fails))
	if !l.express {
		b.waiting = false
	}
	for _, fl := range l.flights {
		if f.holds(fl) {
			fl.p.flight = 0
			fl.p.seekAt = now.Add(readBackoff(b.fails) / 2)
		}
	}
	report := b.fails == 1
	f.mu.Unlock()
	b.wake()
	f.wakeDirector()
	if report {
		f.log.Warn().Err(err).Str("broker", b.addr).Msg("cannot fetch from the broker; trying again")
	}
}

// deliver gives what came to the sink, one partition after the other.
func (l *lane) deliver(ctx context.Context, got []fetchGot) {
	f, b := l.feed, l.broker
	f.mu.Lock()
	recovered := b.fails > 0
	b.fails = 0
	if !l.express {
		b.waiting = false // this lane asks again in a moment, and for everybody
	}
	f.mu.Unlock()
	if recovered {
		f.log.Info().Str("broker", b.addr).Msg("the broker answers again")
	}
	for i := range got {
		fl, ok := l.flights[got[i].tp]
		if !ok {
			continue // not asked for
		}
		delete(l.flights, got[i].tp)
		l.deliverOne(ctx, fl, &got[i])
	}
	for fl := range maps.Values(l.flights) {
		l.giveBack(fl, errNoAnswer)
	}
	if l.express {
		b.wake() // what this lane leaves, because the main one is back, is for that one
	}
}

func (l *lane) deliverOne(ctx context.Context, fl flight, got *fetchGot) {
	f, tp := l.feed, fl.p.tp
	if got.code != 0 {
		err := kafkaError(got.code)
		if errors.Is(err, kafka.OffsetOutOfRange) {
			f.wg.Go(func() { f.outOfRange(ctx, fl) })
			return
		}
		l.giveBack(fl, err)
		return
	}
	if got.diverged && fl.ask.last >= 0 {
		f.diverged(fl, got)
		return
	}
	out, err := l.parser.parseRecords(tp, got.raw, fl.ask.offset, got.aborted)
	grow := int32(0)
	if err == nil && out.partial && out.next == fl.ask.offset {
		// Not one whole batch: ask for more. Brokers since 0.10.1 send the first batch whole.
		switch {
		case out.needed > maxFrame/2 || fl.ask.maxBytes >= maxFrame/2:
			err = &BatchError{tp, out.next, fmt.Errorf("%w: %d bytes", ErrBatchTooLarge, out.needed)}
		default:
			grow = min(max(int32(out.needed), 2*fl.ask.maxBytes), maxFrame/2)
		}
	}
	f.mu.Lock()
	if !f.holds(fl) {
		f.mu.Unlock()
		return // stopped, started elsewhere or moved to another broker meanwhile
	}
	progress := out.next > fl.ask.offset
	if progress {
		fl.p.next = out.next
		fl.p.last = max(fl.p.last, out.leader)
		fl.p.open++
		f.served++
		fl.p.served = f.served
		grow = fetchPartitionBytes
	}
	if grow > 0 {
		fl.p.maxBytes = grow
	}
	mended := err == nil && fl.p.failure != ""
	if err == nil {
		fl.p.fails, fl.p.failure, fl.p.retryAt = 0, "", time.Time{}
	}
	f.mu.Unlock()
	if mended {
		f.log.Info().Str("topic", tp.Topic).Int32("partition", tp.Partition).Int64("offset", int64(out.next)).
			Msg("the partition can be read again")
	}
	if progress {
		if m := f.cfg.Metrics; m != nil {
			m.Read(tp.Topic, len(out.records), len(got.raw))
		}
		// The partition is still taken: no other lane can overtake this call.
		f.sink.Fetched(fl.run, bridge.Fetched{
			TP: tp, From: fl.ask.offset, Next: out.next, Records: out.records,
			LogStart: got.logStart, End: got.stable, Leader: out.leader,
		})
	}
	l.giveBack(fl, err)
}

// giveBack ends a taking. With an error the partition backs off.
func (l *lane) giveBack(fl flight, err error) {
	f := l.feed
	report := false
	f.mu.Lock()
	if f.holds(fl) {
		fl.p.flight = 0
		if err != nil {
			report = f.failed(fl.p, err)
		}
	}
	f.mu.Unlock()
	if err == nil {
		return
	}
	if m := f.cfg.Metrics; m != nil {
		m.Failed(fl.p.tp.Topic)
	}
	if report {
		f.report(fl, err)
	}
}
