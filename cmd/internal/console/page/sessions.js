import { $, element, put, Keyed, count, span } from './dom.js';
import { Poll } from './poll.js';

// The sessions of this node, the furthest behind first, a page at a time.
const PAGE = 25, MOST = 1000;
let offset = 0;

const rows = new Keyed($('session-list'), () => {
  const root = element('li');
  const details = root.appendChild(element('details'));
  const summary = details.appendChild(element('summary'));
  const remote = summary.appendChild(element('bdi', '', 'remote'));
  const user = summary.appendChild(element('bdi', '', 'dim'));
  const lag = summary.appendChild(element('span', '', 'lag'));
  const blocked = summary.appendChild(element('span', 'blocked', 'pill off'));
  const subs = summary.appendChild(element('span', '', 'dim'));
  const since = summary.appendChild(element('span', '', 'dim'));
  const id = details.appendChild(element('p', '', 'dim id'));
  const list = details.appendChild(element('ul', undefined, 'subjects'));
  return { root, remote, user, lag, blocked, subs, since, id, list: new Keyed(list, makeSub) };
});

function makeSub() {
  const root = element('li');
  const subject = root.appendChild(element('bdi', '', 'subject'));
  const lag = root.appendChild(element('span', '', 'lag'));
  const how = root.appendChild(element('span', '', 'dim'));
  return { root, subject, lag, how };
}

const behind = (n) => (n > 0 ? `${count(n)} behind` : 'up to date');

function show(page) {
  put($('self'), page.node);
  put($('sessions-count'), `of ${page.node}: ${count(page.connections)} connections, ${count(page.behind)} behind, ${count(page.blocked)} blocked`);
  rows.sync(page.sessions, (s) => s.id, (row, s) => {
    put(row.remote, s.remote);
    put(row.user, s.user ?? '');
    put(row.lag, behind(s.lag));
    row.lag.classList.toggle('bad', s.lag > 0);
    row.blocked.hidden = !s.blocked;
    put(row.subs, `${s.stream ? 'SSE, ' : ''}${count(s.subscriptions)} subscription${s.subscriptions === 1 ? '' : 's'}`);
    put(row.since, `for ${span((page.now - s.since) / 1000)}`);
    put(row.id, `session ${s.id}, since ${new Date(s.since).toLocaleString()}` + (s.subscriptions > s.furthest.length ? `; of its subscriptions the ${s.furthest.length} furthest behind:` : ''));
    row.list.sync(s.furthest, (f, i) => i, (r, f) => {
      put(r.subject, f.subject + (f.cut ? '…' : ''));
      put(r.lag, behind(f.lag));
      put(r.how, (f.partitions > 1 ? `${f.partitions} partitions` : '') + (f.from_kafka ? ' from Kafka' : ''));
    });
  });
  const end = offset + page.sessions.length;
  put($('sessions-note'), page.sessions.length ? `${count(offset + 1)} to ${count(end)}, the furthest behind first` : offset ? 'there are no more' : 'no client is connected here');
  $('newer').disabled = offset === 0;
  $('older').disabled = page.sessions.length < PAGE || end >= MOST;
}

export function watchSessions() {
  const poll = new Poll(() => `/sessions?limit=${PAGE}&offset=${offset}&subscriptions=20`, 2000, { answer: show });
  const turn = (by) => { offset = Math.min(Math.max(0, offset + by), MOST - PAGE); poll.now(); };
  $('newer').addEventListener('click', () => turn(-PAGE));
  $('older').addEventListener('click', () => turn(PAGE));
  return poll;
}
