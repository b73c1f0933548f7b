package tidewire

import "strings"

// A pattern is a subject whose last segment is "*". What it covers is decided by text: "/t/*" covers
// "/t" (records without a key) and "/t/…"; "/t/a/*" covers "/t/a/…".

func patternPrefix(subject string) (prefix string, ok bool) {
	prefix, ok = strings.CutSuffix(subject, "*")
	return prefix, ok && strings.HasSuffix(prefix, "/") && len(prefix) > 1
}

// covers says whether a subscription to sub receives the records of subject.
func covers(sub, subject string) bool {
	prefix, ok := patternPrefix(sub)
	if !ok {
		return sub == subject
	}
	if strings.HasPrefix(subject, prefix) {
		return true
	}
	whole := strings.Count(prefix, "/") == 2 // "/topic/": the whole topic, null keys too
	return whole && subject == prefix[:len(prefix)-1]
}

// overlap says whether a record can exist that both subscriptions receive.
func overlap(a, b string) bool {
	pa, aIs := patternPrefix(a)
	pb, bIs := patternPrefix(b)
	switch {
	case aIs && bIs:
		return strings.HasPrefix(pa, pb) || strings.HasPrefix(pb, pa)
	case aIs:
		return covers(a, b)
	default:
		return covers(b, a)
	}
}
