package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// writes are what the producers know, in the order in which they came to know it.
type writes struct {
	mu   sync.Mutex
	list []Write
}

func (w *writes) add(x Write) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, x)
}

func (w *writes) snapshot() []Write {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list[:len(w.list):len(w.list)]
}

const (
	// flushTime bounds what a producer waits at its end for answers of Kafka.
	flushTime = 15 * time.Second
	// failuresBeforeNew is after how many failed records in a row a producer is thrown away and another
	// made: some errors a producer does not survive.
	failuresBeforeNew = 50
	transactionTime   = 20 * time.Second
)

// record makes the n-th record of a writer.
func (d *Driver) newRecord(rng *rand.Rand, id string) *kgo.Record {
	_, value := valueOf(id)
	return &kgo.Record{Topic: d.o.Topics[rng.IntN(len(d.o.Topics))], Key: keys[rng.IntN(len(keys))], Value: value,
		Headers: []kgo.RecordHeader{{Key: headerID, Value: []byte(id)}}}
}

func (d *Driver) wrote(r *kgo.Record, id string, outcome Outcome, err error) {
	w := Write{Partition: Partition{r.Topic, r.Partition}, Offset: -1, ID: id, Subject: subjectOf(r.Topic, r.Key), Outcome: outcome, At: d.Now()}
	switch outcome {
	case Committed:
		w.Offset = r.Offset
		d.counters.written.Add(1)
	case Aborted:
		w.Offset = r.Offset
		d.counters.aborted.Add(1)
	}
	if err != nil {
		w.Err = err.Error()
	}
	d.writes.add(w)
}

func (d *Driver) kafkaClient(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(append([]kgo.Opt{
		kgo.SeedBrokers(d.o.Brokers...), kgo.ClientID("tidewire-verify"), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as in Java
	}, d.o.Kafka...), opts...)...)
}

// produce writes rate records a second, idempotently, until ctx ends, and then waits for the answers.
func (d *Driver) produce(ctx context.Context, name string, rate int, rng *rand.Rand) {
	var failed atomic.Int64 // in a row
	var client *kgo.Client
	finish := func() {
		if client == nil {
			return
		}
		flush, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		_ = client.Flush(flush)
		client.Close()
		client = nil
	}
	defer func() { finish() }()
	p := newPace(rate)
	for n := 0; ; {
		due, ok := p.wait(ctx)
		if !ok {
			return
		}
		if failed.Load() > failuresBeforeNew {
			finish()
			failed.Store(0)
		}
		if client == nil {
			var err error
			client, err = d.kafkaClient(kgo.ProducerLinger(2*time.Millisecond), kgo.MaxBufferedRecords(max(1000, 20*rate)))
			if err != nil {
				d.fail(fmt.Errorf("make a producer: %w", err))
				return
			}
		}
		for range due {
			n++
			id := fmt.Sprintf("%s-%s-%d", d.run, name, n)
			client.TryProduce(context.Background(), d.newRecord(rng, id), func(r *kgo.Record, err error) {
				switch {
				case errors.Is(err, kgo.ErrMaxBuffered): // Kafka is away for long: it was never sent
				case err != nil:
					failed.Add(1)
					d.wrote(r, id, Unknown, err)
				default:
					failed.Store(0)
					d.wrote(r, id, Committed, nil)
				}
			})
		}
	}
}

// transact writes rate records a second in transactions of up to twenty, of which it aborts a quarter,
// until ctx ends.
func (d *Driver) transact(ctx context.Context, name string, rate int, rng *rand.Rand) {
	var client *kgo.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	p := newPace(rate)
	for n, owed := 0, 0; ; {
		due, ok := p.wait(ctx)
		if !ok {
			return
		}
		owed = min(owed+due, 20*max(1, rate)) // what could not be written for long is forgotten
		size := 1 + rng.IntN(20)
		if owed < size {
			continue
		}
		owed -= size
		if client == nil {
			var err error
			// A new producer with the same id aborts what the one before it left open.
			client, err = d.kafkaClient(kgo.ProducerLinger(0), kgo.TransactionalID("tidewire-verify-"+d.run+"-"+name), kgo.TransactionTimeout(transactionTime))
			if err != nil {
				d.fail(fmt.Errorf("make a transactional producer: %w", err))
				return
			}
		}
		ids := make([]string, size)
		for i := range ids {
			n++
			ids[i] = fmt.Sprintf("%s-%s-%d", d.run, name, n)
		}
		if !d.transaction(client, ids, rng.IntN(4) == 0, rng) {
			client.Close()
			client = nil
		}
	}
}

// transaction writes one; false says that the producer is of no more use.
func (d *Driver) transaction(client *kgo.Client, ids []string, abort bool, rng *rand.Rand) bool {
	// Begun is done: a transaction is ended even when the load has ended meanwhile.
	ctx, cancel := context.WithTimeout(context.Background(), transactionTime)
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return false
	}
	records := make([]*kgo.Record, len(ids))
	for i, id := range ids {
		records[i] = d.newRecord(rng, id)
	}
	err := client.ProduceSync(ctx, records...).FirstErr()
	end, outcome := kgo.TryCommit, Committed
	if abort || err != nil {
		end, outcome = kgo.TryAbort, Aborted
	}
	if endErr := client.EndTransaction(ctx, end); endErr != nil {
		err, outcome = endErr, Unknown
	}
	for i, r := range records {
		d.wrote(r, ids[i], outcome, err)
	}
	return err == nil
}

// pace hands out what is due at a rate, in small steps.
type pace struct {
	rate  int
	begun time.Time
	given int
}

const paceStep = 10 * time.Millisecond

func newPace(rate int) *pace { return &pace{rate: rate, begun: time.Now()} }

// wait returns how many are due, after a step at the least; false when ctx has ended. After a pause it
// does not catch up on more than a second's worth.
func (p *pace) wait(ctx context.Context) (int, bool) {
	sleep(ctx, paceStep)
	if ctx.Err() != nil {
		return 0, false
	}
	should := int(time.Since(p.begun).Seconds() * float64(p.rate))
	due := min(should-p.given, max(1, p.rate))
	p.given = should
	return due, true
}
