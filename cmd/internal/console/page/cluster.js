import { $, element, data, put, Keyed, cells, count, rate, bytes, span } from './dom.js';

// Of a group the view with the highest term, its coordinator's own if there is one.
export function bestGroups(nodes) {
  const best = new Map();
  for (const n of nodes) {
    for (const g of n.groups ?? []) {
      const old = best.get(g.group);
      if (!old || g.term > old.term || (g.term === old.term && (g.leader === n.node || !old.leader))) best.set(g.group, g);
    }
  }
  return [...best.values()].sort((a, b) => a.group - b.group);
}

// Of a partition its coordinator's view, who alone knows the lag, else that with the highest position.
export function bestPartitions(nodes) {
  const best = new Map();
  for (const n of nodes) {
    for (const p of n.partitions ?? []) {
      const key = `${p.topic}/${p.partition}`;
      const old = best.get(key);
      const newer = old && (p.epoch > old.epoch || (p.epoch === old.epoch && p.seqno > old.seqno));
      if (!old || (p.lag >= 0 && (old.lag < 0 || newer)) || (old.lag < 0 && newer)) best.set(key, p);
    }
  }
  return [...best.values()].sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1));
}

// Nodes.
const nodeRows = new Keyed($('node-list'), () => {
  const root = element('li', undefined, 'card');
  const head = root.appendChild(element('div', undefined, 'head'));
  const name = head.appendChild(element('bdi', '', 'name'));
  const state = head.appendChild(element('span', '', 'pill'));
  const why = root.appendChild(element('p', undefined, 'why'));
  const dl = root.appendChild(element('dl'));
  const fields = new Map();
  const cache = root.appendChild(element('div', undefined, 'cache'));
  const meter = cache.appendChild(element('meter'));
  meter.min = 0;
  meter.max = 1;
  const cacheText = cache.appendChild(element('span', '', 'dim'));
  return { root, name, state, why, dl, fields, cache, meter, cacheText };
});

function field(row, name, value) {
  let dd = row.fields.get(name);
  if (!dd) {
    const div = element('div');
    div.append(element('dt', name), (dd = element('dd')));
    dd.append(element('bdi'));
    row.dl.append(div);
    row.fields.set(name, dd);
  }
  put(dd.firstChild, value);
}

export function showNodes(nodes, unreachable, rates, groups) {
  const all = [...nodes, ...Object.entries(unreachable).map(([node, why]) => ({ node, unreachable: String(why) }))];
  all.sort((a, b) => (a.node < b.node ? -1 : 1));
  nodeRows.sync(all, (n) => n.node, (row, n) => {
    put(row.name, n.node);
    put(row.state, n.unreachable !== undefined ? 'unreachable' : n.ready ? 'ready' : 'not ready');
    row.state.classList.toggle('off', !n.ready);
    put(row.why, n.unreachable ?? (n.not_ready ?? []).join('; '));
    row.why.hidden = row.why.textContent === '';
    row.dl.hidden = row.cache.hidden = n.unreachable !== undefined;
    if (n.unreachable !== undefined) return;
    const r = rates.nodes.get(n.node);
    field(row, 'clients at', n.client);
    field(row, 'connections', count(n.connections) + (n.blocked ? `, ${count(n.blocked)} blocked` : ''));
    field(row, 'subscriptions', count(n.subscriptions));
    field(row, 'delivered', r ? `${rate(r.delivered)}/s` : '–');
    field(row, 'publishes', r ? `${rate(r.publishes)}/s` : '–');
    field(row, 'coordinates', `${groups.filter((g) => g.leader === n.node).length} groups`);
    field(row, 'slow closes', n.counters ? count(n.counters.slow_closes) : '–');
    field(row, 'up', span(n.uptime_seconds));
    field(row, 'version', n.version);
    const used = n.cache.budget > 0 ? n.cache.bytes / n.cache.budget : 0;
    row.meter.value = used;
    row.meter.setAttribute('aria-label', `cache of ${n.node}`);
    row.meter.title = `${Math.round(100 * used)}%`;
    put(row.cacheText, `cache ${bytes(n.cache.bytes)} of ${bytes(n.cache.budget)}, ${count(n.cache.records)} records`);
  });
  const self = nodes.find((n) => n.node === $('self').textContent);
  document.title = self && !self.ready ? `${self.node} is not ready – Tidewire` : 'Tidewire console';
}

// Groups, and how evenly they are spread.
const groupRows = new Keyed($('groups'), () => cells(5, [2, 3]));
const shareRows = new Keyed($('shares'), () => {
  const root = element('li');
  const name = root.appendChild(element('bdi', '', 'name'));
  const list = root.appendChild(element('span', '', 'dim'));
  return { root, name, list };
});

export function showGroups(nodes, groups) {
  groupRows.sync(groups, (g) => g.group, (row, g) => {
    const behind = [];
    for (const n of nodes) {
      const own = (n.groups ?? []).find((o) => o.group === g.group);
      if (own && own.applied < g.applied) behind.push(`${n.node} by ${count(g.applied - own.applied)}`);
    }
    row.fill([g.group, g.leader || 'none', g.term, count(g.applied), behind.join(', ') || '–']);
    row.root.classList.toggle('bad', !g.leader);
  });
  shareRows.sync(nodes, (n) => n.node, (row, n) => {
    const own = groups.filter((g) => g.leader === n.node).map((g) => g.group);
    put(row.name, n.node);
    put(row.list, own.length ? own.join(' ') : 'none');
  });
}

// Partitions.
const MOST = 200; // rows
const partRows = new Keyed($('parts'), () => cells(7, [2, 3, 4, 5, 6]));
let last = [];

export function showPartitions(partitions) {
  last = partitions;
  const wanted = $('filter').value.trim();
  const found = partitions.filter((p) => p.topic.includes(wanted));
  const order = $('order').value;
  if (order === 'lag') found.sort((a, b) => b.lag - a.lag);
  if (order === 'rate') found.sort((a, b) => (b.rate ?? -1) - (a.rate ?? -1));
  const shown = found.slice(0, MOST);
  put($('parts-count'), `${count(partitions.length)}${found.length < partitions.length ? `, ${count(found.length)} found` : ''}${shown.length < found.length ? `, the first ${MOST} shown` : ''}`);
  partRows.sync(shown, (p) => `${p.topic}/${p.partition}`, (row, p) => {
    row.fill([`${p.topic}/${p.partition}`, p.coordinator || 'none', rate(p.rate), p.lag >= 0 ? count(p.lag) : '?', p.epoch, count(p.seqno), count(p.next_offset)]);
    row.root.classList.toggle('bad', !p.coordinator);
  });
}

for (const id of ['filter', 'order']) $(id).addEventListener('input', () => showPartitions(last));
