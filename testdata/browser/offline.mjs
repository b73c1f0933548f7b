import net from 'node:net';
import { Stream, number } from './lib.mjs';

// A Road is a network between the page and a node that can swallow everything without a word, as a phone in a
// tunnel sees it: no connection is closed, nothing arrives.
class Road {
  constructor(to) {
    this.up = true;
    this.pairs = [];
    this.server = net.createServer((near) => {
      const pair = { ends: [near], dead: !this.up };
      this.pairs.push(pair);
      near.on('error', () => {});
      if (pair.dead) return;
      const far = net.connect(to, '127.0.0.1');
      pair.ends.push(far);
      far.on('error', () => {});
      for (const [a, b] of [[near, far], [far, near]]) {
        a.on('data', (d) => { if (!pair.dead) b.write(d); });
        a.on('close', () => { if (!pair.dead) b.destroy(); });
      }
    });
  }

  async open() {
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return this.server.address().port;
  }

  // down loses what is under way, for good: the connections of before stay dead when it is up again.
  down() {
    this.up = false;
    for (const pair of this.pairs) pair.dead = true;
  }

  close() {
    for (const pair of this.pairs) for (const s of pair.ends) s.destroy();
    this.server.close();
  }
}

// Offline, and online again: the page resumes at once where it was.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context);
  const roads = [];
  const config = await (await fetch(new URL('/demo/config', it.args.page))).json();
  for (const n of config.nodes) {
    const road = new Road(n.port);
    roads.push(road);
    n.port = await road.open();
  }
  it.closers.push(() => roads.forEach((r) => r.close()));
  await page.route('**/demo/config', (route) => route.fulfill({ json: config }));
  const stream = new Stream(page);
  await page.clock.install();
  await page.goto(it.args.page);
  await stream.more(100);
  for (let i = 1; i <= 2; i++) {
    const opened = stream.opened;
    for (const r of roads) r.down();
    await context.setOffline(true);
    await it.until('the page to know that it is offline', page, () => !navigator.onLine);
    // The page's clock stands still: no timer of its client's will find out that the connection is dead.
    await page.clock.pauseAt(await page.evaluate(() => Date.now() + 1000));
    // Meanwhile the world goes on.
    const missed = await behind(it, 50);
    it.check(missed >= 50, 'nothing happened while the page was offline');
    for (const r of roads) r.up = true;
    await context.setOffline(false);
    await stream.more(100);
    it.check(stream.opened > opened, 'no new connection was made');
    await it.until('the page to be on a node', page, () => navigator.onLine && /^on node/.test(document.getElementById('where').textContent));
    await page.clock.resume();
  }
  stream.judge(it, 'over an offline time');
  it.check(stream.sent.filter((op) => op.op === 'sub' && op.subject === '/prices/*' && op.resume?.length > 0).length >= 2, 'the subscription was not resumed each time');
  for (const what of ['missed', 'repeated']) it.check(await number(page, what) === 0, `the page says that records were ${what}: ${await number(page, what)}`);
}

// behind waits until the cluster has taken in n further records, and returns how many.
async function behind(it, n) {
  const seen = async () => (await (await fetch(new URL('/demo/status', it.args.page))).json()).partitions.reduce((sum, p) => sum + p.next_offset, 0);
  const from = await seen();
  for (;;) {
    const now = await seen();
    if (now - from >= n) return now - from;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
