// Counts of one subscription what should not happen: records that were missed or came twice. It does not take the
// client's word: within a partition positions must rise, and the sample producer numbers the prices of each
// symbol.
export class Count {
  // kept: what keep() returned, on the page before a reload.
  constructor(kept) {
    this.missed = 0;
    this.repeated = 0;
    this.places = new Map(kept?.places); // partition -> position of the last record
    this.numbers = new Map(kept?.numbers); // subject -> number of the last record
  }

  keep() {
    return { places: [...this.places], numbers: [...this.numbers] };
  }

  // take counts a message, and says whether it is one to show.
  take({ subject, position, value }) {
    const [partition, epoch, seqno] = position;
    const last = this.places.get(partition);
    if (last && (epoch < last[1] || (epoch === last[1] && seqno <= last[2]))) {
      this.repeated++;
      return false;
    }
    this.places.set(partition, position);
    const n = value?.n;
    if (Number.isSafeInteger(n)) {
      // A smaller number is that of a producer which began anew.
      if (n > this.numbers.get(subject) + 1) this.missed += n - this.numbers.get(subject) - 1;
      if (this.numbers.size > 10000) this.numbers.clear(); // costs a chance to notice, not a wrong count
      this.numbers.set(subject, n);
    }
    return true;
  }

  // gap counts what the client says is lost, as far as it is known, and does not count it again as a hole.
  gap({ at, lost }) {
    this.places = new Map(at.map((p) => [p[0], p])); // may lie before: the cluster was made anew
    for (const { from, to } of lost) if (from && to && from[0] === to[0]) this.missed += to[1] - from[1] + 1;
    this.numbers.clear();
  }
}
