package kafkaio

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
)

// The producer's own goroutines: one lets waiting partitions go on when their time has come, one asks
// for leaders, one for producer ids, and one keeps connections open ahead.

// retryLoop schedules waiting partitions at their retryAt.
func (p *Producer) retryLoop() {
	defer p.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next := time.Hour
		p.mu.Lock()
		now := time.Now()
		for pt := range p.waiting {
			if d := pt.retryAt.Sub(now); d > 0 {
				next = min(next, d)
			} else {
				p.schedule(pt)
			}
		}
		p.mu.Unlock()
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-p.kickRetry:
		case <-p.ctx.Done():
			return
		}
	}
}

// refreshLoop asks for the leaders when somebody wants them, and lets those partitions go on at once
// whose leader is another than the one that failed.
func (p *Producer) refreshLoop() {
	defer p.wg.Done()
	for {
		select {
		case <-p.kickRefresh:
		case <-p.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(p.ctx, refreshTimeout)
		err := p.cfg.Leaders.Refresh(ctx)
		cancel()
		p.mu.Lock()
		for pt := range p.waiting {
			if err != nil && pt.lastErr == nil {
				pt.lastErr = err
			}
			addr, _, ok := p.cfg.Leaders.Leader(pt.tp)
			if ok && addr != pt.failedAt && pt.gen != 0 {
				pt.retryAt = time.Time{}
				p.schedule(pt)
			}
		}
		p.mu.Unlock()
		if !p.pause(produceBackoff) {
			return
		}
	}
}

// idLoop obtains producer ids: one at the start, and a newer one whenever a partition must not go on
// with the last.
func (p *Producer) idLoop() {
	defer p.wg.Done()
	backoff := produceBackoff
	for {
		select {
		case <-p.kickID:
		case <-p.ctx.Done():
			return
		}
		for p.needsID() {
			id, err := p.newProducerID()
			if err != nil {
				if p.ctx.Err() != nil {
					return
				}
				p.idFailed(err)
				if !p.pause(backoff) {
					return
				}
				backoff = min(2*backoff, maxProduceBackoff)
				continue
			}
			backoff = produceBackoff
			p.idArrived(id)
		}
	}
}

func (p *Producer) needsID() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && p.generation <= p.wantID
}

func (p *Producer) idFailed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.idErr == nil {
		p.cfg.Log.Warn().Err(err).Msg("no producer id from Kafka yet")
	}
	p.idErr = err
}

func (p *Producer) idArrived(id producerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.idErr = id, nil
	p.generation++
	for pt := range p.waiting {
		if pt.gen == 0 && p.generation > pt.burned && pt.failures == 0 {
			pt.retryAt = time.Time{}
			p.schedule(pt)
		} else if pt.gen == 0 {
			pt.retryAt = time.Now().Add(min(maxProduceBackoff, produceBackoff<<min(pt.failures, 10)))
		}
	}
	kick(p.kickRetry)
}

// newProducerID asks any broker for an id that belongs to no transactional id.
func (p *Producer) newProducerID() (producerID, error) {
	ctx, cancel := context.WithTimeout(p.ctx, refreshTimeout)
	defer cancel()
	conn, err := p.cfg.Client.DialAny(ctx)
	if err != nil {
		return producerID{}, err
	}
	defer conn.Close()
	m, err := RoundTrip(ctx, conn, &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1})
	if err != nil {
		return producerID{}, fmt.Errorf("ask for a producer id: %w", err)
	}
	res, ok := m.(*initproducerid.Response)
	if !ok {
		return producerID{}, fmt.Errorf("ask for a producer id: unexpected answer %T", m)
	}
	if res.ErrorCode != 0 {
		return producerID{}, fmt.Errorf("ask for a producer id: %w", kafka.Error(res.ErrorCode))
	}
	return producerID{id: res.ProducerID, epoch: res.ProducerEpoch}, nil
}

// warmLoop follows the leaders of the partitions given to Warm, and retires brokers that lead none and
// have not been used for long: addresses may change for ever.
func (p *Producer) warmLoop() {
	defer p.wg.Done()
	for p.pause(warmInterval) {
		p.keepWarm()
		p.retire()
	}
}

func (p *Producer) keepWarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for _, b := range p.brokers {
		b.warm = false
	}
	for _, tp := range p.warm {
		if addr, _, ok := p.cfg.Leaders.Leader(tp); ok {
			b := p.brokerAt(addr)
			if !b.warm && b.open == 0 {
				b.wake()
			}
			b.warm = true
		}
	}
}

func (p *Producer) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, b := range p.brokers {
		if !b.warm && len(b.ready) == 0 && time.Since(b.lastUsed) > retireAfter {
			delete(p.brokers, addr)
			close(b.done)
		}
	}
}

// pause waits and says whether the producer is still open.
func (p *Producer) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}
