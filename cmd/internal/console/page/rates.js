// Rates are the differences of the counters in /status. A node that started anew counts from zero, one that
// was silent for a while has done its work in between, and an older one has no counters at all.

export const KEEP = 120; // points of a series

// between returns a node's rates a second from one status to the next, null where it cannot be said.
export function between(before, now, seconds) {
  if (!before?.counters || !now.counters || now.uptime_seconds < before.uptime_seconds || seconds <= 0) return null;
  const out = {};
  for (const [name, value] of Object.entries(now.counters)) {
    const d = value - (before.counters[name] ?? NaN);
    out[name] = d >= 0 ? d / seconds : null;
  }
  return out;
}

const sum = (list) => (list.length ? list.reduce((a, b) => a + b, 0) : null);

export class Rates {
  constructor() {
    this.last = new Map(); // node -> {at, status}
    this.nodes = new Map(); // node -> its rates now
    this.partitions = new Map(); // topic/partition -> {at, next, rate}
    this.series = new Map(); // name -> the last values, null where unknown
  }

  // feed takes a cluster's status that came at a time in milliseconds.
  feed(cluster, at) {
    for (const status of cluster.nodes) {
      const last = this.last.get(status.node);
      this.nodes.set(status.node, last ? between(last.status, status, (at - last.at) / 1000) : null);
      this.last.set(status.node, { at, status });
    }
    const here = cluster.nodes.map((n) => n.node);
    for (const node of this.nodes.keys()) if (!here.includes(node)) this.nodes.delete(node);
    const of = (name) => here.map((n) => this.nodes.get(n)?.[name]).filter((v) => typeof v === 'number');
    // Each node takes in all records: the best informed one is right for the cluster.
    const most = (name) => (of(name).length ? Math.max(...of(name)) : null);
    this.add('records', most('records'));
    this.add('record_bytes', most('record_bytes'));
    for (const name of ['delivered', 'delivered_bytes', 'publishes', 'not_published', 'slow_closes']) this.add(name, sum(of(name)));
    for (const name of ['connections', 'subscriptions', 'blocked']) this.add(name, sum(cluster.nodes.map((n) => n[name]).filter((v) => typeof v === 'number')));
  }

  add(name, value) {
    let s = this.series.get(name);
    if (!s) this.series.set(name, (s = []));
    s.push(value);
    if (s.length > KEEP) s.shift();
  }

  now(name) { return this.series.get(name)?.at(-1) ?? null; }

  // partition returns how many offsets a second a partition moved on since it was last asked about.
  partition(key, next, at) {
    const p = this.partitions.get(key);
    if (!p || next < p.next) {
      this.partitions.set(key, { at, next, rate: null });
      return null;
    }
    if (at > p.at) this.partitions.set(key, { at, next, rate: ((next - p.next) * 1000) / (at - p.at) });
    return this.partitions.get(key).rate;
  }
}
