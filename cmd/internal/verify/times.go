package verify

import (
	"fmt"
	"slices"
	"time"
)

// judgeTimes measures how long subscribers waited.
func judgeTimes(h *History, t *truth, r *Report) {
	all := silences(h, t)
	if len(all) > 0 {
		r.Silence = all[0]
	}
	r.Silences = all[:min(len(all), 20)]
	for _, s := range all {
		if h.Limits.Silence == 0 || s.For <= h.Limits.Silence {
			break
		}
		r.breach(1, Breach{Kind: TooSilent, Subscriber: s.Subscriber, Partition: s.Partition, Time: s.From,
			Detail: fmt.Sprintf("%s without a record while one was in Kafka, on %s; the limit is %s", s.For.Round(time.Millisecond), s.Node, h.Limits.Silence)})
	}
	resume, catchUp := map[string][]time.Duration{}, map[string][]time.Duration{}
	for i := range h.Subscribers {
		r.Unended += resumes(&h.Subscribers[i], r, h.Limits.Resume, resume, catchUp)
	}
	r.ToResume, r.ToCatchUp = summary(resume), summary(catchUp)
}

func summary(by map[string][]time.Duration) map[string]Percentiles {
	out := map[string]Percentiles{}
	for cause, d := range by {
		out[cause] = percentiles(d)
	}
	return out
}

// leastSilence is the shortest one worth a line.
const leastSilence = 10 * time.Millisecond

// Silences returns the silences of a history that overlap [from, to), longest first: each a time in which
// a record of one partition was in Kafka and waited for a subscriber whose connection lived through it.
// What is shorter than 10 ms is left out, and so are slow readers and nodes that were away.
func Silences(h History, from, to time.Duration) []Silence {
	var r Report
	var out []Silence
	for _, s := range silences(&h, learn(&h, &r)) {
		if s.From < to && s.From+s.For > from {
			out = append(out, s)
		}
	}
	return out
}

func silences(h *History, t *truth) []Silence {
	var out []Silence
	for i := range h.Subscribers {
		if s := &h.Subscribers[i]; !s.Slow {
			out = append(out, t.silencesOf(h, s)...)
		}
	}
	slices.SortStableFunc(out, func(a, b Silence) int { return int(b.For - a.For) })
	return out
}

// silencesOf goes by partition: each has its own coordinator, and one partition's flow says nothing about
// another's.
func (t *truth) silencesOf(h *History, s *Subscriber) []Silence {
	var out []Silence
	topic, node := topicOf(s.Subject), ""
	last := map[int32]time.Duration{} // when a record of the partition last came on this connection
	since := time.Duration(-1)        // when this connection's subscription was made
	for i := range s.Events {
		switch e := &s.Events[i]; e.Kind {
		case Connect:
			node, since = e.Node, -1
			clear(last)
		case Disconnect:
			since = -1
		case Subbed:
			since = e.Time
		case Msg:
			if since < 0 {
				continue
			}
			p := Partition{topic, e.Partition}
			from, ok := last[e.Partition]
			last[e.Partition] = e.Time
			l := t.lines[p]
			if l == nil || len(l.byID[e.ID]) != 1 || l.byID[e.ID][0].due < 0 {
				continue
			}
			if !ok {
				from = since
			}
			from = max(from, l.byID[e.ID][0].due)
			if e.Time-from >= leastSilence && !h.away(node, from, e.Time) {
				out = append(out, Silence{For: e.Time - from, From: from, Subscriber: s.Name, Node: node, Partition: p.String()})
			}
		}
	}
	return out
}

// away says whether a node was away at some time in [from, to).
func (h *History) away(node string, from, to time.Duration) bool {
	for _, a := range h.Away {
		if a.Node == node && a.From < to && (a.To == 0 || a.To > from) {
			return true
		}
	}
	return false
}

// resumes measures the ways back of one subscriber; it returns 1 if it was still on one at the end.
func resumes(s *Subscriber, r *Report, limit time.Duration, resume, catchUp map[string][]time.Duration) int {
	var lost, caught *Event // the disconnect that no subscription, no live, has followed yet
	had := false
	for i := range s.Events {
		switch e := &s.Events[i]; e.Kind {
		case Disconnect:
			r.Disconnects++
			if had && lost == nil {
				lost, caught = e, e
			}
		case Subbed:
			had = true
			if lost == nil {
				continue
			}
			took := e.Time - lost.Time
			add(resume, lost, took)
			if limit > 0 && took > limit {
				r.breach(1, Breach{Kind: TooLate, Subscriber: s.Name, Time: lost.Time,
					Detail: fmt.Sprintf("%s from a disconnect (%s) to the next subscription; the limit is %s", took.Round(time.Millisecond), by(lost), limit)})
			}
			lost = nil
		case Live:
			if caught != nil && lost == nil {
				add(catchUp, caught, e.Time-caught.Time)
				caught = nil
			}
		}
	}
	if lost != nil && lost.Time < s.Events[len(s.Events)-1].Time {
		return 1
	}
	return 0
}

func by(e *Event) string {
	if e.Detail == nil || e.By == "" {
		return ByBreak
	}
	return e.By
}

func add(m map[string][]time.Duration, e *Event, d time.Duration) {
	m[by(e)] = append(m[by(e)], d)
	m["all"] = append(m["all"], d)
}
