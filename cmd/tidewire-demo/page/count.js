// Counts of one subscription what should not happen: records that were missed or came twice. It does not take the
// client's word but looks at positions: within a partition they must rise, and where the subscription is to every
// record of its topic, by one. (Kafka's offsets, and so positions, skip where a topic is compacted or written in
// transactions, which the demo's is not.)
export class Count {
  // every: the subscription is to every record of its topic. kept: what keep() returned, before a reload.
  constructor(every, kept) {
    this.every = every;
    this.missed = 0;
    this.repeated = 0;
    this.places = new Map(kept); // partition -> position of the last record
  }

  keep() {
    return [...this.places];
  }

  // take counts a message, and says whether it is one to show.
  take({ position }) {
    const [partition, epoch, seqno] = position;
    const last = this.places.get(partition);
    if (last && (epoch < last[1] || (epoch === last[1] && seqno <= last[2]))) {
      this.repeated++;
      return false;
    }
    // How far the epoch before went is not known here: the client is told, and tells of a gap.
    if (last && this.every) this.missed += seqno - 1 - (epoch === last[1] ? last[2] : 0);
    this.places.set(partition, position);
    return true;
  }

  // gap counts what the client says is lost, as far as it is known, and does not count it again as a hole.
  gap({ at, lost }) {
    for (const { from, to } of lost) if (from && to && from[0] === to[0]) this.missed += to[1] - from[1] + 1;
    this.places = new Map(at.map((p) => [p[0], p])); // may lie before: the cluster was made anew
  }
}
