package wsedge

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidewire/tidewire/cache"
)

// The hub knows who is subscribed to what. A record finds its subscribers with one look-up for its key
// and one for each length of prefix that anyone is subscribed to; how many sessions, subscriptions and
// keys there are besides does not matter.
type hub struct {
	srv *Server

	mu     sync.RWMutex
	topics map[string]*topicHub
}

// topicHub is the hub of one topic. It is made by the first subscription and stays until the topic goes.
type topicHub struct {
	srv  *Server
	name string

	// mu is held for reading by a dispatcher while it wakes the subscribers of some records, for
	// writing while a subscription is added or removed: so a subscription that was added at certain
	// ends of the logs is woken for every record from there on.
	mu       sync.RWMutex
	dropped  bool
	null     bucket
	all      bucket
	keys     map[string]*bucket
	prefixes map[string]*bucket
	lengths  []prefixLength // of the prefixes, each once

	// dispatchers, by partition. The slice is replaced, with mu held for writing, and never changed:
	// who appends to a log wakes its dispatcher without waiting for mu.
	dispatchers atomic.Pointer[[]*dispatcher]
}

type prefixLength struct{ length, count int }

// bucket is the set of subscriptions to one subject.
type bucket struct{ subs []*subscription }

func (h *hub) init(srv *Server) {
	h.srv = srv
	h.topics = make(map[string]*topicHub)
}

// topic returns the hub of a topic that exists.
func (h *hub) topic(name string) *topicHub {
	h.mu.RLock()
	th := h.topics[name]
	h.mu.RUnlock()
	if th != nil {
		return th
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if th = h.topics[name]; th == nil {
		th = &topicHub{srv: h.srv, name: name, keys: make(map[string]*bucket), prefixes: make(map[string]*bucket)}
		th.dispatchers.Store(new([]*dispatcher))
		h.topics[name] = th
	}
	return th
}

func (h *hub) all() []*topicHub {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*topicHub, 0, len(h.topics))
	for _, th := range h.topics {
		all = append(all, th)
	}
	return all
}

// drop forgets a topic that is gone.
func (h *hub) drop(th *topicHub) {
	h.mu.Lock()
	if h.topics[th.name] == th {
		delete(h.topics, th.name)
	}
	h.mu.Unlock()
	th.mu.Lock()
	th.dropped = true
	for _, d := range *th.dispatchers.Load() {
		d.stop()
	}
	th.dispatchers.Store(new([]*dispatcher))
	th.mu.Unlock()
}

// appended wakes the dispatcher of a log. A partition that nobody has asked for yet gets its dispatcher
// here, if its topic has subscribers.
func (h *hub) appended(l *cache.Log) {
	h.mu.RLock()
	th := h.topics[l.Topic()]
	h.mu.RUnlock()
	if th == nil {
		return
	}
	d := th.dispatcher(l.Partition())
	if d == nil || d.log != l {
		th.mu.Lock()
		// A log that was dropped says so through here too, and must not come back.
		if held, ok := h.srv.cfg.Cache.Lookup(th.name, l.Partition()); ok && held == l {
			d = th.dispatch(l, l.Bounds().Start)
		}
		th.mu.Unlock()
	}
	if d != nil {
		d.notify()
	}
}

// follow sees that each partition has a dispatcher.
func (h *hub) follow(th *topicHub, partitions int32) {
	th.mu.Lock()
	defer th.mu.Unlock()
	for p := range partitions {
		if l, ok := h.srv.cfg.Cache.Lookup(th.name, p); ok && th.dispatcher(p) == nil {
			th.dispatch(l, l.Bounds().Start).notify()
		}
	}
}

// dispatcher returns the one of a partition, nil if there is none.
func (th *topicHub) dispatcher(partition int32) *dispatcher {
	list := *th.dispatchers.Load()
	i, ok := findDispatcher(list, partition)
	if !ok {
		return nil
	}
	return list[i]
}

func findDispatcher(list []*dispatcher, partition int32) (int, bool) {
	return slices.BinarySearchFunc(list, partition, func(d *dispatcher, p int32) int {
		return int(d.log.Partition()) - int(p)
	})
}

// dispatch returns the dispatcher of a log, starting it at an index if there is none. It returns nil when
// the topic or the server is gone. mu is held for writing.
func (th *topicHub) dispatch(l *cache.Log, from cache.Index) *dispatcher {
	list := *th.dispatchers.Load()
	i, ok := findDispatcher(list, l.Partition())
	if ok && list[i].log == l {
		return list[i]
	}
	if th.dropped {
		return nil
	}
	d := newDispatcher(th, l, from)
	list = slices.Clone(list)
	if ok { // the partition's log was dropped and made again
		list[i].stop()
		list[i] = d
	} else {
		list = slices.Insert(list, i, d)
	}
	th.dispatchers.Store(&list)
	th.srv.mu.Lock()
	if !th.srv.closed {
		th.srv.wg.Go(d.run)
	}
	th.srv.mu.Unlock()
	return d
}

func (th *topicHub) bucketOf(subject *Subject, make bool) *bucket {
	var in map[string]*bucket
	switch subject.Kind {
	case NullSubject:
		return &th.null
	case TopicPattern:
		return &th.all
	case PrefixPattern:
		in = th.prefixes
	default:
		in = th.keys
	}
	b := in[string(subject.Key)]
	if b == nil && make {
		b = new(bucket)
		in[string(subject.Key)] = b
		if subject.Kind == PrefixPattern {
			th.countLength(len(subject.Key), 1)
		}
	}
	return b
}

func (th *topicHub) countLength(length, by int) {
	i, ok := slices.BinarySearchFunc(th.lengths, length, func(l prefixLength, n int) int { return l.length - n })
	if !ok {
		th.lengths = slices.Insert(th.lengths, i, prefixLength{length: length})
	}
	if th.lengths[i].count += by; th.lengths[i].count == 0 {
		th.lengths = slices.Delete(th.lengths, i, i+1)
	}
}

// add lets records find a subscription. mu is held for writing.
func (th *topicHub) add(sub *subscription) {
	b := th.bucketOf(&sub.subject, true)
	sub.slot, sub.hubbed = len(b.subs), true
	b.subs = append(b.subs, sub)
}

// remove is the opposite of add.
func (th *topicHub) remove(sub *subscription) {
	th.mu.Lock()
	defer th.mu.Unlock()
	if !sub.hubbed {
		return
	}
	sub.hubbed = false
	b := th.bucketOf(&sub.subject, false)
	n := len(b.subs) - 1
	b.subs[sub.slot] = b.subs[n]
	b.subs[sub.slot].slot = sub.slot
	b.subs[n] = nil
	b.subs = b.subs[:n]
	if n > 0 {
		return
	}
	switch sub.subject.Kind {
	case KeySubject:
		delete(th.keys, string(sub.subject.Key))
	case PrefixPattern:
		delete(th.prefixes, string(sub.subject.Key))
		th.countLength(len(sub.subject.Key), -1)
	}
}

// subscriptions lists them all.
func (th *topicHub) subscriptions() []*subscription {
	th.mu.RLock()
	defer th.mu.RUnlock()
	var all []*subscription
	th.each(func(b *bucket) { all = append(all, b.subs...) })
	return all
}

// each calls f with every bucket. mu is held.
func (th *topicHub) each(f func(*bucket)) {
	f(&th.null)
	f(&th.all)
	for _, b := range th.keys {
		f(b)
	}
	for _, b := range th.prefixes {
		f(b)
	}
}
