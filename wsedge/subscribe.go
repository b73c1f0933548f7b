package wsedge

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidewire/tidewire/bridge"
	"github.com/tidewire/tidewire/cache"
)

// start says where a subscription begins in one partition.
type start struct {
	partition int32
	log       *cache.Log
	from      startKind
	place     cache.Index     // fromHistory, fromPlace
	pos       bridge.Position // fromPlace, fromReplay: everything up to here the client has
	how       *Resolution     // fromReplay; nil: to be resolved by the replay
	until     *cache.Bounds   // not nil: a history ends here, whatever has come since
}

// bounds is how far the log reaches, as far as the start is concerned.
func (st *start) bounds() cache.Bounds {
	if st.until != nil {
		return *st.until
	}
	return st.log.Bounds()
}

type startKind uint8

const (
	fromHead    startKind = iota // the next record
	fromBase                     // the first record that is cached
	fromHistory                  // an entry of the cache, or the first that is still there
	fromPlace                    // the entry of the cache after the client's position
	fromReplay                   // Kafka
)

// opening is the beginning of a subscription, worked out before any lock is taken.
type opening struct {
	starts    []start
	recovered bool // meant only when a vector was given
	gap       string
	lost      []lostRange
}

// subscribe carries out a sub that is allowed.
func (s *session) subscribe(op *Op) *OpError {
	srv, topic := s.srv, op.Subject.Topic
	if most := srv.cfg.Limits.Positions; most > 0 && len(op.Resume) > most {
		srv.limited(limitPositions)
		return &OpError{Code: codeLimit, Message: "resume has more than " + strconv.Itoa(most) + " positions"}
	}
	ctx, cancel := context.WithTimeout(srv.ctx, srv.cfg.ReadyTimeout)
	defer cancel()
	view, oe := srv.readyTopic(ctx, topic)
	if oe != nil {
		return oe
	}
	if n := len(op.Resume); n > 0 && op.Resume[n-1].Partition >= view.Partitions {
		// Another node may have told it of a partition that was added just now.
		var err error
		if view, err = srv.cfg.Backend.Grown(ctx, topic, op.Resume[n-1].Partition); err == nil {
			err = srv.cfg.Backend.Ready(ctx, topic)
		}
		if err != nil {
			return unavailable("the node does not know all partitions of the topic yet; try again", err)
		}
	}
	if n := len(op.Resume); n > 0 && op.Resume[n-1].Partition >= view.Partitions {
		return &OpError{Code: codeBadRequest, Message: "resume names partition " + strconv.Itoa(int(op.Resume[n-1].Partition)) +
			", but the topic has partitions 0 to " + strconv.Itoa(int(view.Partitions)-1)}
	}
	o, oe := s.open(ctx, op, view)
	if oe != nil {
		return oe
	}
	if most := int64(srv.cfg.Limits.WaitingReplays); most > 0 {
		need := int64(0)
		for i := range o.starts {
			if o.starts[i].from == fromReplay {
				need++
			}
		}
		if n := srv.replaying.Load(); need > 0 && n > 0 && n+need > most {
			srv.limited(limitWaitingReplays)
			return &OpError{Code: codeUnavailable, Message: "the node feeds too many subscriptions from Kafka already; try again", Retry: waitingRetry}
		}
	}
	if op.yes.over(srv.now()) { // the topic took longer to be ready than the answer holds
		if oe := s.decided(ctx, op); oe != nil {
			return oe
		}
	}
	sub, oe := s.begin(op, o)
	if sub != nil {
		// The topic may have gone since it was looked up, and whoever was told of that have found no
		// subscription to end. From here on they find this one.
		if view, ok := srv.cfg.Backend.Topic(topic); !ok || !view.Exposed {
			s.topicGone(sub)
		}
	}
	return oe
}

