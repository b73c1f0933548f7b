// The page. Records are data: everything they hold goes in as text, never as markup.
import { Tidewire } from './tidewire.js';
import { Count } from './count.js';
import { Kept } from './kept.js';

const $ = (id) => document.getElementById(id);

function element(name, text, cls) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

function put(id, value) {
  const text = String(value);
  if ($(id).textContent !== text) $(id).textContent = text;
}

function tell(text) {
  const li = element('li');
  li.append(element('time', new Date().toLocaleTimeString()), text);
  $('events').prepend(li);
  while ($('events').childElementCount > 30) $('events').lastChild.remove();
}

// Prices: what has come since the last frame of the screen is drawn at once, once.
const HISTORY = 40;
const tiles = new Map();
const dirty = new Set();

function tileFor(symbol) {
  let t = tiles.get(symbol);
  if (t) return t;
  if (tiles.size >= 200) return null; // whoever writes to the topic decides how many there are
  const root = element('div', undefined, 'tile');
  const price = element('span', '', 'price');
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  svg.setAttribute('viewBox', '0 0 100 24');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  svg.append(line);
  root.append(element('b', symbol), price, svg);
  t = { symbol, root, price, line, bids: [], way: '' };
  tiles.set(symbol, t);
  const next = [...tiles.keys()].sort()[[...tiles.keys()].sort().indexOf(symbol) + 1];
  $('prices').insertBefore(root, next ? tiles.get(next).root : null);
  return t;
}

function price(m) {
  const bid = m.value?.bid;
  if (typeof bid !== 'number') return;
  const t = tileFor(m.subject.slice('/prices/'.length));
  if (!t) return;
  const last = t.bids.at(-1);
  if (last !== undefined && bid !== last) t.way = bid > last ? 'up' : 'down';
  t.bids.push(bid);
  if (t.bids.length > HISTORY) t.bids.shift();
  if (dirty.size === 0) requestAnimationFrame(draw);
  dirty.add(t);
}

function draw() {
  for (const t of dirty) {
    t.price.textContent = String(t.bids.at(-1));
    const low = Math.min(...t.bids), span = Math.max(...t.bids) - low || 1;
    t.line.setAttribute('points', t.bids.map((b, i) => `${(100 * i) / (HISTORY - 1)},${22 - (20 * (b - low)) / span}`).join(' '));
    t.root.className = `tile ${t.way}`;
    if (t.way) {
      void t.root.offsetWidth; // so that the flash starts anew
      t.root.classList.add(`flash-${t.way}`);
    }
  }
  dirty.clear();
}

// Chat: a message is shown at once, pale, and gets its position when its record comes back from Kafka.
const mine = new Map(); // header chat-line, which is also the message id -> its line

function chatLine(from, text) {
  const li = element('li');
  li.kept = [from, text];
  li.append(element('b', `${from}: `), text);
  const box = $('chat');
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  box.append(li);
  while (box.childElementCount > 200) box.firstChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
  return li;
}

function chat(m) {
  const mid = m.headers['chat-line'];
  let li = mine.get(mid);
  if (li) {
    mine.delete(mid);
    li.className = '';
    li.querySelector('.meta')?.remove();
  } else {
    const d = m.value;
    const isMessage = m.kind === 'json' && d !== null && typeof d === 'object' && 'text' in d;
    li = chatLine(isMessage ? String(d.from ?? '?') : '?',
      isMessage ? String(d.text) : { text: d, bytes: '(bytes)', null: '(tombstone)' }[m.kind] ?? JSON.stringify(d));
  }
  arrived(li, m.position);
}

function arrived(li, pos) {
  li.kept[2] = pos;
  li.append(element('span', `[${pos.join(', ')}]`, 'meta'));
}

function newMid() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
}

$('name').value = `guest-${newMid().slice(0, 4)}`;
$('say').addEventListener('submit', (event) => {
  event.preventDefault();
  const text = $('text').value.trim(), from = $('name').value.trim();
  if (!text || !from) return;
  const mid = newMid();
  const li = chatLine(from, text);
  li.className = 'waiting';
  li.append(element('span', 'on its way…', 'meta'));
  mine.set(mid, li);
  $('text').value = '';
  $('chat').scrollTop = $('chat').scrollHeight;
  client.publish('/chat', { from, text }, { mid, headers: { 'chat-line': mid }, ack: 'replicated' }).catch((err) => {
    mine.delete(mid);
    li.querySelector('.meta').textContent = `refused: ${err.message}`;
  });
});

// The connection. The page starts on the node that it was loaded from.
let received = 0, moves = 0, here = null;
const { nodes } = await (await fetch('/demo/config')).json();
nodes.sort((a, b) => (String(b.port) === location.port) - (String(a.port) === location.port));
const client = new Tidewire({ nodes: nodes.map((n) => `ws://${location.hostname}:${n.port}`), inOrder: true });

function where(text, node) {
  here = node ?? null;
  put('where', text);
  $('where').classList.toggle('off', !node);
}
let last; // the node before
client.on('live', ({ node }) => {
  where(`on node ${node}`, node);
  if (!last) tell(`connected to ${node}`);
  last = node;
});
client.on('connecting', () => where(last ? `left ${last}, moving…` : 'connecting…'));
client.on('paused', () => where('paused while nobody looks'));
client.on('moved', () => moves++);

