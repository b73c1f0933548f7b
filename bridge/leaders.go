package bridge

// A leaderStart says that what was read from offset First on is of a leader epoch of Kafka's.
type leaderStart struct {
	Leader LeaderEpoch
	First  Offset
}

// A leaderList is the leader epochs of what a ledger has read last, both fields rising. It says what to ask
// Kafka when reading goes on, and where Kafka's log and what was read part. Empty: not known.
type leaderList []leaderStart

// maxLeaders bounds the list. One is added at each change of leader in Kafka that is followed by a record; a
// log that parts further back than the list reaches is followed in several steps, or, behind its
// beginning, not found out.
const maxLeaders = 16

// last is the leader epoch of the last batch that was read.
func (l leaderList) last() LeaderEpoch {
	if len(l) == 0 {
		return NoLeaderEpoch
	}
	return l[len(l)-1].Leader
}

// read notes that what was read from offset from on is of the epoch leader. The list is never changed in
// place: its copies share it.
func (l leaderList) read(leader LeaderEpoch, from Offset) leaderList {
	if leader < 0 || leader == l.last() {
		return l
	}
	if l.last() > leader { // no such log; the newest word counts, and what was before it is not known
		l = nil
	}
	l = append(l[:len(l):len(l)], leaderStart{leader, from})
	return l[max(0, len(l)-maxLeaders):]
}

// truncate forgets what was read at offset at and after it.
func (l leaderList) truncate(at Offset) leaderList {
	for len(l) > 0 && l[len(l)-1].First >= at {
		l = l[:len(l)-1]
	}
	return l
}

// parts returns where a log in which the epoch leader ends at end, and is followed by none of ours, parts
// from the one that was read up to next. It is the rule of Kafka's followers (KIP-279): the epoch ends
// where it ends first.
func (l leaderList) parts(leader LeaderEpoch, end, next Offset) Offset {
	at := min(max(end, 0), next)
	for _, s := range l {
		if s.Leader > leader {
			return min(at, s.First)
		}
	}
	return at
}

// holds says whether what Kafka holds now is what was read, as far as f goes and lies before next. In a log the
// epochs rise, and a log that was truncated goes on in an epoch that is higher than all that it had. So
// whatever took the place of what was read has another epoch than that had. What lies before the beginning
// of the list had at most its first epoch.
//
// Compaction leaves holes, of which it cannot be said where the epoch changed in them: records count, and
// the end of f, which is that of a batch.
func (l leaderList) holds(f Fetched, next Offset) bool {
	if f.Leader < 0 || len(l) == 0 {
		return true
	}
	for _, r := range f.Records {
		if r.Offset >= next {
			break
		}
		if !l.had(r.Offset, f.Leader) {
			return false
		}
	}
	return f.Next > next || f.Next == f.From || l.had(f.Next-1, f.Leader)
}

// had says whether leader was the epoch of what was read at an offset.
func (l leaderList) had(at Offset, leader LeaderEpoch) bool {
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].First <= at {
			return l[i].Leader == leader
		}
	}
	return leader <= l[0].Leader
}
