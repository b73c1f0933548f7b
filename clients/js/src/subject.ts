// A subject is "/topic" (records without a key) or "/topic/key". In it a key's bytes that are not UTF-8,
// control characters, "%", and a segment that is exactly "*" are written %XX, and nothing else is: every
// key has one text and every text one key.

const controls = /[%\u0000-\u001f\u007f-\u009f]/;
const star = /(^|\/)\*(?=\/|$)/g;
const hex = (byte: number): string => '%' + byte.toString(16).toUpperCase().padStart(2, '0');

/** The bytes of a text as UTF-8; throws for half a surrogate pair. React Native has no TextEncoder everywhere. */
function utf8(text: string): Uint8Array {
  const escaped = encodeURIComponent(text);
  const bytes: number[] = [];
  for (let i = 0; i < escaped.length; i++) {
    if (escaped[i] === '%') bytes.push(parseInt(escaped.slice(i + 1, (i += 2) + 1), 16));
    else bytes.push(escaped.charCodeAt(i));
  }
  return Uint8Array.from(bytes);
}

/** How many bytes a text takes as UTF-8. @internal */
export function utf8Length(text: string): number {
  let n = text.length;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c > 0x7f) n += c > 0x7ff && (c < 0xd800 || c > 0xdfff) ? 2 : 1; // a pair's two halves: four bytes
  }
  return n;
}

/** The valid UTF-8 sequence that starts at i, percent-decoded; undefined if there is none. */
function sequence(bytes: Uint8Array, i: number): string | undefined {
  const b = bytes[i] as number;
  const length = b < 0x80 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;
  let text = '';
  for (let k = i; k < i + length; k++) {
    if (k >= bytes.length) return undefined;
    text += hex(bytes[k] as number);
  }
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/**
 * The subject of a topic's records with this key, or without a key: escapes what must be.
 *
 * @param topic - the Kafka topic
 * @param key - a string, or bytes; left out or null: the records without a key
 *
 * @example
 * subject('orders', '42');      // '/orders/42'
 * subject('rates', '50%');      // '/rates/50%25'
 * subject('orders');            // '/orders'
 */
export function subject(topic: string, key?: string | Uint8Array | null): string {
  if (key === undefined || key === null) return `/${topic}`;
  const bytes = typeof key === 'string' ? utf8(key) : key;
  let text = '';
  for (let i = 0; i < bytes.length; ) {
    const valid = sequence(bytes, i);
    const length = valid ? utf8(valid).length : 1;
    const part = [...bytes.subarray(i, (i += length))];
    text += valid && !controls.test(valid) ? valid : part.map(hex).join('');
  }
  return `/${topic}/${text.replace(star, '$1%2A')}`;
}

/**
 * Takes a subject apart again; `key` is bytes if it is not UTF-8, null for records without a key.
 *
 * @example
 * parseSubject('/vehicles/1/speed'); // { topic: 'vehicles', key: '1/speed' }
 */
export function parseSubject(text: string): { topic: string; key: string | Uint8Array | null } {
  const at = text.indexOf('/', 1);
  if (at < 0) return { topic: text.slice(1), key: null };
  const topic = text.slice(1, at);
  const rest = text.slice(at + 1);
  if (!rest.includes('%')) return { topic, key: rest };
  const bytes: number[] = [];
  rest.split(/(%[0-9A-F]{2})/).forEach((part, i) => {
    if (i % 2) bytes.push(parseInt(part.slice(1), 16));
    else bytes.push(...utf8(part));
  });
  const key = Uint8Array.from(bytes);
  try {
    return { topic, key: decodeURIComponent(bytes.map(hex).join('')) };
  } catch {
    return { topic, key };
  }
}

/** "/t/a/" of the pattern "/t/a/*"; undefined for a subject. */
const prefixOf = (pattern: string): string | undefined => (/^\/[^/]+\/(.*\/)?\*$/s.test(pattern) ? pattern.slice(0, -1) : undefined);

/** The names of all subscriptions that a record of this subject may belong to. @internal */
export function* candidates(subject: string): Generator<string> {
  yield subject;
  for (let i = subject.indexOf('/', 1); i >= 0; i = subject.indexOf('/', i + 1)) yield subject.slice(0, i + 1) + '*';
  if (subject.indexOf('/', 1) < 0) yield subject + '/*';
}

/** Says whether a record can exist that both subscriptions receive. @internal */
export function overlap(a: string, b: string): boolean {
  const pa = prefixOf(a);
  const pb = prefixOf(b);
  if (pa && pb) return pa.startsWith(pb) || pb.startsWith(pa);
  if (pa) return [...candidates(b)].includes(a);
  if (pb) return [...candidates(a)].includes(b);
  return a === b;
}
