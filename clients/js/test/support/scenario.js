// Runs one scenario (docs/clients.md) against this client.
import WebSocket from 'ws';
import { setTimeout as sleep } from 'node:timers/promises';
import { Tidewire } from '../../dist/index.js';
import { fill, match } from './match.js';
import { Queue } from './queue.js';
import { Node } from './server.js';

const b64 = (bytes) => Buffer.from(bytes).toString('base64');

// What the client tells, in the protocol's words.
const told = {
  message: (m) => ['msg', {
    subject: m.subject, pos: m.position, ts: m.timestamp,
    ...(m.kind === 'json' ? { data: m.value } : m.kind === 'text' ? { text: m.value } : m.kind === 'bytes' ? { b64: b64(m.value) } : { null: true }),
    headers: Object.fromEntries(Object.entries(m.headers).map(([k, v]) => [k, typeof v === 'string' ? v : { b64: b64(v) }])),
  }],
  live: () => ['live', {}],
  recovered: (r) => ['recovered', r],
  gap: (g) => ['gap', g],
  denied: (e) => ['denied', { code: e.code }],
};

class Run {
  vars = {};
  nodes = new Map();
  storages = new Map();
  subs = new Map(); // name -> {subscription, told: Queue}
  pubs = new Map(); // name -> Queue
  client = null;
  clientTold = new Queue();
  step = Date.now();

  constructor(lines) {
    this.lines = lines;
  }

  async run() {
    for (const [, name] of this.lines.map((l) => /^(n\d+) /.exec(l) ?? /\$addr:(n\d+)/.exec(l)).filter(Boolean)) {
      if (!this.nodes.has(name)) this.nodes.set(name, new Node(name));
    }
    this.names = [...this.nodes.keys()].sort();
    for (const n of this.nodes.values()) await n.start();
    try {
      for (let i = 0; i < this.lines.length; i++) {
        const line = this.lines[i];
        if (!line.trim() || line.startsWith('#')) continue;
        let also = []; // a run of >~ lines is one step
        while (/^n\d+ >~ /.test(line) && /^n\d+ >~ /.test(this.lines[i + 1] ?? '')) also.push(this.lines[++i]);
        try {
          await this.line(line, also);
        } catch (error) {
          throw new Error(`line ${i + 1}: ${line}\n  ${error.message}`, { cause: error });
        }
        this.step = Date.now();
      }
      await this.client?.close();
      for (const [name, s] of this.subs) {
        const rest = s.told.items.filter(([kind]) => kind !== 'closed');
        if (rest.length) throw new Error(`at the end ${name} was told more: ${JSON.stringify(rest)}`);
      }
    } finally {
      await this.client?.close();
      for (const n of this.nodes.values()) await n.stop();
    }
  }

  async line(line, also) {
    const [who, what, ...words] = line.split(' ');
    const rest = words.join(' ');
    if (who === 'client') return what === 'denied' ? this.expect(this.clientTold, 'client', what, rest) : this.make(JSON.parse(line.slice(7)));
    if (who === 'app') return this.app(what, words);
    if (who === 'wait') return sleep(Number(what));
    if (this.nodes.has(who)) return this.node(this.nodes.get(who), what, rest, also.map((l) => l.split(' ').slice(2).join(' ')));
    if (this.subs.has(who)) return this.expect(this.subs.get(who).told, who, what, rest);
    if (this.pubs.has(who)) return this.expect(this.pubs.get(who), who, what, rest);
    throw new Error(`nobody is called ${who}`);
  }

  async expect(queue, who, kind, rest) {
    const [got, value] = await queue.next(`${who} ${kind}`);
    if (got !== kind) throw new Error(`${who} was told ${got} ${JSON.stringify(value)}`);
    const wrong = match(JSON.parse(rest || '{}'), value, this.vars, false);
    if (wrong) throw new Error(wrong);
  }

  make(o) {
    const tokens = [...(o.tokens ?? [])];
    this.client = new Tidewire({
      nodes: (o.nodes ?? this.names).map((n) => this.nodes.get(n).url), inOrder: true, WebSocket, backoffBaseMs: 1, backoffCapMs: 20,
      token: o.tokens ? async () => (tokens.length > 1 ? tokens.shift() : tokens[0]) : o.token,
    });
    this.client.on('denied', (e) => this.clientTold.push(['denied', { code: e.code }]));
  }

