import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TidewireError } from 'tidewire';
import { eventually, once, stand } from './support/stand.js';

test('a loop gets every message though it is slow: the buffer is bounded, and what does not fit comes later', async (t) => {
  const { k, accept } = await stand(t);
  const s = k.subscribe('/a', { buffer: 4 });
  const n = await accept();
  await n.subbed();
  const other = k.subscribe('/b');
  const heard = [];
  other.on('message', (m) => heard.push(m.value));
  await n.subbed();
  for (let i = 1; i <= 10; i++) n.msg('/a', i);
  // Full: it ends on the server. What was on its way is not counted, and nothing else is held up.
  const unsub = await n.hear('unsub');
  assert.equal(s.state, 'connecting');
  n.say({ op: 'unsubbed', id: unsub.id, subject: '/a', reason: 'asked' });
  n.msg('/b', 1);
  await eventually('the other', () => heard.length === 1);
  const got = [];
  const reading = (async () => {
    for await (const m of s) if (got.push(m.value) === 10) break;
  })();
  assert.deepEqual((await n.subbed([[0, 1, 4]])).resume, [[0, 1, 4]]);
  await eventually('it has read what there was', () => got.length === 4);
  for (let i = 5; i <= 10; i++) {
    n.msg('/a', i);
    await eventually(`it has read ${i}`, () => got.length === i);
  }
  await reading;
  assert.deepEqual(got, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.equal(s.state, 'closed'); // leaving the loop ends it
});

test('the buffer is bounded in bytes too, but takes one message however large', async (t) => {
  const { k, accept } = await stand(t);
  const s = k.subscribe('/a', { bufferBytes: 1000 });
  const n = await accept();
  await n.subbed();
  n.msg('/a', 1, 'x'.repeat(2000));
  n.msg('/a', 2, 'x');
  await n.hear('unsub');
  assert.deepEqual((await s[Symbol.asyncIterator]().next()).value.position, [0, 1, 1]);
});

test('a listener that comes late gets what waited, in order; a second loop or both ways are refused', async (t) => {
  const { k, accept } = await stand(t);
  const s = k.subscribe('/a');
  const n = await accept();
  await n.subbed();
  n.msg('/a', 1);
  n.msg('/a', 2);
  n.say({ op: 'live', subject: '/a' });
  await eventually('live', () => s.state === 'live');
  const got = [];
  s.on('message', (m) => got.push(m.value));
  s.on('live', () => got.push('live')); // attached in the same turn: it misses nothing
  await eventually('both', () => got.length === 3);
  n.msg('/a', 3);
  await eventually('the third', () => got.length === 4);
  assert.deepEqual(got, [1, 2, 'live', 3]);
  assert.deepEqual(s.vector, [[0, 1, 3]]);
  assert.throws(() => s[Symbol.asyncIterator](), TypeError);
  const u = k.subscribe('/b');
  u[Symbol.asyncIterator]();
  assert.throws(() => u.on('message', () => {}), TypeError);
});

test('what a listener throws stops nothing', async (t) => {
  const { k, accept } = await stand(t);
  const thrown = [];
  const listeners = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  process.once('uncaughtException', (e) => thrown.push(e.message));
  t.after(() => listeners.forEach((l) => process.on('uncaughtException', l)));
  const s = k.subscribe('/a');
  const got = [];
  s.on('message', (m) => {
    got.push(m.value);
    if (m.value === 1) throw new Error('a bug of the application');
  });
  const n = await accept();
  await n.subbed();
  n.msg('/a', 1);
  n.msg('/a', 2);
  await eventually('both and the error', () => got.length === 2 && thrown.length === 1);
  assert.deepEqual(thrown, ['a bug of the application']);
});

test('a loop throws when the server refuses, after what was there', async (t) => {
  const { k, accept } = await stand(t);
  const s = k.subscribe('/a');
  const n = await accept();
  await n.subbed();
  n.msg('/a', 1);
  n.say({ op: 'unsubbed', subject: '/a', reason: 'forbidden' });
  const got = [];
  await assert.rejects(async () => {
    for await (const m of s) got.push(m.value);
  }, (e) => e instanceof TidewireError && e.code === 'forbidden');
  assert.deepEqual(got, [1]);
  assert.equal(s.state, 'denied');
});

test('subscriptions that overlap have connections of their own, given up when they are not needed', async (t) => {
  const { k, accept, nodes } = await stand(t, { maxConnections: 2 });
  const a = k.subscribe('/a/*');
  const one = await accept();
  await one.subbed();
  const b = k.subscribe('/a/1', { history: 1 });
  const c = k.subscribe('/b');
  const two = await accept();
  await two.subbed();
  await one.subbed();
  assert.throws(() => k.subscribe('/a/1'), (e) => e.code === 'connections');
  const got = [];
  for (const [name, s] of Object.entries({ a, b, c })) s.on('message', (m) => got.push(name + m.value));
  one.msg('/a/1', 1);
  one.msg('/b', 2);
  two.msg('/a/1', 1);
  await eventually('three messages', () => got.length === 3);
  assert.deepEqual(got.sort(), ['a1', 'b1', 'c2']);
  await b.close();
  await two.hear('unsub');
  await two.conn.closed.next('the second connection ends');
  assert.equal(nodes[0].server.clients.size, 1);
  k.subscribe('/a/1'); // and another takes its place
  await (await accept()).subbed();
});

test('moved is told with recovered when another node serves', async (t) => {
  const { k, accept } = await stand(t, {}, 2);
  const s = k.subscribe('/a');
  const told = [];
  for (const e of ['connecting', 'recovered', 'moved', 'live']) s.on(e, (v) => told.push([e, v]));
  s.on('message', () => {});
  const moved = once(k, 'moved');
  const one = await accept(0);
  await one.subbed();
  one.conn.ws.terminate();
  const two = await accept(1);
  await two.subbed();
  two.say({ op: 'live', subject: '/a' });
  await eventually('live', () => s.state === 'live');
  assert.deepEqual(told, [
    ['connecting', undefined], ['recovered', { node: 'n2', previous: 'n1', at: [[0, 1, 0]] }], ['moved', { from: 'n1', to: 'n2' }], ['live', undefined],
  ]);
  assert.deepEqual(await moved, { from: 'n1', to: 'n2' });
});

test('a storage by promises, that fails, that holds nonsense', async (t) => {
  const { k, accept } = await stand(t);
  const errors = [];
  const kept = new Map([['mine', '[[0,1']]);
  let fail = false;
  const storage = {
    getItem: async (key) => kept.get(key) ?? null,
    setItem: async (key, value) => {
      if (fail) throw new Error('quota');
      kept.set(key, value);
    },
  };
  const s = k.subscribe('/a', { storage, storageKey: 'mine', history: 7 });
  s.on('error', (e) => errors.push(e.code));
  s.on('message', () => {});
  const n = await accept();
  const sub = await n.subbed();
  assert.equal(sub.resume, undefined);
  assert.equal(sub.history, 7);
  n.msg('/a', 1);
  await eventually('it is kept', () => kept.get('mine') === '[[0,1,1]]'); // by itself, without being asked
  fail = true;
  n.msg('/a', 2);
  await eventually('the failure is told', () => errors.length === 2);
  assert.deepEqual(errors, ['storage', 'storage']);
  fail = false;
  n.msg('/a', 3);
  await eventually('the third', () => s.vector?.[0][2] === 3);
  await s.close();
  assert.equal(kept.get('mine'), '[[0,1,3]]');
});
