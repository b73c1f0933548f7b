package verify

import (
	"cmp"
	"slices"
)

// unanswered is how many records Kafka may have taken in a partition after the last one that it acknowledged:
// more than are on their way at a time.
const unanswered = 1000

// inferRemovals works out from Kafka's own word what went out of it during the run: a topic of another id
// was created again, a later first offset means records deleted, and a record that Kafka acknowledged to a
// producer of ours and has not got was truncated. What somebody else has said already is left alone.
func inferRemovals(before, after map[string]*topicState, h *History, said []Removal) []Removal {
	known := func(p Partition, which func(r *Removal) bool) bool {
		return slices.ContainsFunc(said, func(r Removal) bool { return r.Partition == p && which(&r) })
	}
	kept, gone := sortWrites(h)
	var out []Removal
	for topic, b := range before {
		a := after[topic]
		if a == nil {
			continue
		}
		for _, p := range b.partitions {
			part := Partition{topic, p}
			switch {
			case a.id != b.id:
				if !known(part, func(r *Removal) bool { return r.Kind == Recreated }) {
					out = append(out, recreated(part, max(b.end[p], h.acked(part)), kept[part], gone[part]))
				}
			case a.first[p] > b.first[p] && !known(part, func(r *Removal) bool { return r.covers(a.first[p] - 1) }):
				out = append(out, Removal{Partition: part, Kind: Deleted, From: b.first[p], To: a.first[p]})
			}
		}
	}
	said = slices.Concat(said, out)
	for p, lost := range gone {
		from := int64(-1)
		for _, w := range lost {
			if !known(p, func(r *Removal) bool { return r.covers(w.Offset) }) && (from < 0 || w.Offset < from) {
				from = w.Offset
			}
		}
		if from >= 0 {
			out = append(out, Removal{Partition: p, Kind: Truncated, From: from})
		}
	}
	slices.SortFunc(out, func(a, b Removal) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Index, b.Index), cmp.Compare(a.From, b.From))
	})
	return out
}

// sortWrites tells the acknowledged records of producers that Kafka has where it said from those that it has not.
func sortWrites(h *History) (kept, gone map[Partition][]Write) {
	type place struct {
		Partition
		offset int64
	}
	held := map[place]string{}
	for _, r := range h.Kafka {
		held[place{r.Partition, r.Offset}] = r.ID
	}
	kept, gone = map[Partition][]Write{}, map[Partition][]Write{}
	for _, w := range h.Written {
		switch {
		case w.Outcome != Committed || w.Offset < 0:
		case held[place{w.Partition, w.Offset}] == w.ID:
			kept[w.Partition] = append(kept[w.Partition], w)
		default:
			gone[w.Partition] = append(gone[w.Partition], w)
		}
	}
	return kept, gone
}

// acked returns the offset that follows all that publishes were told of a partition.
func (h *History) acked(part Partition) (end int64) {
	for _, p := range h.Publishes {
		for _, a := range p.Attempts {
			if a.Outcome == Acked && (Partition{p.Topic, a.Partition}) == part {
				end = max(end, a.Offset+1)
			}
		}
	}
	return end
}

// recreated is the removal of a partition's first log, of which all before end may have been. It reached a little
// farther than what is known to have been in it, and was gone when the first record of the next was acknowledged.
func recreated(part Partition, end int64, kept, gone []Write) Removal {
	rm := Removal{Partition: part, Kind: Recreated}
	for _, w := range gone {
		end = max(end, w.Offset+1)
	}
	rm.To = end + unanswered
	for _, w := range kept {
		if rm.Ended == 0 || w.At < rm.Ended {
			rm.Ended = w.At
		}
	}
	return rm
}
