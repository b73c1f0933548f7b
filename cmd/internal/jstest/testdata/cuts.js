// Subscribes, publishes and breaks its own connection again and again; says on standard output, a JSON object a
// line, what the client told it. Ends when standard input does.
//
// node cuts.js '{"nodes":["127.0.0.1:8080"],"topic":"t","chat":"c","cuts":100}'
import WebSocket from 'ws';
import { Tidewire, subject } from 'tidewire';

const { nodes, topic, chat, cuts } = JSON.parse(process.argv[2]);
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let socket;
class Cuttable extends WebSocket {
  constructor(...args) {
    super(...args);
    socket = this;
  }
}

const k = new Tidewire({ nodes, WebSocket: Cuttable, backoffBaseMs: 5, backoffCapMs: 100 });
k.on('moved', (moved) => say({ event: 'moved', ...moved }));
k.on('denied', (error) => say({ event: 'denied', error: String(error) }));

const changed = []; // called at every change of a subscription
const until = async (cond) => {
  while (!cond()) await new Promise((resolve) => changed.push(resolve));
};
const subs = [topic, chat].map((t) => {
  const sub = { recovered: 0, s: k.subscribe(subject(t, '').concat('*')) };
  sub.s.on('message', (m) => say({ event: 'msg', topic: t, subject: m.subject, pos: m.position, value: m.value }));
  sub.s.on('gap', (gap) => say({ event: 'gap', topic: t, ...gap }));
  sub.s.on('denied', (error) => say({ event: 'denied', error: String(error) }));
  sub.s.on('recovered', () => sub.recovered++);
  for (const e of ['live', 'recovered']) sub.s.on(e, () => changed.splice(0).forEach((f) => f()));
  return sub;
});
await until(() => subs.every(({ s }) => s.state === 'live'));
say({ event: 'ready' });

// Four subjects, several of each under way, in the order of the numbers.
let cutting = true;
let failed = false;
const publishing = Promise.all(['a', 'b', 'c', 'd'].map(async (key) => {
  const under = new Set();
  for (let n = 0; cutting && !failed; n++) {
    const p = k.publish(subject(chat, key), { n }, { ack: n % 2 ? 'replicated' : 'kafka' }).then(
      (acked) => say({ event: 'acked', key, n, ...acked }),
      (error) => {
        failed = true;
        say({ event: 'refused', key, n, error: `${error.code}: ${error.message}` });
      },
    ).finally(() => under.delete(p));
    under.add(p);
    if (under.size >= 5) await Promise.race(under);
    await sleep(1); // leaves the machine something
  }
  await Promise.all(under);
}));

for (let i = 0; i < cuts; i++) {
  await sleep(Math.random() * 20); // so that cuts meet every moment of a delivery
  const before = subs.map((sub) => sub.recovered);
  socket.terminate();
  await until(() => subs.every((sub, j) => sub.recovered > before[j]));
}
cutting = false;
await publishing;
say({ event: 'cut' });

process.stdin.resume().on('end', () => k.close());
