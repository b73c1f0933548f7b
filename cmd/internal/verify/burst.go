package verify

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// burstBuffer is how many records of a burst are on their way at a time.
const burstBuffer = 10_000

// Burst writes that many records to Kafka as fast as it takes them, besides the load, each with so many bytes
// of padding, at most a mebibyte; 0: values as the load's. It returns when all have their answer, with an
// error if some were not taken. It may be called once the load has begun, and must have returned before it ends.
func (d *Driver) Burst(ctx context.Context, records, padding int) error {
	client, err := d.kafkaClient(kgo.MaxBufferedRecords(burstBuffer), kgo.MaxBufferedBytes(64<<20))
	if err != nil {
		return err
	}
	defer client.Close()
	burst := d.bursts.Add(1)
	rng := d.rng(5000 + uint64(burst))
	var failed atomic.Pointer[error]
	for n := 0; n < records && ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-burst%d-%d", d.run, burst, n)
		if padding > 0 {
			id = fmt.Sprintf("%s+%d", id, padding)
		}
		client.Produce(ctx, d.newRecord(rng, id), func(r *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
				d.wrote(r, id, Unknown, err)
				return
			}
			d.wrote(r, id, Committed, nil)
		})
	}
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("burst: %w", err)
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("burst: %w", *err)
	}
	return ctx.Err()
}