  app(what, [name, subject, ...json]) {
    const o = JSON.parse(json.join(' ') || '{}');
    if (!this.client) this.make({});
    if (what === 'close') return this.client.close().then(() => this.subs.forEach((s) => s.told.push(['closed', {}])));
    if (what === 'unsub') {
      const s = this.subs.get(name);
      return s.subscription.close().then(() => s.told.push(['closed', {}]));
    }
    if (what === 'sub') {
      if (o.storage && !this.storages.has(o.storage)) this.storages.set(o.storage, new Map());
      const kept = this.storages.get(o.storage);
      const subscription = this.client.subscribe(subject, {
        history: o.history, resume: o.resume, conflateMs: o.conflate_ms,
        storage: kept && { getItem: (k) => kept.get(k), setItem: (k, v) => void kept.set(k, v) },
      });
      const queue = new Queue();
      for (const [event, f] of Object.entries(told)) subscription.on(event, (v) => queue.push(f(v)));
      this.subs.set(name, { subscription, told: queue });
      return;
    }
    if (what !== 'pub') throw new Error(`unknown: app ${what}`);
    const value = 'data' in o ? o.data : 'text' in o ? o.text : 'b64' in o ? Buffer.from(o.b64, 'base64') : null;
    const queue = new Queue();
    this.pubs.set(name, queue);
    this.client.publish(subject, value, { headers: o.headers, ack: o.ack, mid: o.mid, as: 'data' in o ? 'json' : undefined }).then(
      ({ position, ...acked }) => queue.push(['acked', { ...acked, pos: position }]),
      (e) => queue.push(['refused', { code: e.code }]),
    );
  }

  async node(node, what, rest, also) {
    const conn = node.conn;
    const after = /^(.*?) ?after (\d+)$/.exec(rest);
    // By the clock that the client has, or a clock that is set meanwhile would make it look hasty. Timers may fire
    // a millisecond early.
    const notBefore = (at, since) => {
      if (after && at - since < Number(after[2]) - 1) throw new Error(`came after ${at - since} ms`);
    };
    if (what === 'accept') {
      const { conn: c, at } = await node.accepted.next(`a connection to ${node.name}`);
      node.conn = c;
      notBefore(at, this.step);
    } else if (what === 'welcome') {
      conn.send(JSON.stringify({
        op: 'welcome', version: 1, node: node.name, session: `${node.name}-session`, heartbeat_ms: 25000, max_frame_bytes: 1048576, auth: 'none',
        ...JSON.parse(rest || '{}'),
      }));
    } else if (what === '<') {
      conn.send(rest.startsWith('{') ? JSON.stringify(fill(JSON.parse(rest), this.vars, (n) => this.nodes.get(n).url)) : rest);
    } else if (what === '>' || what === '>~') {
      const patterns = [after ? after[1] : rest, ...also].map((p) => JSON.parse(p));
      while (patterns.length) {
        const { op, at } = await conn.ops.next(`an op on ${node.name}`);
        notBefore(at, conn.spoke);
        const wrongs = patterns.map((p) => {
          const vars = { ...this.vars };
          const wrong = match(p, op, vars, true);
          if (!wrong) this.vars = vars;
          return wrong;
        });
        const i = wrongs.indexOf(null);
        if (i < 0) throw new Error(`the client sent ${JSON.stringify(op)}\n  ${wrongs.join('\n  ')}`);
        patterns.splice(i, 1);
      }
    } else if (what === 'cut' || what === 'close') {
      // What was sent must have been spoken of, or nobody would notice that it should not have been.
      if (conn.ops.items.length) throw new Error(`the client had sent more: ${JSON.stringify(conn.ops.items.map((i) => i.op))}`);
      if (what === 'cut') return conn.ws.terminate();
      const [code, reason] = rest.split(' ');
      conn.ws.close(Number(code), reason);
    } else if (what === 'closed') {
      notBefore(await conn.closed.next(`the end of the connection to ${node.name}`), conn.spoke);
    } else throw new Error(`a node does not ${what}`);
  }
}

export const runScenario = (text) => new Run(text.split('\n')).run();