// readyTopic waits until the node can serve a topic to readers.
func (srv *Server) readyTopic(ctx context.Context, topic string) (TopicView, *OpError) {
	view, ok := srv.cfg.Backend.Topic(topic)
	if err := srv.cfg.Backend.Ready(ctx, topic); err != nil {
		return view, unavailable("the node has not got ready to serve the topic yet; try again", err)
	}
	if !ok {
		// A node that has just started learns only now which topics there are; a client that was
		// told that there is no such topic would give up.
		view, ok = srv.cfg.Backend.Topic(topic)
	}
	if !ok || !view.Exposed || view.Partitions < 1 {
		return view, notExposed()
	}
	return view, nil
}

// maySubscribe holds a sub against how much a session may be subscribed to.
func (s *session) maySubscribe(text string) *OpError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.subs[text]; ok {
		return &OpError{Code: codeAlreadySubscribed, Message: "this session is subscribed to the subject: send unsub first to begin anew"}
	}
	if n := s.srv.cfg.MaxSubscriptions; len(s.subs) >= n {
		s.srv.limited(limitSubscriptions)
		return &OpError{Code: codeLimit, Message: "a session has at most " + strconv.Itoa(n) + " subscriptions: use a pattern or unsub others"}
	}
	if s.subjects+len(text) > maxSubjects {
		s.srv.limited(limitSubscriptions)
		return &OpError{Code: codeLimit, Message: "the subjects of a session have at most " + strconv.Itoa(maxSubjects) + " bytes together: use a pattern or unsub others"}
	}
	return nil
}

// waitingRetry is after how long somebody may ask again for whom too many others were fed from Kafka.
const waitingRetry = 2 * time.Second

func notExposed() *OpError {
	return &OpError{Code: codeBadSubject, Message: "no such topic is open to clients", absent: true}
}

// unavailable turns a node's error into an answer.
func unavailable(message string, err error) *OpError {
	retry := time.Second
	var ue *bridge.UnavailableError
	if errors.As(err, &ue) && ue.RetryAfter > 0 {
		retry = ue.RetryAfter
	}
	return &OpError{Code: codeUnavailable, Message: message, Retry: retry}
}

// open finds out where to begin in each partition in which records of the subject may be.
func (s *session) open(ctx context.Context, op *Op, view TopicView) (*opening, *OpError) {
	o := &opening{recovered: true}
	var fresh []int // in o.starts
	partitions := partitionsOf(op, view)
	places, err := s.srv.resolve(ctx, op, partitions)
	if err != nil {
		return nil, unavailable("the place to resume from cannot be looked up now; try again", err)
	}
	for i, p := range partitions {
		st := start{partition: p, log: s.srv.cfg.Cache.Log(op.Subject.Topic, p)}
		isFresh := !op.Resumed
		if op.Resumed {
			st.from = fromBase
			if places[i].given {
				isFresh = s.resume(o, &st, places[i])
			}
		}
		if isFresh {
			st.from = fromHead
			fresh = append(fresh, len(o.starts))
		}
		o.starts = append(o.starts, st)
	}
	addHistory(o.starts, fresh, &op.Subject, op.History)
	return o, nil
}

// partitionsOf lists the partitions of a subscription, the key's own first: those in which the subject's
// records may be, and those the client's vector names, for a topic may have been scattered or smaller
// when the vector was made.
func partitionsOf(op *Op, view TopicView) []int32 {
	var list []int32
	if op.Subject.Kind == KeySubject && !view.Scattered {
		home := bridge.PartitionFor(op.Subject.Key, view.Partitions)
		list = append(list, home)
		for _, p := range op.Resume {
			if p.Partition != home {
				list = append(list, p.Partition)
			}
		}
		return list
	}
	for p := range view.Partitions {
		list = append(list, p)
	}
	return list
}

// resolving is how many partitions of one sub are asked for at a time: those who ask a coordinator at the same time share
// what its answer costs.
const resolving = 8

// A resolved is what the client's vector says of a partition, and the cluster of that.
type resolved struct {
	given bool
	at    bridge.Position
	how   Resolution
}

