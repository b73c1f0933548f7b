import { $, element, put, attribute, rate, bytes, count } from './dom.js';
import { Spark } from './spark.js';

// What is drawn: the series, its name, how its values are written, and what is told besides.
const TILES = [
  { series: 'records', name: 'records in', write: rate, unit: '/s', more: (r) => `${bytes(r.now('record_bytes'))}/s` },
  { series: 'delivered', name: 'delivered', write: rate, unit: '/s', more: (r) => `${bytes(r.now('delivered_bytes'))}/s` },
  { series: 'publishes', name: 'publishes', write: rate, unit: '/s', more: (r) => (r.now('not_published') ? `${rate(r.now('not_published'))}/s not written` : 'none refused') },
  { series: 'connections', name: 'connections', write: count, unit: '', more: (r) => `${count(r.now('subscriptions') ?? 0)} subscriptions` },
];

const made = new Map();

function make(t) {
  const root = element('figure', undefined, 'tile');
  const name = root.appendChild(element('figcaption', t.name));
  const value = root.appendChild(element('strong', '–'));
  const more = root.appendChild(element('span', '', 'dim'));
  const spark = new Spark();
  root.append(spark.root);
  const top = root.appendChild(element('span', '', 'top dim'));
  $('tiles').append(root);
  return { root, name, value, more, spark, top };
}

export function showTiles(rates, nodes) {
  for (const t of TILES) {
    if (!made.has(t.series)) made.set(t.series, make(t));
    const e = made.get(t.series);
    const now = rates.now(t.series);
    const text = now === null ? '–' : t.write(now) + t.unit;
    put(e.value, text);
    put(e.more, now === null ? why(nodes) : t.more(rates));
    const top = e.spark.draw(rates.series.get(t.series));
    put(e.top, top === null ? '' : `at most ${t.write(top)}${t.unit}`);
    attribute(e.root, 'aria-label', `${t.name}: ${text}${top === null ? '' : `, at most ${t.write(top)}${t.unit} of late`}`);
  }
}

// why says why there is no rate.
function why(nodes) {
  if (nodes.length && nodes.every((n) => !n.counters)) return 'these nodes do not count it';
  return 'from the second answer on';
}
