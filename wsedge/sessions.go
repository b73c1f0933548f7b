package wsedge

import (
	"cmp"
	"context"
	"slices"
	"unicode/utf8"

	"github.com/tidewire/tidewire/cache"
)

// This file lists sessions for operators while the edge works on. It looks at the sessions a few at a time and
// keeps only those that it is asked for, so that neither a lock nor memory grows with what is connected:
// Server.mu is held for sessionStep sessions, a session.mu for cursorStep cursors.

const (
	sessionStep = 256
	cursorStep  = 512

	// MaxSessionsListed bounds SessionQuery.Offset and Limit together.
	MaxSessionsListed = 1000
	// MaxSubscriptionsListed bounds SessionQuery.Subscriptions.
	MaxSubscriptionsListed = 200
	// maxSubjectListed is how many bytes of a subject are told: a key may have 64 KB.
	maxSubjectListed = 256
)

// SessionQuery says which sessions to list.
type SessionQuery struct {
	ID            string // only this one; empty: the furthest behind first
	Offset, Limit int    // of the list; together at most MaxSessionsListed
	Subscriptions int    // how many of each session to tell, the furthest behind first; at most MaxSubscriptionsListed
}

// SessionPage is a part of the list of sessions, in the order of how far behind they are. The list is made
// while sessions move on, come and go: two pages of it need not fit together.
type SessionPage struct {
	Connections   int64         `json:"connections"`
	Subscriptions int64         `json:"subscriptions"`
	Blocked       int64         `json:"blocked"`
	Behind        int           `json:"behind"` // sessions that have something to send
	Sessions      []SessionInfo `json:"sessions"`
}

// SessionInfo is one client's connection.
//
// Lag is an estimate in records, the sum over the subscriptions: what lies in the cache between what was sent
// and the end. Subscriptions to a key or a prefix count the other keys' records in between too. One that is
// fed from Kafka counts from where it began to be, and only the records of the newest epoch if it began in an
// older one. A conflated one that waits for its interval to be over is not behind.
type SessionInfo struct {
	ID            string             `json:"id"` // as in welcome
	Remote        string             `json:"remote"`
	User          string             `json:"user,omitempty"`   // whose token it has shown, at most 256 bytes of it
	Stream        bool               `json:"stream,omitempty"` // Server-Sent Events, not a WebSocket
	Since         int64              `json:"since"`            // unix milliseconds
	Blocked       bool               `json:"blocked"`
	Lag           int64              `json:"lag"`
	Subscriptions int                `json:"subscriptions"`
	Furthest      []SubscriptionInfo `json:"furthest"` // of these, the ones furthest behind
}

// SubscriptionInfo is one subscription of a session.
type SubscriptionInfo struct {
	Subject    string `json:"subject"`       // at most 256 bytes of it
	Cut        bool   `json:"cut,omitempty"` // there is more of the subject
	Partitions int    `json:"partitions"`
	Lag        int64  `json:"lag"`
	FromKafka  bool   `json:"from_kafka,omitempty"` // what it reads has left the cache
}

// Sessions lists sessions. It ends early, with ctx's error, when ctx ends. Any goroutine may call it.
func (srv *Server) Sessions(ctx context.Context, q SessionQuery) (SessionPage, error) {
	q.Offset = min(max(q.Offset, 0), MaxSessionsListed)
	q.Limit = min(max(q.Limit, 0), MaxSessionsListed-q.Offset)
	q.Subscriptions = min(max(q.Subscriptions, 0), MaxSubscriptionsListed)
	type ranked struct {
		s   *session
		lag int64
	}
	st := srv.Stats()
	page := SessionPage{Connections: st.Connections, Subscriptions: st.Subscriptions, Blocked: st.Blocked, Sessions: []SessionInfo{}}
	list := furthest[ranked]{limit: q.Offset + q.Limit, compare: func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.lag, a.lag), cmp.Compare(a.s.id, b.s.id))
	}}
	err := srv.eachSession(ctx, func(s *session) {
		lag, _ := s.look(nil)
		if lag > 0 {
			page.Behind++
		}
		if q.ID == "" || q.ID == s.name() {
			list.add(ranked{s, lag})
		}
	})
	if err != nil {
		return SessionPage{}, err
	}
	for _, r := range list.items[min(q.Offset, len(list.items)):] {
		page.Sessions = append(page.Sessions, r.s.info(q.Subscriptions))
	}
	return page, nil
}