// resolve asks how to go on after the positions of a sub, for each of partitions. The first error ends it.
func (srv *Server) resolve(ctx context.Context, op *Op, partitions []int32) ([]resolved, error) {
	if !op.Resumed {
		return nil, nil
	}
	places := make([]resolved, len(partitions))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := func(i int) (err error) {
		p := &places[i]
		if p.at, p.given = positionIn(op.Resume, partitions[i]); p.given {
			p.how, err = srv.cfg.Backend.Resolve(ctx, bridge.TopicPartition{Topic: op.Subject.Topic, Partition: partitions[i]}, p.at)
		}
		return err
	}
	if len(partitions) == 1 { // as of most subjects
		return places, ask(0)
	}
	var next atomic.Int64
	var first error // that was not for another's sake
	var once sync.Once
	var wg sync.WaitGroup
	for range min(resolving, len(op.Resume)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(partitions); i = int(next.Add(1)) - 1 {
				if err := ask(i); err != nil {
					once.Do(func() { first = err; cancel() })
					return
				}
			}
		})
	}
	wg.Wait()
	return places, first
}

func positionIn(v []PartitionPosition, partition int32) (bridge.Position, bool) {
	for _, p := range v {
		if p.Partition == partition {
			return p.Position, true
		}
	}
	return bridge.Position{}, false
}

// resume goes on after a position. fresh is true when the cluster does not know it.
func (s *session) resume(o *opening, st *start, place resolved) (fresh bool) {
	at, how := place.at, place.how
	s.srv.metrics.resumed(how.Verdict)
	st.pos = at
	switch how.Verdict {
	case FromCache:
		// At is the same place, perhaps named by the epoch after. It may have left the cache since;
		// then the replay looks again.
		if how.At.After(at) {
			st.pos = how.At
		}
		st.seek(st.pos, nil)
	case FromKafka:
		st.from, st.how = fromReplay, &how
	case Lost:
		o.miss(how.Reason)
		if how.LostFrom != (bridge.Position{}) || how.LostTo != (bridge.Position{}) {
			o.lost = append(o.lost, lostRange{st.partition, how.LostFrom, how.LostTo})
		}
		st.pos = how.At
		st.seek(how.At, &how)
	default:
		o.miss(bridge.ReasonUnknownEpoch)
		return true
	}
	return false
}

// seek begins in the cache after a position if the cache reaches back that far, else in Kafka.
func (st *start) seek(at bridge.Position, how *Resolution) {
	if place, ok := st.log.Seek(at); ok {
		st.from, st.place = fromPlace, place
	} else {
		st.from, st.how = fromReplay, how
	}
}

// miss notes that something is missing. Of several reasons the one is told that says most.
func (o *opening) miss(reason string) {
	o.recovered = false
	rank := func(r string) int {
		switch r {
		case bridge.ReasonUnknownEpoch:
			return 3
		case bridge.ReasonTruncated:
			return 2
		case "":
			return 0
		}
		return 1
	}
	if rank(reason) > rank(o.gap) {
		o.gap = reason
	}
}

