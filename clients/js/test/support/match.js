// Patterns of the scenarios (docs/clients.md): "$name" stands for a value that is bound where it is first
// met and must be the same from then on, "$_" for anything, or nothing.

// What an op may leave out or say, whichever the client likes.
const defaults = { history: 0, conflate_ms: 0, ack: 'kafka', headers: {} };

const isVector = (v) => Array.isArray(v) && v.length > 0 && v.every((p) => Array.isArray(p) && p.length === 3);
const sorted = (v) => [...v].sort((a, b) => a[0] - b[0]);

// match returns null, or where and why value does not fit the pattern. With exact a field that the pattern
// does not name must be missing or have its default.
export function match(pattern, value, vars, exact, path = '') {
  const differs = () => `${path || 'it'}: ${JSON.stringify(value)} is not ${JSON.stringify(pattern)}`;
  if (typeof pattern === 'string' && pattern.startsWith('$')) {
    if (pattern === '$_') return null;
    if (!(pattern in vars)) {
      if (value === undefined) return `${path} is missing`;
      vars[pattern] = value;
      return null;
    }
    return match(vars[pattern], value, {}, exact, path);
  }
  if (pattern === null || typeof pattern !== 'object') return Object.is(pattern, value) ? null : differs();
  if (value === null || typeof value !== 'object' || Array.isArray(pattern) !== Array.isArray(value)) return differs();
  if (Array.isArray(pattern)) {
    if (pattern.length !== value.length) return differs();
    if (isVector(pattern) && isVector(value)) [pattern, value] = [sorted(pattern), sorted(value)];
  }
  for (const [k, p] of Object.entries(pattern)) {
    const wrong = match(p, value[k], vars, exact, `${path}.${k}`);
    if (wrong) return wrong;
  }
  if (exact && path === '') {
    for (const [k, v] of Object.entries(value)) {
      if (!(k in pattern) && JSON.stringify(v) !== JSON.stringify(defaults[k])) return `.${k} is ${JSON.stringify(v)} and should not be there`;
    }
  }
  return null;
}

// fill puts values in the place of variables in what the server says.
export function fill(template, vars, addr) {
  if (typeof template === 'string' && template.startsWith('$')) {
    if (template.startsWith('$now')) return Date.now() + Number(template.slice(4) || 0);
    if (template.startsWith('$addr:')) return addr(template.slice(6));
    if (!(template in vars)) throw new Error(`${template} is not bound yet`);
    return vars[template];
  }
  if (Array.isArray(template)) return template.map((v) => fill(v, vars, addr));
  if (template && typeof template === 'object') return Object.fromEntries(Object.entries(template).map(([k, v]) => [k, fill(v, vars, addr)]));
  return template;
}