// eachSession calls f with every session that is there all the while, without a lock held. A range over a map
// allows for what is added and taken out between its steps, so the lock may be given up there.
func (srv *Server) eachSession(ctx context.Context, f func(*session)) error {
	some := make([]*session, 0, sessionStep)
	look := func() {
		for _, s := range some {
			f(s)
		}
		clear(some)
		some = some[:0]
	}
	srv.mu.Lock()
	for s := range srv.sessions {
		if some = append(some, s); len(some) < sessionStep {
			continue
		}
		srv.mu.Unlock()
		look()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		srv.mu.Lock()
	}
	srv.mu.Unlock()
	look()
	return ctx.Err()
}

// info tells of a session, and of some of its subscriptions.
func (s *session) info(subscriptions int) SessionInfo {
	list := furthest[SubscriptionInfo]{limit: subscriptions, items: []SubscriptionInfo{}, compare: func(a, b SubscriptionInfo) int {
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.Subject, b.Subject))
	}}
	remote := s.conn.RemoteAddr()
	info := SessionInfo{ID: s.name(), Remote: remote.String(), Since: s.began, Stream: s.stream != nil}
	if s.addr.IsValid() && s.addr != addressOf(remote) {
		info.Remote = s.addr.String() // a proxy stands between
	}
	info.Lag, info.Subscriptions = s.look(list.add)
	if id := s.identity(); id != nil {
		info.User, _ = shortened(id.Subject, maxSubjectListed)
	}
	s.mu.Lock()
	info.Blocked = s.blocked
	s.mu.Unlock()
	info.Furthest = list.items
	return info
}

// look sums up how far the subscriptions are behind and tells each of them, if each is not nil. mu is given up
// again and again: a session may have ten thousand subscriptions, and one of them many partitions.
func (s *session) look(each func(SubscriptionInfo)) (lag int64, subscriptions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := 0
	for _, sub := range s.subs {
		if sub.ended {
			continue // while mu was given up
		}
		subscriptions++
		cursors := *sub.cursors.Load()
		info := SubscriptionInfo{Partitions: len(cursors)}
		for _, c := range cursors {
			behind, fromKafka := c.behind()
			info.Lag += behind
			info.FromKafka = info.FromKafka || fromKafka
			if steps++; steps%cursorStep == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
		}
		lag += info.Lag
		if each != nil {
			info.Subject, info.Cut = shortened(sub.text, maxSubjectListed)
			each(info)
		}
	}
	return lag, subscriptions
}

// behind estimates how many records the cursor has still to send, see SessionInfo. session.mu is held.
func (c *cursor) behind() (records int64, fromKafka bool) {
	b := c.log.Bounds()
	if c.replay != nil && !c.replay.joined {
		records = int64(b.Head.Seqno)
		if b.Head.Epoch == c.pos.Epoch {
			records -= int64(c.pos.Seqno)
		}
		return max(0, records), true
	}
	if c.conflate != nil && c.conflate.parked {
		return 0, false // it waits because it asked to
	}
	place := c.place
	switch found := c.found.Load(); {
	case found == lostTrack:
		place = min(place, b.Start) // it has to look at all that is cached
	case c.more:
	case found == 0:
		return 0, false // idle, however long ago: nothing of its subject has come since
	default:
		place = max(place, cache.Index(found-1))
	}
	if place >= b.End {
		return 0, false
	}
	return int64(b.End - place), false
}

// shortened returns at most limit bytes of a text, whole characters, and whether that is not all.
func shortened(text string, limit int) (string, bool) {
	if len(text) <= limit {
		return text, false
	}
	for !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit], true
}

// furthest keeps the first items of an order, at most limit of them.
type furthest[T any] struct {
	limit   int
	compare func(a, b T) int
	items   []T
}

func (f *furthest[T]) add(item T) {
	if n := len(f.items); n == f.limit {
		if n == 0 || f.compare(item, f.items[n-1]) >= 0 {
			return
		}
		f.items = f.items[:n-1]
	}
	i, _ := slices.BinarySearchFunc(f.items, item, f.compare)
	f.items = slices.Insert(f.items, i, item)
}
