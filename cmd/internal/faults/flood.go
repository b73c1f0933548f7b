package faults

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// flood is a client that publishes as fast as its connection takes it, without waiting for answers, on whatever
// node it reaches. What it writes has no message id: what is lost with a connection is not sent again.
type flood struct {
	addrs []string
	topic string
	name  string

	sent, acked, refused, connections atomic.Int64
}

// floodKeys is over how many keys a flood spreads: publishes to one key go one after the other.
const floodKeys = 64

// run floods until ctx ends.
func (f *flood) run(ctx context.Context) {
	n := 0
	for at := 0; ctx.Err() == nil; at++ {
		c, _, err := websocket.Dial(ctx, "ws://"+f.addrs[at%len(f.addrs)]+"/ws", nil)
		if err != nil {
			timer := time.NewTimer(50 * time.Millisecond)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
			continue
		}
		f.connections.Add(1)
		c.SetReadLimit(1 << 20)
		var answers sync.WaitGroup
		answers.Go(func() { f.listen(ctx, c) })
		for err == nil {
			n++
			op := fmt.Appendf(nil, `{"op":"pub","id":%d,"subject":"/%s/flood%d","data":{"flood":%q,"n":%d}}`, n, f.topic, n%floodKeys, f.name, n)
			if err = c.Write(ctx, websocket.MessageText, op); err == nil {
				f.sent.Add(1)
			}
		}
		_ = c.CloseNow()
		answers.Wait()
	}
}

// listen counts answers until the connection ends, which it sees to.
func (f *flood) listen(ctx context.Context, c *websocket.Conn) {
	for {
		_, b, err := c.Read(ctx)
		switch {
		case err != nil || bytes.Contains(b, []byte(`"op":"bye"`)):
			_ = c.CloseNow()
			return
		case bytes.Contains(b, []byte(`"op":"acked"`)):
			f.acked.Add(1)
		case bytes.Contains(b, []byte(`"op":"error"`)):
			f.refused.Add(1)
		}
	}
}

// floodWhile has clients flood while something else happens, and says what they did.
func floodWhile(clients int, then step) step {
	return func(ctx context.Context, r *Rig) error {
		addrs, err := r.Nodes.Clients()
		if err != nil {
			return err
		}
		flooding, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		var floods []*flood
		for i := range clients {
			f := &flood{addrs: append(addrs[i%len(addrs):len(addrs):len(addrs)], addrs[:i%len(addrs)]...), topic: r.Topic, name: fmt.Sprintf("f%d", i)}
			floods = append(floods, f)
			all.Go(func() { f.run(flooding) })
		}
		begun := time.Now()
		err = then(ctx, r)
		stop()
		all.Wait()
		took := time.Since(begun).Seconds()
		for _, f := range floods {
			acked := f.acked.Load()
			r.Note("%s sent %d, of which %d were acknowledged and %d refused: %.0f/s, over %d connections", f.name, f.sent.Load(), acked, f.refused.Load(), float64(acked)/took, f.connections.Load())
			if float64(acked)/took < leastFlood && err == nil {
				err = fmt.Errorf("%s had %d publishes acknowledged in %.0f s: that is no flood", f.name, acked, took)
			}
		}
		return err
	}
}

// leastFlood is how many publishes a second deserve the name, on a machine that has much else to do.
const leastFlood = 100
