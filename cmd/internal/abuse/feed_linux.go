package abuse

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// feed writes the honest clients' records to Kafka, evenly, key after key.
type feed struct {
	cl     *kgo.Client
	topic  string
	cancel context.CancelFunc
	wg     sync.WaitGroup
	sent   []uint64 // by key; for its goroutine until end has returned
	failed atomic.Pointer[error]
}

const filler = 150 // bytes of a record beside what is looked at

func startFeed(cl *kgo.Client, topic string, perSecond int) *feed {
	ctx, cancel := context.WithCancel(context.Background())
	f := &feed{cl: cl, topic: topic, cancel: cancel, sent: make([]uint64, keys)}
	f.wg.Go(func() { f.run(ctx, perSecond) })
	return f
}

func (f *feed) run(ctx context.Context, perSecond int) {
	t := time.NewTicker(time.Second / time.Duration(perSecond))
	defer t.Stop()
	for key := 0; ; key = (key + 1) % keys {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		f.sent[key]++
		v, err := json.Marshal(record{T: time.Now().UnixNano(), N: f.sent[key], P: strings.Repeat("x", filler)})
		if err != nil {
			panic(err) // cannot fail
		}
		f.cl.Produce(context.Background(), &kgo.Record{Topic: f.topic, Key: fmt.Appendf(nil, "k%d", key), Value: v}, f.done)
	}
}

func (f *feed) done(_ *kgo.Record, err error) {
	if err != nil {
		f.failed.CompareAndSwap(nil, &err)
	}
}

// end stops it, waits until Kafka has all, and returns how many records each key got. It may be called again.
func (f *feed) end(ctx context.Context) ([]uint64, error) {
	f.cancel()
	f.wg.Wait()
	if err := f.cl.Flush(ctx); err != nil {
		return nil, fmt.Errorf("write to Kafka: %w", err)
	}
	if err := f.failed.Load(); err != nil {
		return nil, fmt.Errorf("write to Kafka: %w", *err)
	}
	return f.sent, nil
}

// The archive is more than the nodes keep in memory, so that who goes back to its beginning is served from Kafka.
const (
	archiveRecords = 96 << 10
	archiveSize    = 1 << 10
	archiveKeys    = 50
)

func fillArchive(ctx context.Context, cl *kgo.Client, topic string) error {
	value := []byte(`{"p":"` + strings.Repeat("y", archiveSize-8) + `"}`)
	var failed atomic.Pointer[error]
	for i := range archiveRecords {
		cl.Produce(ctx, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "k%d", i%archiveKeys), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("fill %s: %w", topic, err)
	}
	if err := failed.Load(); err != nil {
		return fmt.Errorf("fill %s: %w", topic, *err)
	}
	return nil
}
