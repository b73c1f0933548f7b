// A small client of Tidewire's protocol (docs/protocol.md, "What a good client does") that counts what it
// promises: records that were missed or repeated. It knows nothing of the page.

const BASE_MS = 250, CAP_MS = 20000;
const KEY = 'tidewire', KEEP_MS = 10 * 60000; // in the storage; older places are not worth resuming

// after says whether position a = [partition, epoch, seqno] is later than b.
const after = (a, b) => a[1] > b[1] || (a[1] === b[1] && a[2] > b[2]);

export class Client {
  // nodes: [{id, url}]; on: {state, record, moved, gap}, all optional functions. With options.storage (a
  // Storage, such as sessionStorage) the places of the subscriptions outlive the page: what options.keep()
  // returns is kept with them, as one, and is in this.kept when the page comes back.
  constructor(nodes, on, options = {}) {
    this.nodes = nodes;
    this.on = on;
    this.socket = options.WebSocket ?? globalThis.WebSocket;
    this.base = options.base ?? BASE_MS;
    this.at = 0;             // which of nodes comes next
    this.attempt = 0;
    this.node = null;        // the name of the node connected to
    this.before = null;      // the one before it
    this.subs = new Map();   // subject -> {history, vector, state, missed, repeated}
    this.pubs = new Map();   // id -> {frame, resolve, reject}
    this.calls = new Map();  // id -> subject, of subs that wait for an answer
    this.last = new Map();   // "partition subject" -> [epoch, seqno] of the last record
    this.id = 0;
    this.missed = 0;
    this.repeated = 0;
    this.storage = options.storage;
    this.keep = options.keep;
    this.places = {};        // subject -> vector, of the page before
    this.load();
    globalThis.addEventListener?.('pagehide', () => this.save());
    globalThis.addEventListener?.('online', () => this.wake());
    this.connect();
  }

  // save keeps where the subscriptions are, and what the page has of them.
  save() {
    const subs = {};
    for (const [subject, sub] of this.subs) if (sub.vector) subs[subject] = [...sub.vector.values()];
    try {
      this.storage?.setItem(KEY, JSON.stringify({ at: Date.now(), subs, kept: this.keep?.() }));
    } catch {
      // The storage is full or forbidden: a reload begins anew.
    }
  }

  load() {
    try {
      const stored = JSON.parse(this.storage?.getItem(KEY) ?? 'null');
      if (!stored || !(Date.now() - stored.at < KEEP_MS)) return;
      this.places = stored.subs;
      this.kept = stored.kept;
    } catch {
      // not ours, or forbidden
    }
  }

  // wake connects anew at once: the network has come back, and what was connected may be dead without a word.
  wake() {
    if (this.closed) return;
    const old = this.ws;
    this.lost();
    old.close();
    clearTimeout(this.timer);
    this.attempt = 0;
    this.connect();
  }

  subscribe(subject, history = 0) {
    const place = this.places[subject];
    const vector = Array.isArray(place) ? new Map(place.map((p) => [p[0], p])) : null;
    this.subs.set(subject, { history, vector, state: 'idle', missed: 0, repeated: 0 });
    this.start(subject);
  }

  // publish resolves with the acked object, and repeats the message with the same id until then.
  publish(subject, data, mid, headers) {
    const id = ++this.id;
    const frame = JSON.stringify({ op: 'pub', id, subject, data, mid, headers, ack: 'replicated' });
    return new Promise((resolve, reject) => {
      this.pubs.set(id, { frame, resolve, reject });
      this.send(frame);
    });
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.ws?.close(1000);
  }

  send(frame) {
    if (this.node && this.ws.readyState === 1) this.ws.send(frame);
  }

  connect() {
    const target = this.nodes[this.at++ % this.nodes.length];
    const ws = new this.socket(target.url, 'tidewire.v1.json');
    this.ws = ws;
    this.retry = 0;
    this.useful = false;
    this.listen(10000); // until the welcome says how long silence may last
    ws.onmessage = (event) => {
      if (ws !== this.ws) return;
      this.listen();
      this.handle(JSON.parse(event.data));
    };
    ws.onclose = () => { if (ws === this.ws) this.lost(); };
  }

  // listen ends the connection unless something is heard in time.
  listen(ms) {
    if (ms) this.patience = ms;
    clearTimeout(this.silence);
    const ws = this.ws;
    this.silence = setTimeout(() => {
      ws.close();
      if (ws === this.ws) this.lost(); // close() of a dead connection may take a minute to say so
    }, this.patience);
  }

