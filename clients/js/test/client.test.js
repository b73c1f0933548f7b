import assert from 'node:assert/strict';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Tidewire, TidewireError } from 'tidewire';
import { accept as acceptOf, eventually, once, stand } from './support/stand.js';

const code = (c) => (e) => e instanceof TidewireError && e.code === c;

test('options that cannot work are refused', () => {
  for (const nodes of [undefined, [], [''], ['host'], ['ftp://host:1'], ['ws://'], ['a b:1'], ['ws://u:p@h']]) {
    assert.throws(() => new Tidewire({ nodes, WebSocket }), TypeError, JSON.stringify(nodes));
  }
  if (!globalThis.WebSocket) assert.throws(() => new Tidewire({ nodes: ['h:1'] }), /'ws'/);
});

test('nodes in every form', async (t) => {
  const urls = [];
  class Deaf {
    constructor(url, protocol) {
      urls.push(`${url} ${protocol}`);
      if (url === 'ws://h:2/ws') throw new Error('the page has TLS');
      queueMicrotask(() => this.onclose({ code: 1006, reason: '' }));
    }
    close() {}
  }
  const nodes = ['h:1', 'ws://h:2', 'wss://h', 'https://h/', 'http://h:5/live', '[::1]:6'];
  const k = new Tidewire({ nodes, WebSocket: Deaf, inOrder: true, backoffBaseMs: 0 });
  t.after(() => k.close());
  await eventually('each is tried', () => urls.length >= nodes.length);
  assert.deepEqual(urls.slice(0, nodes.length).map((u) => u.split(' ')[0]), ['ws://h:1/ws', 'ws://h:2/ws', 'wss://h/ws', 'wss://h/ws', 'ws://h:5/live', 'ws://[::1]:6/ws']);
  assert.ok(urls.every((u) => u.endsWith(' tidewire.v1.json')));
});

test('waits grow with full jitter, up to the cap, and begin anew after a connection that served', async (t) => {
  const random = t.mock.method(Math, 'random', () => 0.999999);
  const waits = [];
  let refuse = true;
  const sockets = [];
  class Flaky {
    constructor() {
      sockets.push(this);
      queueMicrotask(() => {
        if (refuse) this.onclose({ code: 1006, reason: '' });
        else for (const f of [{ op: 'welcome', version: 1, node: 'n', session: 's' }, { op: 'hb' }]) this.onmessage({ data: JSON.stringify(f) });
      });
    }
    send() {}
    close() {}
  }
  const k = new Tidewire({ nodes: ['h:1'], WebSocket: Flaky, backoffBaseMs: 1, backoffCapMs: 20 });
  t.after(() => k.close());
  k.on('connecting', ({ retryMs }) => waits.push(Math.ceil(retryMs)));
  await eventually('seven failures', () => waits.length >= 7);
  refuse = false;
  await once(k, 'live');
  const before = waits.length;
  sockets.at(-1).onclose({ code: 1006, reason: '' });
  assert.deepEqual(waits.slice(0, 7), [1, 2, 4, 8, 16, 20, 20]);
  assert.equal(waits[before], 1);
  random.mock.restore();
});

test('publishes: bounded, given up by a signal, refused after close', async (t) => {
  const { k, accept } = await stand(t, { maxPublishes: 3, maxPublishBytes: 500 });
  await assert.rejects(k.publish('/a', 'x'.repeat(500)), code('queue_full'));
  await assert.rejects(k.publish('/a', 'x', { mid: 'é'.repeat(65) }), code('bad_request'));
  await assert.rejects(k.publish('/a', undefined), TypeError);
  await assert.rejects(k.publish('/a', 'x', { signal: AbortSignal.abort() }), code('aborted'));
  const unsent = new AbortController();
  const u = k.publish('/a', 'never sent', { signal: unsent.signal });
  unsent.abort();
  await assert.rejects(u, code('aborted'));

  const n = await accept();
  const sent = new AbortController();
  const value = { n: 1 };
  const p = k.publish('/a', value, { signal: sent.signal });
  value.n = 2; // what was given is what is published
  const q = k.publish('/a', 'q');
  const r = k.publish('/b', 'r');
  await assert.rejects(k.publish('/a', 'one too many'), code('queue_full'));
  const first = await n.hear('pub');
  assert.deepEqual(first.data, { n: 1 });
  sent.abort();
  await assert.rejects(p, (e) => code('uncertain')(e) && e.mid === first.mid);
  for (let i = 0; i < 2; i++) {
    const pub = await n.hear('pub');
    assert.notEqual(pub.text, 'never sent');
    n.say({ op: 'acked', id: pub.id, partition: 0, offset: i, pos: [0, 1, i] });
  }
  assert.deepEqual((await q).duplicate, false);
  assert.deepEqual((await r).position?.length, 3);
  const last = k.publish('/a', 'x');
  void k.close();
  await assert.rejects(last, (e) => ['closed', 'uncertain'].includes(e.code));
  await assert.rejects(k.publish('/a', 'x'), code('closed'));
  assert.throws(() => k.subscribe('/a'), code('closed'));
});

