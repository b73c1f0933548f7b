import { KEEP } from './rates.js';

const SVG = 'http://www.w3.org/2000/svg';
const W = 240, H = 48;

// A Spark draws the last values of a series, the newest at the right; where none is known there is a gap.
export class Spark {
  constructor() {
    this.root = document.createElementNS(SVG, 'svg');
    this.root.setAttribute('viewBox', `0 0 ${W} ${H}`);
    this.root.setAttribute('preserveAspectRatio', 'none');
    this.root.setAttribute('aria-hidden', 'true'); // the tile says in words what it shows
    this.area = this.root.appendChild(document.createElementNS(SVG, 'path'));
    this.area.setAttribute('class', 'area');
    this.line = this.root.appendChild(document.createElementNS(SVG, 'path'));
    this.line.setAttribute('class', 'line');
  }

  // draw returns the largest value drawn, null when there is none.
  draw(values) {
    const known = values.filter((v) => v !== null);
    const top = known.length ? Math.max(...known) : 0;
    const points = Math.max(values.length, KEEP / 4); // a young page has room for a quarter
    const x = (i) => (W * (points - values.length + i)) / (points - 1);
    const y = (v) => H - 2 - ((H - 6) * v) / (top || 1);
    let line = '', area = '', from = null;
    values.forEach((v, i) => {
      if (v === null) return;
      const first = i === 0 || values[i - 1] === null;
      const last = i === values.length - 1 || values[i + 1] === null;
      if (first) from = x(i);
      const point = `${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
      line += `${first ? 'M' : 'L'}${point}`;
      area += first ? `M${from.toFixed(1)} ${H}L${point}` : `L${point}`;
      if (last) {
        area += `L${x(i).toFixed(1)} ${H}Z`;
        if (first) line += 'h.1'; // a point of its own shows too
      }
    });
    this.line.setAttribute('d', line);
    this.area.setAttribute('d', area);
    return known.length ? top : null;
  }
}
