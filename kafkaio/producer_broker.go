package kafkaio

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"github.com/tidewire/tidewire/bridge"
)

// broker is where the partitions led by one address wait for a request. A few workers send them, each
// one request at a time on a connection of its own: a partition whose replicas are slow holds up one
// worker, not the broker's other partitions. For the same reason batches that are sent again do not
// share a request with fresh ones.
type broker struct {
	addr   string
	wakeup chan struct{} // a slot for each worker
	done   chan struct{} // closed when the broker is retired

	// guarded by the producer's mutex
	ready    []*partition
	idle     []*idleConn // the last used at the end
	open     int         // connections, the idle ones included
	warm     bool        // keep at least one open
	lastUsed time.Time
}

type idleConn struct {
	conn  *protocol.Conn
	since time.Time
}

const (
	workersPerBroker = 3
	requestBytes     = 8 << 20          // of batches in a request, unless a single one is larger
	pingAfter        = 30 * time.Second // brokers close connections that are idle for long (10 minutes by default)
	pingTimeout      = 2 * time.Second
	warmInterval     = time.Second
	retireAfter      = 5 * time.Minute
	refreshTimeout   = 5 * time.Second
	answerGrace      = time.Second // over the time that the broker may wait for replicas
	acksAll          = -1
)

func (b *broker) wake() { kick(b.wakeup) }

// brokerAt returns the broker at addr, with its workers started. The mutex is held, and the producer is
// not closed.
func (p *Producer) brokerAt(addr string) *broker {
	b := p.brokers[addr]
	if b == nil {
		b = &broker{addr: addr, wakeup: make(chan struct{}, workersPerBroker), done: make(chan struct{})}
		p.brokers[addr] = b
		p.wg.Add(workersPerBroker)
		for i := range workersPerBroker {
			go p.work(b, i == 0)
		}
	}
	b.lastUsed = time.Now()
	return b
}

// work is one worker. The first one of a broker also looks after idle connections.
func (p *Producer) work(b *broker, first bool) {
	defer p.wg.Done()
	var tick <-chan time.Time
	if first {
		t := time.NewTicker(warmInterval)
		defer t.Stop()
		tick = t.C
	}
	for {
		for p.sendOne(b) {
		}
		if first {
			p.tend(b)
		}
		select {
		case <-b.wakeup:
		case <-tick:
		case <-b.done:
			p.closeIdle(b)
			return
		case <-p.ctx.Done():
			p.closeIdle(b)
			return
		}
	}
}

// shipment is a partition in a request.
type shipment struct {
	pt       *partition
	batch    *batch
	pid      producerID
	answered bool
}

// sendOne sends one request, if any partition is ready, and says whether it did.
func (p *Producer) sendOne(b *broker) bool {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	load := p.take(b)
	if len(b.ready) > 0 {
		b.wake()
	}
	p.mu.Unlock()
	if len(load) == 0 {
		return false
	}

	conn, err := p.grab(b)
	if err != nil {
		p.fail(b, load, unsent(err))
		return true
	}
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.RequestTimeout+answerGrace)
	defer cancel()
	m, err := RoundTrip(ctx, conn, p.request(load))
	res, ok := m.(*produce.Response)
	if err == nil && !ok {
		err = fmt.Errorf("unexpected answer %T", m)
	}
	if err != nil {
		p.release(b, conn, false)
		p.fail(b, load, unanswered(fmt.Errorf("broker %s: %w", b.addr, err)))
		return true
	}
	p.release(b, conn, true)
	p.settleAll(b, load, res)
	return true
}

// take picks the ready partitions for one request and makes their batches.
func (p *Producer) take(b *broker) []shipment {
	var (
		load  []shipment
		rest  []*partition
		again bool // the request is for batches that were sent before
		size  int
	)
	ready := b.ready
	b.ready = nil
	for _, pt := range ready {
		if pt.batch == nil && (pt.gen == 0 || pt.queue.Len() == 0) {
			p.schedule(pt) // given up while it was in the list
			continue
		}
		retry := pt.batch != nil && pt.batch.attempts > 0
		if len(load) > 0 && (retry != again || size >= requestBytes) {
			rest = append(rest, pt)
			continue
		}
		again = retry
		if pt.batch == nil {
			pt.form(p.cfg.BatchBytes)
		}
		for _, rec := range pt.batch.records {
			size += rec.size
		}
		pt.batch.attempts++
		pt.state = stateSending
		load = append(load, shipment{pt: pt, batch: pt.batch, pid: pt.pid})
	}
	b.ready = append(rest, b.ready...)
	return load
}