const counts = [];

// stream prepares a subscription. What state() returns comes back as `before` after a reload, and is to be shown
// again before start().
function stream(subject, history, show, state) {
  const storage = new Kept(subject, () => ({ count: count.keep(), shown: state() }));
  const count = new Count(/^\/[^/]+\/\*$/.test(subject), storage.before?.count);
  counts.push(count);
  const start = () => {
    const s = client.subscribe(subject, { history, storage });
    s.on('message', (m) => {
      received++;
      if (count.take(m)) show(m);
    });
    s.on('gap', (gap) => {
      count.gap(gap);
      tell(`${subject}: records are lost (${gap.reason})`);
    });
    s.on('denied', (error) => tell(`refused: ${error.message}`));
    return s;
  };
  return { before: storage.before?.shown ?? [], start };
}

const prices = stream('/prices/*', 200, price, () => [...tiles.values()].map((t) => [t.symbol, t.bids]));
const talk = stream('/chat', 20, chat, () => [...$('chat').children].map((li) => li.kept).filter((line) => line[2]).slice(-50));
for (const [symbol, bids] of prices.before) {
  const t = tileFor(symbol);
  if (t) {
    t.bids = bids;
    dirty.add(t);
  }
}
draw();
for (const [from, text, pos] of talk.before) arrived(chatLine(from, text), pos);

const total = (what) => counts.reduce((sum, c) => sum + c[what], 0);
const priced = prices.start();
talk.start();
let went; // on after a break, at another node or the same, or after a reload
priced.on('recovered', (r) => (went = r));
// What was missed shows with the records that had waited: this comes after them.
priced.on('live', () => {
  if (!went) return;
  const { previous, node } = went;
  went = undefined;
  const how = !previous ? `reloaded, resumed on ${node} where the page was` :
    `${previous === node ? `back on ${node}` : `moved ${previous} → ${node}`}, resumed`;
  tell(`${how}, missed ${total('missed')}, repeated ${total('repeated')}`);
});
globalThis.tidewire = client; // for the curious

let counted = 0;
setInterval(() => {
  put('received', received);
  put('rate', received - counted);
  counted = received;
  put('moves', moves);
  for (const what of ['missed', 'repeated']) {
    put(what, total(what));
    $(what).classList.toggle('bad', total(what) > 0);
  }
}, 1000);

// The cluster, as the demo tells it. Any node's address will do to ask; the page's own answers even while
// its node is stopped.
const rows = { nodes: new Map(), groups: new Map(), partitions: new Map() };

function row(kind, key, make) {
  let r = rows[kind].get(key);
  if (!r) {
    r = make();
    rows[kind].set(key, r);
    $(kind).append(r.root);
  }
  return r;
}

function cells(kind, key, values) {
  const r = row(kind, key, () => {
    const root = element('tr');
    return { root, tds: values.map(() => root.appendChild(element('td'))) };
  });
  values.forEach((v, i) => { if (r.tds[i].textContent !== String(v)) r.tds[i].textContent = String(v); });
}

async function control(what, id) {
  tell(`${what === 'stop' ? 'stopping' : 'starting'} ${id}`);
  try {
    const answer = await fetch(`/demo/${what}?node=${encodeURIComponent(id)}`, { method: 'POST' });
    if (!answer.ok) tell(`${id}: ${await answer.text()}`);
  } catch (err) {
    tell(`${id}: ${err.message}`);
  }
  refresh();
}

function showNode(n) {
  const r = row('nodes', n.id, () => {
    const root = element('li');
    const what = root.appendChild(element('span', '', 'what'));
    const button = root.appendChild(element('button'));
    button.addEventListener('click', () => control(button.dataset.what, n.id));
    return { root, what, button };
  });
  const label = `${n.id} :${n.port} — ${n.state === 'running' && !n.ready ? 'catching up' : n.state}` +
    (n.state === 'running' ? `, ${n.connections} connected` : '') + (n.id === here ? ' — you are here' : '');
  if (r.what.textContent !== label) r.what.textContent = label;
  r.what.classList.toggle('here', n.id === here);
  r.button.dataset.what = n.state === 'stopped' ? 'start' : 'stop';
  const text = n.state === 'stopped' ? `Start ${n.id} again` : `Stop ${n.id}`;
  if (r.button.textContent !== text) r.button.textContent = text;
  r.button.disabled = n.state === 'stopping';
}

let asking = false;
async function refresh() {
  if (asking) return;
  asking = true;
  try {
    const s = await (await fetch('/demo/status', { signal: AbortSignal.timeout(5000) })).json();
    s.nodes.forEach(showNode);
    for (const g of s.groups) cells('groups', g.group, [g.group, g.leader || 'none', g.term, g.applied]);
    for (const p of s.partitions) cells('partitions', `${p.topic}/${p.partition}`, [`${p.topic}/${p.partition}`, p.coordinator || 'none', p.epoch, p.seqno]);
  } catch {
    // The node that served the page is changing hands for a moment: the next time will do.
  } finally {
    asking = false;
  }
}
refresh();
setInterval(refresh, 1000);