// begin makes the subscription: its cursors, its place in the hub, the answer. Since the topic's lock is
// held, no record is dispatched meanwhile, and each is either before a cursor's place or will wake it.
// A nil subscription without an error means that the session is at its end.
func (s *session) begin(op *Op, o *opening) (*subscription, *OpError) {
	th := s.srv.hub.topic(op.Subject.Topic)
	sub := &subscription{s: s, subject: op.Subject, text: op.Text, th: th, every: op.Conflate}
	cursors := make([]*cursor, len(o.starts))
	at := make(Vector, len(o.starts))

	s.mu.Lock()
	defer s.enqueue()
	defer s.mu.Unlock()
	if s.closing || s.gone {
		return nil, nil
	}
	if s.stream != nil && s.cursors+len(cursors) > maxStreamPositions {
		return nil, &OpError{Code: codeLimit, Message: "the subjects of an SSE connection span at most " + strconv.Itoa(maxStreamPositions) + " partitions together: use several connections, or WebSocket"}
	}
	if s.cursors+len(cursors) > maxCursors {
		s.srv.limited(limitSubscriptions)
		return nil, &OpError{Code: codeLimit, Message: "the subscriptions of a session span at most " + strconv.Itoa(maxCursors) + " partitions together: unsub others"}
	}
	th.mu.Lock()
	if th.dropped {
		th.mu.Unlock()
		return nil, unavailable("the topic is being made anew; try again", nil)
	}
	for i := range o.starts {
		st := &o.starts[i]
		b := st.log.Bounds()
		c := &cursor{sub: sub, log: st.log, partition: st.partition, liveAt: b.End, pos: st.pos, place: st.place, conflate: newConflation(op.Conflate)}
		c.d = th.dispatch(st.log, b.End)
		switch st.from {
		case fromHead:
			c.place, c.pos = b.End, b.Head
		case fromBase:
			c.place, c.pos = b.Start, b.Base
		case fromHistory:
			if c.pos = st.log.At(st.place); st.place <= b.Start {
				c.place, c.pos = b.Start, b.Base
			}
		case fromPlace:
			// The position may have been beyond what the log had when its place was looked for, and is not
			// any more.
			if i, ok := st.log.Seek(c.pos); ok && i > c.place {
				c.place = i
			}
			c.ahead = c.pos.After(b.Head)
		}
		c.live = st.from != fromReplay && c.place >= b.End
		c.more = st.from != fromReplay && c.place < b.End
		if !c.live {
			sub.waiting++
		}
		cursors[i] = c
		at[i] = PartitionPosition{st.partition, c.pos}
	}
	sub.cursors.Store(&cursors)
	if s.stream != nil {
		s.stream.begin(sub, cursors)
	}
	th.add(sub)
	th.mu.Unlock()

	if s.subs == nil {
		s.subs = make(map[string]*subscription)
	}
	s.subs[sub.text] = sub
	if sub.yes = op.yes; sub.yes.until != 0 {
		if st := s.standing; st.nextAsk == 0 || sub.yes.askAt < st.nextAsk {
			st.nextAsk = max(1, sub.yes.askAt)
		}
		s.wakeAt(s.standing.nextAsk)
	}
	sub.counted = len(cursors)
	s.cursors += sub.counted
	s.subjects += len(sub.text)
	s.srv.metrics.subscriptions.Add(1)
	sortVector(at)
	s.control = appendSubbed(s.control, op.ID, sub.text, at, op.Resumed, o.gap, o.lost)
	if sub.waiting == 0 {
		s.control = appendLive(s.control, sub.text)
	}
	for i, c := range cursors {
		switch {
		case o.starts[i].from == fromReplay:
			s.startReplay(c, o.starts[i].how)
		case c.more:
			s.activate(c)
		}
	}
	return sub, nil
}

// unsubscribe carries out an unsub.
func (s *session) unsubscribe(op *Op) *OpError {
	s.mu.Lock()
	sub := s.subs[op.Text]
	if sub == nil {
		s.mu.Unlock()
		return &OpError{Code: codeNotSubscribed, Message: "this session is not subscribed to the subject"}
	}
	delete(s.subs, op.Text)
	s.end(sub)
	s.control = appendUnsubbed(s.control, op.ID, op.Text, "asked")
	s.mu.Unlock()
	s.enqueue()
	return nil
}

// topicGone ends a subscription whose topic is not there any more.
func (s *session) topicGone(sub *subscription) {
	s.mu.Lock()
	if !sub.ended {
		delete(s.subs, sub.text)
		s.end(sub)
		s.control = appendUnsubbed(s.control, 0, sub.text, "topic_gone")
		if s.stream != nil && len(s.subs) == 0 {
			s.closeLocked(1001, "topic_gone", "") // nothing can come any more, and nobody can ask for more
		}
	}
	s.mu.Unlock()
	s.enqueue()
}