// request encodes the load. Its batches are with this worker alone.
func (p *Producer) request(load []shipment) *rawproduce.Request {
	req := &rawproduce.Request{Acks: acksAll, Timeout: int32(p.cfg.RequestTimeout / time.Millisecond)}
	topics := make(map[string]int)
	for _, s := range load {
		s.batch.encode(s.pid)
		i, ok := topics[s.pt.tp.Topic]
		if !ok {
			i = len(req.Topics)
			topics[s.pt.tp.Topic] = i
			req.Topics = append(req.Topics, rawproduce.RequestTopic{Topic: s.pt.tp.Topic})
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, rawproduce.RequestPartition{
			Partition: s.pt.tp.Partition,
			RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(s.batch.bytes)},
		})
	}
	return req
}

// fail settles all of the load alike.
func (p *Producer) fail(b *broker, load []shipment, a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range load {
		if !a.ambiguous {
			s.batch.attempts--
		}
		p.settle(s.pt, b.addr, a)
	}
}

func (p *Producer) settleAll(b *broker, load []shipment, res *produce.Response) {
	index := make(map[bridge.TopicPartition]int, len(load))
	for i, s := range load {
		index[s.pt.tp] = i
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range res.Topics {
		t := &res.Topics[i]
		for j := range t.Partitions {
			r := &t.Partitions[j]
			k, ok := index[bridge.TopicPartition{Topic: t.Topic, Partition: r.Partition}]
			if !ok || load[k].answered {
				continue
			}
			load[k].answered = true
			p.settle(load[k].pt, b.addr, answerOf(r))
		}
	}
	for _, s := range load {
		if !s.answered {
			p.settle(s.pt, b.addr, unanswered(errMissing))
		}
	}
}

// grab returns an idle connection or a new one.
func (p *Producer) grab(b *broker) (*protocol.Conn, error) {
	p.mu.Lock()
	if n := len(b.idle); n > 0 {
		conn := b.idle[n-1].conn
		b.idle = b.idle[:n-1]
		p.mu.Unlock()
		return conn, nil
	}
	p.mu.Unlock()
	return p.dial(b)
}

func (p *Producer) dial(b *broker) (*protocol.Conn, error) {
	// Not longer than an answer may take: a machine that has vanished must not hold up partitions that
	// another one leads by now.
	ctx, cancel := context.WithTimeout(p.ctx, p.cfg.RequestTimeout)
	defer cancel()
	conn, err := p.cfg.Client.Dial(ctx, b.addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	b.open++
	p.mu.Unlock()
	return conn, nil
}

// release gives a connection back, or closes it after an error.
func (p *Producer) release(b *broker, conn *protocol.Conn, good bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if good && !p.closed {
		b.idle = append(b.idle, &idleConn{conn: conn, since: time.Now()})
		return
	}
	b.open--
	_ = conn.Close()
}

// tend keeps the idle connections alive, finds the dead ones before a record does, and opens one ahead.
func (p *Producer) tend(b *broker) {
	for {
		p.mu.Lock()
		i := slices.IndexFunc(b.idle, func(c *idleConn) bool { return time.Since(c.since) > pingAfter })
		if i < 0 {
			need := b.warm && b.open == 0 && !p.closed
			p.mu.Unlock()
			if need {
				if conn, err := p.dial(b); err == nil {
					p.release(b, conn, true)
				}
			}
			return
		}
		conn := b.idle[i].conn
		b.idle = slices.Delete(b.idle, i, i+1)
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(p.ctx, pingTimeout)
		_, err := RoundTrip(ctx, conn, &apiversions.Request{})
		cancel()
		p.release(b, conn, err == nil)
	}
}

func (p *Producer) closeIdle(b *broker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range b.idle {
		b.open--
		_ = c.conn.Close()
	}
	b.idle = nil
}
