package verify

// Judge says which promises a history shows to be broken. It depends on nothing but the history.
//
// Kafka's read_committed view is the truth about records, and the writers' own knowledge about those that
// were removed from Kafka since. The order of a partition is that of its positions, which are worked out
// from all that was told of them (learn); then each subscriber's stream is held against it (judgeStream).
func Judge(h History) Report {
	r := Report{Subscribers: len(h.Subscribers)}
	t := learn(&h, &r)
	t.judgeOrder(&r)
	for i := range h.Subscribers {
		judgeStream(&h, t, &h.Subscribers[i], &r)
	}
	judgePublishes(&h, t, &r)
	judgeTimes(&h, t, &r)
	if !h.Settled {
		r.note("the recording was cut short: what is missing at the ends of the streams was not judged")
	}
	return r
}
