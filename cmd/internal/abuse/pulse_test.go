package abuse

import (
	"context"
	"testing"
	"time"
)

// A program that was stopped notices, and not that it was merely late.
func TestPulses(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return began.Add(d) }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tick := make(chan time.Time, 3)
	tick <- at(pulseEvery)
	tick <- at(pulseEvery + stopped)
	tick <- at(pulseEvery + 2*stopped + 1)
	if late := pulses(ctx, tick, began); late != stopped+1 {
		t.Errorf("%v late, want %v", late, stopped+1)
	}
	cancel()
	if late := pulses(ctx, nil, began); late != 0 {
		t.Errorf("%v late at the end", late)
	}
	ctx, end := whileRunning(t.Context())
	if end(); context.Cause(ctx) != context.Canceled {
		t.Error(context.Cause(ctx))
	}
}
