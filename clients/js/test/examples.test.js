// The examples do what they say.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { feed } from '../examples/react/useSubscription.js';
import { Node } from './support/server.js';
import { accept as acceptOf, eventually, stand } from './support/stand.js';

const example = (path) => fileURLToPath(new URL(`../examples/${path}`, import.meta.url));

test('the pages are served', async (t) => {
  const server = spawn(process.execPath, [example('serve.js')], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(async () => {
    server.kill();
    await once(server, 'exit');
  });
  const base = (await once(createInterface(server.stdout), 'line'))[0];
  for (const [path, want] of [['', 'examples'], ['page/', "from 'tidewire'"], ['react/', '/react/app.js'], ['tidewire.js', 'export{'], ['react/app.js', 'createRoot']]) {
    const response = await fetch(base + path);
    assert.equal(response.status, 200, path);
    assert.ok((await response.text()).includes(want), path);
  }
  assert.equal((await fetch(`${base}../package.json`)).status, 404);
});

test('the hook resumes when it is shown again', async (t) => {
  const { k, accept } = await stand(t);
  const f = feed(k, '/chat', { history: 2, keep: 2 });
  let renders = 0;
  const hide = f.subscribe(() => renders++);
  const n = await accept();
  assert.equal((await n.subbed()).history, 2);
  for (let i = 1; i <= 3; i++) n.msg('/chat', i);
  n.say({ op: 'live', subject: '/chat' });
  await eventually('live', () => f.snapshot().state === 'live');
  assert.deepEqual(f.snapshot().messages.map((m) => m.value), [2, 3]);
  assert.equal(renders, 4);
  hide();
  await n.hear('unsub');
  const hideAgain = f.subscribe(() => renders++);
  assert.deepEqual((await n.subbed([[0, 1, 3]])).resume, [[0, 1, 3]]);
  n.msg('/chat', 4);
  await eventually('the fourth', () => f.snapshot().messages.at(-1).value === 4);
  hideAgain();
});

test('the worker goes on where it was stopped', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'tidewire-'));
  const n1 = new Node('n1');
  await n1.start();
  t.after(async () => {
    await n1.stop();
    rmSync(dir, { recursive: true });
  });
  const place = join(dir, 'place.json');
  const start = () => spawn(process.execPath, [example('worker/worker.js'), `127.0.0.1:${n1.port}`], { env: { ...process.env, PLACE: place, TOPIC: 't', OUT: 'out' }, stdio: 'inherit' });
  let worker = start();
  t.after(() => worker.kill('SIGKILL'));
  let n = await acceptOf(n1);
  assert.equal((await n.subbed()).history, 1);
  n.msg('/t/a', 1, 'hello');
  const pub = await n.hear('pub');
  assert.deepEqual([pub.subject, pub.data, pub.mid], ['/out', { of: 'a', seen: 'hello' }, 'worker t 0,1,1']);
  n.say({ op: 'acked', id: pub.id, partition: 0, offset: 0 });
  await eventually('its place is kept', () => {
    try {
      return readFileSync(place, 'utf8') === '[[0,1,1]]';
    } catch {
      return false;
    }
  });
  worker.kill('SIGTERM');
  assert.deepEqual(await once(worker, 'exit'), [0, null]);
  worker = start();
  n = await acceptOf(n1);
  assert.deepEqual((await n.subbed([[0, 1, 1]])).resume, [[0, 1, 1]]);
  worker.kill('SIGTERM');
  assert.deepEqual(await once(worker, 'exit'), [0, null]);
});
