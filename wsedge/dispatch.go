package wsedge

import (
	"sync"
	"sync/atomic"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// A dispatcher follows one log and finds the sessions that each new record is for. It is a reader of the
// log like any subscription, and sends nothing itself: it marks the cursor and puts the session into its
// shard's queue, where a session that is still waiting for its turn is not put again. So a burst costs a
// busy session one turn, and a quiet session hears of a record at once.
type dispatcher struct {
	// Set once.
	th     *topicHub
	log    *cache.Log
	wakeup chan struct{} // one slot
	stopCh chan struct{}
	once   sync.Once

	// before is the position up to which everything was dispatched when the log was last reset.
	before atomic.Pointer[bridge.Position]

	// done is the position up to which everything has been dispatched: whoever looks at it first and
	// then at a cursor that nothing was found for knows that there is nothing for it up to there.
	doneMu sync.Mutex
	done   bridge.Position

	// Owned by run.
	place   cache.Index
	head    bridge.Position // of a reader at place
	entries []cache.Entry
	ready   [][]*session // by shard: to be queued
}

// dispatchStep is how many entries are dispatched under one hold of the topic's lock.
const dispatchStep = 256

func newDispatcher(th *topicHub, l *cache.Log, from cache.Index) *dispatcher {
	return &dispatcher{
		th: th, log: l, place: from, head: l.At(from),
		wakeup: make(chan struct{}, 1), stopCh: make(chan struct{}),
		ready: make([][]*session, len(th.srv.shards)),
	}
}

func (d *dispatcher) notify() {
	select {
	case d.wakeup <- struct{}{}:
	default:
	}
}

func (d *dispatcher) stop() { d.once.Do(func() { close(d.stopCh) }) }

func (d *dispatcher) run() {
	for {
		select {
		case <-d.wakeup:
		case <-d.stopCh:
			return
		case <-d.th.srv.ctx.Done():
			return
		}
		for d.step() {
			select {
			case <-d.stopCh:
				return
			default:
			}
		}
	}
}

// dispatched returns the position up to which everything has been dispatched.
func (d *dispatcher) dispatched() bridge.Position {
	d.doneMu.Lock()
	defer d.doneMu.Unlock()
	return d.done
}

// step dispatches some entries and says whether there may be more.
func (d *dispatcher) step() bool {
	bounds := d.log.Bounds()
	if bounds.Base.After(d.head) && d.place >= bounds.Start || d.place < bounds.Start || d.place > bounds.End {
		// Entries have left that were never dispatched, or never were in the log: a reset, or a
		// cache too small for its intake. Every subscriber has to look for itself.
		before := d.head
		d.before.Store(&before)
		d.th.mu.RLock()
		d.th.each(func(b *bucket) { d.wakeAll(b, lostTrack, bounds.Start, false) })
		d.th.mu.RUnlock()
		d.place, d.head = bounds.Start, bounds.Base
		d.queue()
	}
	var next cache.Index
	var behind bool
	d.entries, next, behind = d.log.Entries(d.place, dispatchStep, d.entries[:0])
	if behind {
		return true // it left between the two looks; the next step sees it
	}
	if len(d.entries) == 0 {
		d.head = d.log.At(d.place)
		return d.log.Bounds().End > d.place
	}
	d.th.mu.RLock()
	for i := range d.entries {
		d.dispatch(&d.entries[i])
	}
	d.th.mu.RUnlock()
	clear(d.entries)
	d.head = d.log.At(next)
	d.place = next
	d.doneMu.Lock()
	d.done = d.head
	d.doneMu.Unlock()
	d.queue()
	return true
}

// dispatch marks the cursors that an entry is for. th.mu is held for reading.
func (d *dispatcher) dispatch(e *cache.Entry) {
	th, found := d.th, uint64(e.Index)+1
	if e.Gap {
		th.each(func(b *bucket) { d.wakeAll(b, found, e.Index, false) })
		return
	}
	d.wakeAll(&th.all, found, e.Index, true)
	if e.Key == nil {
		d.wakeAll(&th.null, found, e.Index, true)
		return
	}
	if b := th.keys[string(e.Key)]; b != nil {
		d.wakeAll(b, found, e.Index, true)
	}
	for _, l := range th.lengths {
		if l.length > len(e.Key) {
			break // they are in order
		}
		if e.Key[l.length-1] != '/' {
			continue
		}
		if b := th.prefixes[string(e.Key[:l.length])]; b != nil {
			d.wakeAll(b, found, e.Index, true)
		}
	}
}

// wakeAll marks the cursors of a bucket. record says that there is a record of the subject at i: then a
// subscription that has no cursor here yet gets one.
func (d *dispatcher) wakeAll(b *bucket, found uint64, i cache.Index, record bool) {
	for _, sub := range b.subs {
		c := sub.cursorFor(d.log.Partition())
		if c == nil || c.d != d {
			if !record && sub.subject.Kind == KeySubject {
				continue // it has no place here to lose
			}
			c = sub.cursorAt(d, i)
		}
		if c.wake(found) && sub.s.queued.CompareAndSwap(false, true) {
			k := sub.s.shard.index
			d.ready[k] = append(d.ready[k], sub.s)
		}
	}
}

// queue gives the sessions that were found to their shards, each shard once.
func (d *dispatcher) queue() {
	for k, sessions := range d.ready {
		if len(sessions) > 0 {
			d.th.srv.shards[k].push(sessions...)
			clear(sessions)
			d.ready[k] = sessions[:0]
		}
	}
}
