import { createServer, connect } from 'node:net';
import { Stream } from './lib.mjs';

// An EventSource behind a balancer, without a line of code for reconnecting: the node that it is on dies (its
// connections break in the middle of whatever they carry, and nobody answers there any more), three times, and the
// browser goes on where it was, with nothing but the Last-Event-ID that it keeps by itself.
export async function run(it) {
  const balancer = new Balancer(it.args.clients);
  const address = await balancer.listen();
  it.closers.push(() => balancer.close());
  const context = await it.browser();
  const demo = await it.page(context, it.args.page);
  const post = (what, node) => demo.evaluate(([w, n]) => fetch(`/demo/${w}?node=${n}`, { method: 'POST' }).then((r) => r.status), [what, node]);
  const page = await it.page(context, `${address}/nothing-here`);
  const stream = new Stream(page);
  await page.exposeFunction('took', (batch) => { for (const data of batch) stream.take(JSON.parse(data)); });
  await page.evaluate(() => {
    const batch = [];
    setInterval(() => { if (batch.length) window.took(batch.splice(0)); }, 20);
    window.told = [];
    window.source = new EventSource('/sse?subject=' + encodeURIComponent('/prices/*'));
    for (const op of ['msg', 'gap', 'subbed', 'unsubbed']) {
      window.source.addEventListener(op, (event) => (op === 'msg' ? batch : window.told).push(event.data));
    }
  });
  await stream.more(100);
  for (const [i, node] of ['n1', 'n2', 'n1'].entries()) {
    it.check(balancer.kill(node) > 0, `the stream was not on ${node}`);
    it.check(await post('stop', node) === 202, `${node} could not be stopped`);
    await stream.more(200);
    it.check(await post('start', node) === 202, `${node} could not be started`);
    await it.until(`${node} to run again`, demo, (n) => [...document.querySelectorAll('#nodes li')].some((li) => li.textContent.includes(n) && li.textContent.includes('running')), node);
    balancer.revive(node);
    const told = (await page.evaluate(() => window.told)).map((data) => JSON.parse(data));
    it.check(told.filter((op) => op.op === 'subbed').length === i + 2 && told.slice(1).every((op) => op.recovered === true), `after ${node}: ${JSON.stringify(told).slice(0, 2000)}`);
  }
  it.check(await page.evaluate(() => window.source.readyState) === 1, 'the stream is not open at the end');
  stream.judge(it, 'an EventSource over three deaths');
}

// A Balancer gives each connection to the first node that lives.
class Balancer {
  constructor(addresses) {
    this.nodes = addresses.map((address, i) => ({ name: `n${i + 1}`, port: Number(address.split(':')[1]), host: address.split(':')[0], dead: false, pairs: new Set() }));
    this.server = createServer((client) => this.forward(client, this.nodes.filter((n) => !n.dead)));
  }

  listen() {
    return new Promise((resolve) => this.server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${this.server.address().port}`)));
  }

  forward(client, [node, ...others]) {
    client.on('error', () => {});
    if (!node) return client.destroy();
    const server = connect(node.port, node.host);
    let open = false;
    server.on('connect', () => {
      open = true;
      node.pairs.add(client);
      client.pipe(server).pipe(client);
    });
    server.on('error', () => { if (!open) this.forward(client, others); });
    server.on('close', () => { if (open) client.destroy(); });
    client.on('close', () => { node.pairs.delete(client); server.destroy(); });
  }

  // kill breaks a node's connections, and returns how many there were.
  kill(name) {
    const node = this.nodes.find((n) => n.name === name);
    node.dead = true;
    const n = node.pairs.size;
    for (const client of node.pairs) client.resetAndDestroy();
    return n;
  }

  revive(name) { this.nodes.find((n) => n.name === name).dead = false; }

  close() {
    for (const node of this.nodes) for (const client of node.pairs) client.destroy();
    this.server.close();
  }
}
