import type { Answer } from './connection.js';
import { TidewireError } from './errors.js';
import type { Position, Vector } from './position.js';

/**
 * One Kafka record.
 *
 * @example
 * for await (const m of k.subscribe<Order>('/orders/*')) show(m.subject, m.value, new Date(m.timestamp));
 */
export interface Message<T = any> {
  /** Its own subject, also where a pattern was subscribed to. */
  subject: string;
  /** Names the record, the same on every node, for ever. */
  position: Position;
  /** Kafka's timestamp, unix milliseconds. */
  timestamp: number;
  /** What the value is: JSON, other text, bytes that are neither, or Kafka's null (a tombstone). */
  kind: 'json' | 'text' | 'bytes' | 'null';
  /** The value: parsed JSON, a string, a Uint8Array, or null. */
  value: T;
  /** The record's headers; one that is not UTF-8 is a Uint8Array. */
  headers: Record<string, string | Uint8Array>;
}

/**
 * A run of records that cannot be had, both ends included; an end that is not known is left out.
 *
 * @example
 * s.on('gap', ({ lost }) => lost.forEach(({ partition, from, to }) => console.warn(partition, from, to)));
 */
export interface Lost {
  /** The partition that they were in. */
  partition: number;
  /** `[epoch, seqno]` of the first. */
  from?: [number, number];
  /** `[epoch, seqno]` of the last. */
  to?: [number, number];
}

/**
 * Records are missing and cannot be had. It comes in its place among the messages.
 *
 * @example
 * s.on('gap', (gap) => reloadEverything(gap.reason));
 */
export interface Gap {
  /**
   * `evicted`, `truncated` or `unknown_epoch` as the cluster said it; `missed`: a record showed that one
   * before it never came, and asking again did not bring it; `refused`: the cluster did not take the stored
   * vector, and the subscription began anew.
   */
  reason: string;
  /** Where the subscription goes on. */
  at: Vector;
  /** What is missing, where it is known. */
  lost: Lost[];
}

/**
 * The subscription went on after a break, or from a vector, and nothing is missing or repeated.
 *
 * @example
 * s.on('recovered', ({ node, previous }) => console.info(`went on at ${node} after ${previous}`));
 */
export interface Recovered {
  /** The node that serves it now. */
  node: string;
  /** The one before; empty for the first. */
  previous: string;
  /** Where it goes on. */
  at: Vector;
}

/**
 * Another node serves now.
 *
 * @example
 * k.on('moved', ({ from, to }) => console.info(`${from} → ${to}`));
 */
export interface Moved {
  from: string;
  to: string;
}

const bytes = (b64: string): Uint8Array => Uint8Array.from(atob(b64), (c) => c.charCodeAt(0));

/** Makes a message of a `msg` op. @internal */
export function message(a: Answer, position: Position): Message {
  const headers: Message['headers'] = {};
  for (const [name, v] of Object.entries((a.headers ?? {}) as Record<string, string | { b64: string } | null>)) {
    Object.defineProperty(headers, name, { value: v && typeof v === 'object' ? bytes(v.b64) : (v ?? ''), enumerable: true, configurable: true, writable: true });
  }
  const m = { subject: String(a.subject), position, timestamp: Number(a.ts), headers };
  if ('data' in a) return { ...m, kind: 'json', value: a.data };
  if ('text' in a) return { ...m, kind: 'text', value: a.text };
  if ('b64' in a) return { ...m, kind: 'bytes', value: bytes(a.b64) };
  if (a.null !== true) throw new TidewireError('bad_request', 'a msg without a value');
  return { ...m, kind: 'null', value: null };
}
