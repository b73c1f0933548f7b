// A worker: reads a topic, keeps its place in a file, and publishes what it made of each record. Stopped and
// started again it goes on where it was. With Node 20 it needs the package ws; later ones have a WebSocket.
//
//   node examples/worker/worker.js 127.0.0.1:8080 127.0.0.1:8180
import { readFile, rename, writeFile } from 'node:fs/promises';
import { Tidewire, parseSubject, subject } from 'tidewire';

const { TOPIC = 'prices', OUT = 'chat', PLACE = 'worker.place.json' } = process.env;
const WebSocket = globalThis.WebSocket ?? (await import('ws')).default;
const k = new Tidewire({ nodes: process.argv.slice(2), WebSocket });
k.on('connecting', ({ error, retryMs }) => console.error(`${error.message}; next try in ${Math.round(retryMs)} ms`));

const file = {
  getItem: () => readFile(PLACE, 'utf8').catch((error) => (error.code === 'ENOENT' ? null : Promise.reject(error))),
  async setItem(_key, text) {
    await writeFile(`${PLACE}.new`, text);
    await rename(`${PLACE}.new`, PLACE); // whole, or not at all
  },
};
const s = k.subscribe(subject(TOPIC, '').concat('*'), { history: 1, storage: file });
s.on('gap', (gap) => console.error('records are missing', JSON.stringify(gap)));
s.on('error', (error) => console.error(error.message));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => s.close());

for await (const m of s) {
  const { key } = parseSubject(m.subject);
  // One mid for one record: if the worker dies before its place is kept and does this again, it is written once.
  await k.publish(`/${OUT}`, { of: key, seen: m.value }, { mid: `worker ${TOPIC} ${m.position}` });
}
await k.close();
