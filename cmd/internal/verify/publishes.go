package verify

import "fmt"

// judgePublishes holds the answers to publishes against Kafka. An acknowledged message must be where the
// acknowledgement says. That Kafka took one twice is no breach by itself: the answer to the first write may
// have been lost with its coordinator. Subscribers getting both is, and judgeStream sees it.
func judgePublishes(h *History, t *truth, r *Report) {
	errs := map[string]int{}
	for i := range h.Publishes {
		p := &h.Publishes[i]
		r.Published++
		if len(p.Attempts) > 1 {
			r.Retried++
		}
		acked := false
		for _, a := range p.Attempts {
			switch a.Outcome {
			case Refused:
				errs[a.Code]++
			case Acked:
				acked = true
				if a.Duplicate {
					r.Duplicates++
				}
				judgeAck(p, a, t, r)
			}
		}
		if acked {
			r.Acked++
			judgeRepeats(p, r)
		}
	}
	for _, code := range sortedKeys(errs) {
		r.note("%d publishes were answered %s", errs[code], code)
	}
}

func judgeAck(p *Publish, a Attempt, t *truth, r *Report) {
	part := Partition{p.Topic, a.Partition}
	b := Breach{Kind: AckedLost, Partition: part.String(), Time: a.Answered}
	l := t.lines[part]
	switch {
	case l == nil || len(l.byID[p.ID]) == 0:
		b.Detail = fmt.Sprintf("%s (mid %s) was acknowledged at offset %d by %s and is not in Kafka", p.ID, p.Mid, a.Offset, a.Node)
		r.breach(1, b)
		return
	case l.at(p.ID, a.Offset) == nil:
		b.Detail = fmt.Sprintf("%s (mid %s) was acknowledged at offset %d by %s and is at offset %d in Kafka", p.ID, p.Mid, a.Offset, a.Node, l.byID[p.ID][0].offset)
		r.breach(1, b)
		return
	}
	if a.Ack == "replicated" && a.Pos == (Pos{}) {
		b.Kind, b.Detail = WrongAnswer, fmt.Sprintf("%s was acknowledged as replicated by %s without a position", p.ID, a.Node)
		r.breach(1, b)
	}
}

// judgeRepeats reports a message that was sent again after it had been acknowledged with its position,
// when the cluster therefore knew it, and was written again all the same.
func judgeRepeats(p *Publish, r *Report) {
	var known *Attempt
	for i := range p.Attempts {
		a := &p.Attempts[i]
		if a.Outcome != Acked {
			continue
		}
		if known != nil && a.Sent >= known.Answered && a.Partition == known.Partition && a.Offset != known.Offset && !a.Duplicate {
			r.breach(1, Breach{Kind: AckedTwice, Partition: Partition{p.Topic, a.Partition}.String(), Time: a.Answered,
				Detail: fmt.Sprintf("%s (mid %s), acknowledged at offset %d by %s with its position, was written again at offset %d by %s", p.ID, p.Mid, known.Offset, known.Node, a.Offset, a.Node)})
		}
		if known == nil && a.Pos != (Pos{}) {
			known = a
		}
	}
}