  lost() {
    this.ws.onclose = this.ws.onmessage = null;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    if (this.node) this.before = this.node;
    this.node = null;
    this.calls.clear();
    for (const sub of this.subs.values()) sub.state = 'idle';
    if (this.closed) return;
    if (this.useful) this.attempt = 0;
    const wait = Math.max(this.retry, Math.random() * Math.min(CAP_MS, this.base * 2 ** Math.min(this.attempt++, 16)));
    this.on.state?.({ connected: false, node: this.before, wait });
    this.timer = setTimeout(() => this.connect(), wait);
  }

  start(subject) {
    const sub = this.subs.get(subject);
    if (!this.node || sub.state !== 'idle') return;
    sub.state = 'starting';
    const id = ++this.id;
    this.calls.set(id, subject);
    const op = { op: 'sub', id, subject };
    if (sub.vector) op.resume = [...sub.vector.values()];
    else op.history = sub.history;
    this.send(JSON.stringify(op));
  }

  handle(m) {
    switch (m.op) {
      case 'welcome':
        this.node = m.node;
        this.listen(2 * (m.heartbeat_ms || 25000));
        this.on.state?.({ connected: true, node: m.node });
        for (const subject of this.subs.keys()) this.start(subject);
        for (const pub of this.pubs.values()) this.send(pub.frame);
        break;
      case 'subbed': this.subbed(m); break;
      case 'msg': this.useful = true; this.record(m); break;
      case 'gap': {
        const sub = this.subs.get(m.subject);
        if (!sub?.vector) break;
        for (const p of m.at) sub.vector.set(p[0], p);
        this.last.clear();
        this.on.gap?.(m.subject, m.reason);
        break;
      }
      case 'unsubbed': {
        const sub = this.subs.get(m.subject);
        if (sub) sub.state = 'ended';
        break;
      }
      case 'acked': {
        const pub = this.pubs.get(m.id);
        this.pubs.delete(m.id);
        this.useful = true;
        pub?.resolve(m);
        break;
      }
      case 'bye': this.retry = Math.min(m.retry_ms || 0, 60000); break;
      case 'error': this.refused(m); break;
    }
  }

  subbed(m) {
    const subject = this.calls.get(m.id);
    const sub = this.subs.get(subject);
    this.calls.delete(m.id);
    if (!sub) return;
    const resumed = sub.vector !== null;
    this.useful = true;
    sub.state = 'active';
    sub.vector = new Map(m.at.map((p) => [p[0], p]));
    if (m.recovered === false) {
      this.last.clear(); // what is missing has been said: it is not counted as a hole too
      this.on.gap?.(subject, m.gap);
    } else if (resumed) {
      this.on.moved?.({ subject, from: this.before, to: this.node });
    }
  }

  record(m) {
    // The page's subscriptions do not overlap, so one of them is meant.
    const sub = this.subs.get(m.subject) ?? this.subs.get('/' + m.subject.split('/')[1] + '/*');
    if (!sub || sub.state !== 'active') return;
    const place = sub.vector.get(m.pos[0]);
    if (place && !after(m.pos, place)) {
      this.repeated++;
      return;
    }
    // prev names the record before this one of the same subject and partition: it must be the last one
    // that was seen, or lie before where this subscription started.
    const key = m.pos[0] + ' ' + m.subject;
    const seen = this.last.get(key);
    if (m.prev && seen && after([0, ...m.prev], [0, ...seen])) this.missed++;
    if (m.prev && !seen && place && after([0, ...m.prev], place)) this.missed++;
    if (this.last.size > 10000) this.last.clear(); // costs a chance to notice, not a wrong count
    this.last.set(key, [m.pos[1], m.pos[2]]);
    sub.vector.set(m.pos[0], m.pos);
    this.on.record?.(m);
  }

  refused(m) {
    const later = Math.max(m.retry_ms || 0, 50);
    const subject = this.calls.get(m.id);
    if (subject !== undefined) {
      this.calls.delete(m.id);
      const sub = this.subs.get(subject);
      sub.state = 'idle';
      if (m.retry_ms) setTimeout(() => this.start(subject), later);
      else sub.state = 'ended';
    }
    const pub = this.pubs.get(m.id);
    if (pub && m.retry_ms) setTimeout(() => { if (this.pubs.has(m.id)) this.send(pub.frame); }, later);
    else if (pub) {
      this.pubs.delete(m.id);
      pub.reject(new Error(m.message));
    }
    if (subject !== undefined || !pub) this.on.refused?.(m);
  }
}
