package abuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrStopped says that this program did not run for a while: the machine was suspended, or gave it no processor for so long.
// What was measured says nothing about the nodes then.
var ErrStopped = errors.New("this program was stopped for a while, and so were the nodes, or they went on without it: the run says nothing")

const (
	pulseEvery = 100 * time.Millisecond
	// stopped is how much too late a pulse may be. Elections begin after a second without one's leader.
	stopped = 3 * time.Second
)

// whileRunning returns a context that ends with ErrStopped when this program was stopped; end ends it before that.
func whileRunning(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.NewTicker(pulseEvery)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer t.Stop()
		if late := pulses(ctx, t.C, time.Now()); late > 0 {
			cancel(fmt.Errorf("%w (%v)", ErrStopped, late.Round(time.Second)))
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// pulses takes ticks until one is too late, and returns by how much; zero: ctx has ended.
func pulses(ctx context.Context, tick <-chan time.Time, last time.Time) (late time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return 0
		case now := <-tick:
			if late := now.Sub(last); late > stopped {
				return late
			}
			last = now
		}
	}
}
