/**
 * Names one record of one partition of one topic, the same one on every node, for ever:
 * `[partition, epoch, seqno]`. Within a partition epochs order first, then sequence numbers.
 *
 * @example
 * const [partition, epoch, seqno] = message.position;
 */
export type Position = [partition: number, epoch: number, seqno: number];

/**
 * A subscription's place in its subject: at most one position a partition. It says "I have everything up
 * to here". It is plain JSON and may be kept anywhere.
 *
 * @example
 * const place: Vector = s.vector;
 * k.subscribe('/orders/42', { resume: place });
 */
export type Vector = Position[];

/**
 * Says whether position `a` is later than `b`; both must be of one partition.
 *
 * @example
 * after([0, 7, 2], [0, 6, 900]); // true: a later epoch
 */
export const after = (a: Position, b: Position): boolean => a[1] > b[1] || (a[1] === b[1] && a[2] > b[2]);

/** The vector while it is in use, by partition. @internal */
export type Places = Map<number, Position>;

/** Reads a position that came from outside; throws for anything else. @internal */
export function position(p: unknown): Position {
  if (!Array.isArray(p) || p.length !== 3 || !p.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw new TypeError(`not a position [partition, epoch, seqno]: ${JSON.stringify(p)}`);
  }
  return [p[0], p[1], p[2]];
}

/** Reads a vector that came from outside; throws for anything else. @internal */
export function places(v: unknown): Places {
  if (!Array.isArray(v)) throw new TypeError(`not a vector [[partition, epoch, seqno], …]: ${JSON.stringify(v)}`);
  const out: Places = new Map();
  for (const p of v) {
    if (out.has(p?.[0])) throw new TypeError(`a vector names partition ${p[0]} twice`);
    out.set(p?.[0], position(p));
  }
  return out;
}

/** The vector to send or to keep. @internal */
export const vectorOf = (p: Places): Vector => [...p.values()].map((x) => [...x] as Position).sort((a, b) => a[0] - b[0]);