test('a token function that fails or is refused is asked again; none is asked for in vain', async (t) => {
  let asked = 0;
  const denied = [];
  const { k, accept } = await stand(t, {
    token: async () => {
      if (++asked === 1) throw new Error('the session service is away');
      return `t${asked}`;
    },
  });
  k.on('denied', (e) => denied.push(e.code));
  await accept(); // left: there was no token
  const two = await accept();
  const auth = await two.hear('auth');
  assert.equal(auth.token, 't2');
  two.say({ op: 'error', id: auth.id, code: 'unauthenticated', message: 'expired' });
  const three = await accept();
  const again = await three.hear('auth');
  assert.equal(again.token, 't3');
  three.say({ op: 'authed', id: again.id, expires: null });
  await eventually('live', () => k.state === 'live');
  assert.deepEqual(denied, ['unauthenticated']);
  // An op that is answered unauthenticated: the token has expired under the connection.
  const p = k.publish('/a', 'x');
  const pub = await three.hear('pub');
  three.say({ op: 'error', id: pub.id, code: 'unauthenticated', message: 'expired' });
  const four = await accept();
  const auth4 = await four.hear('auth');
  four.say({ op: 'authed', id: auth4.id, expires: null });
  const same = await four.hear('pub');
  assert.equal(same.mid, pub.mid);
  four.say({ op: 'acked', id: same.id, partition: 0, offset: 0 });
  await p;
});

test('what arrives while the whole process stands still counts as heard', async (t) => {
  const { k, accept } = await stand(t);
  const n = await accept(0, { heartbeat_ms: 1000 });
  await eventually('live', () => k.state === 'live');
  await new Promise(setImmediate); // timers come next, and then what the sockets have
  n.say({ op: 'hb' });
  for (const end = Date.now() + 2200; Date.now() < end; ); // over twice heartbeat_ms
  await new Promise((r) => setTimeout(r, 10));
  void k.publish('/a', 'x').catch(() => {});
  await n.hear('pub'); // on the same connection
});

test('pause and resume', async (t) => {
  const { k, accept } = await stand(t);
  const s = k.subscribe('/a');
  const n = await accept();
  await n.subbed();
  const paused = once(k, 'paused');
  k.pause();
  await paused;
  await n.conn.closed.next('the connection ends');
  assert.equal(k.state, 'paused');
  assert.equal(k.node, undefined);
  const p = k.publish('/a', 'x');
  const t1 = k.subscribe('/b');
  k.resume();
  const m = await accept();
  const ops = [await m.conn.ops.next('sub'), await m.conn.ops.next('sub'), await m.conn.ops.next('pub')].map((x) => x.op.op);
  assert.deepEqual(ops.sort(), ['pub', 'sub', 'sub']);
  void k.close();
  await assert.rejects(p, code('uncertain'));
  assert.equal(s.state, 'closed');
  assert.equal(t1.state, 'closed');
});

test('resume connects at once instead of waiting, but never sooner than the server asked for', async (t) => {
  const { k, accept } = await stand(t, { backoffBaseMs: 3_600_000, backoffCapMs: 3_600_000 });
  const n = await accept();
  await eventually('live', () => k.state === 'live');
  n.conn.ws.terminate();
  await once(k, 'connecting');
  k.resume();
  const m = await accept();
  await eventually('live', () => k.state === 'live');
  m.say({ op: 'bye', reason: 'draining', retry_ms: 200 });
  const left = performance.now();
  m.conn.ws.close(1001);
  await once(k, 'connecting');
  k.resume();
  await accept();
  assert.ok(performance.now() - left >= 198, 'too soon');
});

test('resume finds out that a connection is dead', async (t) => {
  const { k, accept, nodes } = await stand(t, { connectTimeoutMs: 4000 });
  const n = await accept(0, { heartbeat_ms: 600_000 });
  await eventually('live', () => k.state === 'live');
  n.conn.ws.removeAllListeners('message'); // it hears nothing any more, and says nothing
  k.resume();
  await acceptOf(nodes[0]);
});

test('a page that is hidden pauses, and resumes as soon as it is visible or online', async (t) => {
  const page = new EventTarget();
  page.visibilityState = 'visible';
  const win = new EventTarget();
  globalThis.document = page;
  for (const f of ['addEventListener', 'removeEventListener']) globalThis[f] = win[f].bind(win);
  const kept = new Map();
  const { k, accept } = await stand(t, { hiddenMs: 30 });
  t.after(() => {
    delete globalThis.document;
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  const s = k.subscribe('/a', { storage: { getItem: () => null, setItem: (key, v) => void kept.set(key, v) } });
  s.on('message', () => {});
  const n = await accept();
  await n.subbed();
  n.msg('/a', 1);
  await eventually('the message', () => s.vector?.[0][2] === 1);
  win.dispatchEvent(new Event('pagehide'));
  assert.equal(kept.get('tidewire:/a'), '[[0,1,1]]'); // at once: the page may be gone
  page.visibilityState = 'hidden';
  const p = k.publish('/a', 'x');
  page.dispatchEvent(new Event('visibilitychange'));
  const pub = await n.hear('pub');
  await new Promise((r) => setTimeout(r, 60));
  assert.equal(k.state, 'live'); // a publish is under way
  n.say({ op: 'acked', id: pub.id, partition: 0, offset: 0 });
  await p;
  await eventually('it pauses', () => k.state === 'paused');
  win.dispatchEvent(new Event('online')); // hidden all the same
  assert.equal(k.state, 'paused');
  page.visibilityState = 'visible';
  page.dispatchEvent(new Event('visibilitychange'));
  const m = await accept();
  assert.deepEqual((await m.subbed([[0, 1, 1]])).resume, [[0, 1, 1]]);
  // Seen again: the connection is asked whether it lives.
  page.dispatchEvent(new Event('visibilitychange'));
  await eventually('a ping is answered', () => m.conn.pings === 1);
  assert.equal(k.state, 'live');
  // A new network: the connection of the old one is dead, whatever it says. No timer is waited for.
  const timers = globalThis.setTimeout;
  globalThis.setTimeout = () => 0;
  win.dispatchEvent(new Event('online'));
  globalThis.setTimeout = timers;
  await m.conn.closed.next('the connection ends');
  const o = await accept();
  assert.deepEqual((await o.subbed([[0, 1, 1]])).resume, [[0, 1, 1]]);
});
