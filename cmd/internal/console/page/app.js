// The console: one status of the whole cluster, asked again and again, and what the other modules make of it.
import { $, put, element, data, clock, span } from './dom.js';
import { Poll } from './poll.js';
import { Rates } from './rates.js';
import { showTiles } from './tiles.js';
import { showNodes, showGroups, showPartitions, bestGroups, bestPartitions } from './cluster.js';
import { watchSessions } from './sessions.js';
import { login } from './login.js';
import './try.js';

const rates = new Rates();
let known = null; // what the events below are told apart from

function tell(...parts) {
  const li = element('li');
  li.append(element('time', clock()), ...parts);
  $('events').prepend(li);
  while ($('events').childElementCount > 50) $('events').lastChild.remove();
}

// happened tells what is not as it was: nodes that come and go, coordinators and epochs that change.
function happened(nodes, unreachable, groups, partitions) {
  const now = {
    nodes: new Map([...nodes.map((n) => [n.node, n.ready ? 'ready' : 'not ready']), ...Object.keys(unreachable).map((n) => [n, 'unreachable'])]),
    leaders: new Map(groups.map((g) => [g.group, g.leader])),
    epochs: new Map(partitions.map((p) => [`${p.topic}/${p.partition}`, p.epoch])),
  };
  const why = (name) => {
    const text = unreachable[name] ?? (nodes.find((n) => n.node === name)?.not_ready ?? []).join('; ');
    return text ? [': ', data(text, 'dim')] : [];
  };
  if (known) {
    for (const [n, state] of now.nodes) if (known.nodes.get(n) !== state) tell(data(n), ` is ${state}`, ...why(n));
    for (const [g, leader] of now.leaders) {
      const was = known.leaders.get(g);
      if (was !== leader) tell(`group ${g}: `, data(was || 'none'), ' → ', data(leader || 'none'));
    }
    let epochs = 0, appeared = 0, example = '';
    for (const [p, epoch] of now.epochs) {
      if (!known.epochs.has(p)) appeared++;
      else if (known.epochs.get(p) !== epoch && epochs++ === 0) example = `${p} is in epoch ${epoch}`;
    }
    if (epochs) tell(data(example), epochs > 1 ? `, and ${epochs - 1} other partitions in new ones` : '');
    if (appeared) tell(`${appeared} partition${appeared > 1 ? 's' : ''} more`);
  } else {
    tell('the page was opened');
  }
  known = now;
}

function health(nodes, unreachable, groups, partitions) {
  const all = nodes.length + Object.keys(unreachable).length;
  const ready = nodes.filter((n) => n.ready).length;
  const led = groups.filter((g) => g.leader).length;
  const lags = partitions.map((p) => p.lag).filter((l) => l >= 0);
  const lag = lags.length ? Math.max(...lags) : 0;
  put($('health'), `${ready} of ${all} node${all > 1 ? 's' : ''} ready, ${led} of ${groups.length} groups coordinated`);
  $('health').classList.toggle('off', ready < all || led < groups.length);
  $('health').title = `largest lag of a partition: ${lag}`;
}

const cluster = new Poll(() => '/status?cluster=true', 1000, {
  answer(s) {
    $('silent').hidden = true;
    document.body.classList.remove('stale');
    const nodes = [...(s.nodes ?? [])].sort((a, b) => (a.node < b.node ? -1 : 1));
    const unreachable = s.unreachable ?? {};
    const at = performance.now();
    rates.feed({ nodes }, at);
    const groups = bestGroups(nodes), partitions = bestPartitions(nodes);
    for (const p of partitions) p.rate = rates.partition(`${p.topic}/${p.partition}`, p.next_offset, at);
    health(nodes, unreachable, groups, partitions);
    happened(nodes, unreachable, groups, partitions);
    showTiles(rates, nodes);
    showNodes(nodes, unreachable, rates, groups);
    showGroups(nodes, groups);
    showPartitions(partitions);
  },
  silence({ since, why, next, status }) {
    if (status === 401) { // it does answer
      put($('health'), 'wants its admin token');
      $('health').classList.add('off');
      login(askAll);
      return;
    }
    const name = $('self').textContent;
    put($('silent-why'), `${name === '…' ? 'The node' : name} does not answer${since ? ` since ${clock(since)}` : ''} (${why}). What you see is from before. Next question in ${span(next / 1000 + 0.5)}.`);
    $('silent').hidden = false;
    document.body.classList.add('stale');
    put($('health'), 'no answer');
    $('health').classList.add('off');
  },
});

const sessions = watchSessions();
function askAll() {
  cluster.now();
  sessions.now();
}
$('again').addEventListener('click', askAll);
askAll();
