package auth

import (
	"slices"

	"github.com/tidewire/tidewire/wsedge/subject"
)

// A set is a set of subjects and patterns, by topic. Whether it covers something takes one look for each length of
// prefix in it, however many rights there are: a session that renews its token has all its subscriptions asked
// about while it is locked.
type set map[string]*topicSet

type topicSet struct {
	all, null bool
	keys      map[string]struct{}
	prefixes  map[string]struct{}
	lengths   []int // of the prefixes, each once, sorted
}

func (s *set) add(o subject.Subject) {
	if *s == nil {
		*s = make(set)
	}
	t := (*s)[o.Topic]
	if t == nil {
		t = &topicSet{keys: make(map[string]struct{}), prefixes: make(map[string]struct{})}
		(*s)[o.Topic] = t
	}
	switch o.Kind {
	case subject.WholeTopic:
		t.all = true
	case subject.NullKey:
		t.null = true
	case subject.OneKey:
		t.keys[string(o.Key)] = struct{}{}
	case subject.KeyPrefix:
		t.prefixes[string(o.Key)] = struct{}{}
		if i, found := slices.BinarySearch(t.lengths, len(o.Key)); !found {
			t.lengths = slices.Insert(t.lengths, i, len(o.Key))
		}
	}
}

// covers says whether one member covers all of o, as subject.Subject.Covers does.
func (s set) covers(o subject.Subject) bool {
	t := s[o.Topic]
	switch {
	case t == nil:
		return false
	case t.all:
		return true
	case o.Kind == subject.NullKey:
		return t.null
	case o.Kind == subject.WholeTopic:
		return false
	case o.Kind == subject.OneKey:
		if _, ok := t.keys[string(o.Key)]; ok {
			return true
		}
	}
	for _, n := range t.lengths {
		if n > len(o.Key) {
			break
		}
		if _, ok := t.prefixes[string(o.Key[:n])]; ok {
			return true
		}
	}
	return false
}
