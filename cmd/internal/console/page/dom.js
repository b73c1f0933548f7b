// What the modules share. Keys, values, headers, names and addresses are data: they go in as text, never as
// markup, and into elements that keep their writing direction to themselves.

export const $ = (id) => document.getElementById(id);

export function element(name, text, cls) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

// data is an element for text that is not ours.
export const data = (text, cls) => element('bdi', text, cls);

// put sets a text only where it changes, so that a selection stays and nothing is drawn for nothing.
export function put(e, value) {
  const text = String(value);
  if (e.textContent !== text) e.textContent = text;
}

export function attribute(e, name, value) {
  if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value);
}

// A list of elements by key. sync makes it hold those of the keys, in this order. While the focus is inside,
// elements stay where they are: to move one would take the focus away.
export class Keyed {
  constructor(root, make) {
    this.root = root;
    this.make = make;
    this.rows = new Map();
  }

  sync(items, keyOf, show) {
    const keys = new Set(items.map(keyOf));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.root.remove();
      this.rows.delete(key);
    }
    const still = this.root.contains(document.activeElement);
    let place = this.root.firstElementChild;
    for (const [i, item] of items.entries()) {
      const key = keyOf(item, i);
      let row = this.rows.get(key);
      if (!row) {
        row = this.make(item);
        this.rows.set(key, row);
        this.root.insertBefore(row.root, place);
      } else if (row.root === place) {
        place = place.nextElementSibling;
      } else if (!still) {
        this.root.insertBefore(row.root, place);
      }
      show(row, item);
    }
  }
}

// cells makes a table row of n cells; numbers says which of them are.
export function cells(n, numbers = []) {
  const root = element('tr');
  const tds = Array.from({ length: n }, (_, i) => {
    const td = root.appendChild(element('td', undefined, numbers.includes(i) ? 'n' : undefined));
    return td.appendChild(element('bdi'));
  });
  return { root, tds, fill: (values) => values.forEach((v, i) => put(tds[i], v)) };
}

// Numbers for people.
const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
export const count = (n) => plain.format(n);

export function rate(n) {
  if (n === null || n === undefined) return '–';
  if (n === 0) return '0';
  if (n < 10) return n.toFixed(1);
  if (n < 10000) return plain.format(n);
  if (n < 1e6) return `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)}k`;
  return `${(n / 1e6).toFixed(1)}M`;
}

export function bytes(n) {
  if (n === null || n === undefined) return '–';
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (n < 1024) return `${n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} TiB`;
}

export function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const clock = (t = new Date()) => t.toLocaleTimeString();
