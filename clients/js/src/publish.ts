import { errorOf, retryMs, type Answer, type Connection } from './connection.js';
import { TidewireError } from './errors.js';
import type { Link } from './link.js';
import type { Settings } from './options.js';
import { position, type Position } from './position.js';
import { utf8Length } from './subject.js';

/**
 * What a publish may say besides its value.
 *
 * @example
 * await k.publish('/orders/42', order, { ack: 'replicated', headers: { source: 'web' } });
 */
export interface PublishOptions {
  /**
   * What the record must have reached: `kafka`, all in-sync replicas (default); `replicated`, also a majority
   * of the edge nodes, and then {@link Acked.position} is known.
   */
  ack?: 'kafka' | 'replicated';
  /** The record's headers. */
  headers?: Record<string, string>;
  /** The message id, at most 128 bytes: one id is one message, written once. Default: a new one. */
  mid?: string;
  /** `json`: the value's JSON text, also for a string or null, which are text and a tombstone otherwise. */
  as?: 'json';
  /** Gives the publish up. It may have been written: the error's code is `uncertain` then. */
  signal?: AbortSignal;
}

/**
 * A publish that is written.
 *
 * @example
 * const { partition, offset, mid } = await k.publish('/orders/42', { state: 'paid' });
 */
export interface Acked {
  /** The message id that it was sent with. */
  mid: string;
  /** Where it is in Kafka. */
  partition: number;
  /** Where it is in Kafka. */
  offset: number;
  /** Its position, where the cluster said it: always with `ack: 'replicated'`. */
  position?: Position;
  /** The message had been written before; nothing new was. */
  duplicate: boolean;
}

interface Publish {
  id: number;
  mid: string;
  _op: Record<string, unknown>;
  _bytes: number;
  _on: Connection | undefined; // where it waits for an answer
  _sent: boolean; // it may have reached the cluster
  _over: boolean;
  _timer?: ReturnType<typeof setTimeout>;
  _resolve(acked: Acked): void;
  _reject(error: TidewireError): void;
  _signal?: AbortSignal;
  _abort?: () => void;
}

/** A message id: 128 random bits. Math.random serves where there is no crypto: ids must differ, not be secret. */
function newMid(): string {
  const words = globalThis.crypto?.getRandomValues?.(new Uint32Array(4)) ?? Array.from({ length: 4 }, () => Math.random() * 2 ** 32);
  return Array.from(words, (w) => Math.floor(w).toString(36)).join('-');
}

/** The field that carries a value. */
function field(value: unknown, as: PublishOptions['as']): Record<string, unknown> {
  if (as !== 'json') {
    if (value === null) return {};
    if (typeof value === 'string') return { text: value };
    if (value instanceof ArrayBuffer) value = new Uint8Array(value);
    if (ArrayBuffer.isView(value)) {
      let binary = '';
      for (const b of new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) binary += String.fromCharCode(b);
      return { b64: btoa(binary) };
    }
  }
  if (JSON.stringify(value) === undefined) throw new TypeError('no JSON value (a tombstone is null)');
  return { data: value };
}

/**
 * Publishes in order: one of each subject is under way at a time, the next is sent when it was acked or
 * refused. Each is repeated with its mid until then.
 *
 * @internal
 */
export class Publisher {
  private _lanes = new Map<string, Publish[]>(); // by subject; the first of each is under way
  private _count = 0;
  private _bytes = 0;

  constructor(private _link: Link, private _settings: Settings, private _fresh: (why: TidewireError) => boolean) {}

  get _waiting(): number {
    return this._count;
  }

  _publish(subject: string, value: unknown, o: PublishOptions): Promise<Acked> {
    const mid = o.mid ?? newMid();
    const fail = (code: string, message: string): never => {
      throw new TidewireError(code, message, { mid });
    };
    if (utf8Length(mid) > 128) fail('bad_request', 'a message id is at most 128 bytes long');
    if (o.signal?.aborted) fail('aborted', 'given up before it was sent');
    const id = this._link._nextID();
    const op = { op: 'pub', id, subject, ...field(value, o.as), headers: o.headers, mid, ack: o.ack };
    // What was given must not change any more while the publish waits.
    const text = JSON.stringify(op);
    const bytes = utf8Length(text);
    if (this._count >= this._settings.maxPublishes || this._bytes + bytes > this._settings.maxPublishBytes) {
      fail('queue_full', `${this._count} publishes of ${this._bytes} bytes wait already (see maxPublishes, maxPublishBytes): await some`);
    }
    return new Promise((resolve, reject) => {
      const p: Publish = { id, mid, _op: JSON.parse(text), _bytes: bytes, _on: undefined, _sent: false, _over: false, _resolve: resolve, _reject: reject };
      if (o.signal) {
        p._signal = o.signal;
        p._abort = () => this._giveUp(subject, p, 'aborted', 'given up');
        o.signal.addEventListener('abort', p._abort);
      }
      this._count++;
      this._bytes += bytes;
      const lane = this._lanes.get(subject);
      if (lane) lane.push(p);
      else this._lanes.set(subject, [p]);
      this._send(subject);
    });
  }

  /** Sends the first of every lane on a new connection. */
  _resend(): void {
    for (const subject of [...this._lanes.keys()]) this._send(subject);
  }

  /** A connection has ended. `blame`: the op that the server cannot have taken. */
  _dropped(c: Connection, blame: number | undefined): void {
    for (const [subject, lane] of [...this._lanes]) {
      const p = lane[0];
      if (p?._on !== c) continue;
      p._on = undefined;
      if (p.id === blame) this._finish(subject, p, new TidewireError('too_large', 'the server refused the frame', { mid: p.mid }));
    }
  }

  /** Ends every publish: the client was closed or cannot go on. */
  _close(code: string, message: string): void {
    for (const [subject, lane] of [...this._lanes]) for (const p of [...lane].reverse()) this._giveUp(subject, p, code, message);
  }

  private _send(subject: string): void {
    const p = this._lanes.get(subject)?.[0];
    const c = this._link._conn;
    if (!p || !c || p._on === c || p._over) return;
    clearTimeout(p._timer);
    p._on = c;
    p._sent = true;
    c._send(p._op as never, (a) => this._answered(subject, p, a));
  }

  private _answered(subject: string, p: Publish, a: Answer): void {
    if (p._over) return;
    if (a.op === 'acked') {
      this._finish(subject, p, undefined, {
        mid: p.mid, partition: a.partition, offset: a.offset, duplicate: !!a.duplicate, ...(a.pos ? { position: position(a.pos) } : {}),
      });
      return;
    }
    const error = errorOf(a, p.mid);
    if (a.op === 'error' && (a.retry_ms > 0 || a.code === 'unavailable' || a.code === 'rate_limited')) {
      p._timer = setTimeout(() => {
        p._on = undefined;
        this._send(subject);
      }, Math.max(50, retryMs(a)));
    } else if (a.code === 'unauthenticated' && this._fresh(error)) {
      // The connection is given up: the next one has a fresh token, and the publish is repeated there.
    } else {
      this._finish(subject, p, error);
    }
  }

  private _giveUp(subject: string, p: Publish, code: string, message: string): void {
    this._finish(subject, p, p._sent
      ? new TidewireError('uncertain', `${message}; it may have been written: publish again with mid ${p.mid}`, { mid: p.mid })
      : new TidewireError(code, message, { mid: p.mid }));
  }

  private _finish(subject: string, p: Publish, error: TidewireError | undefined, acked?: Acked): void {
    if (p._over) return;
    p._over = true;
    clearTimeout(p._timer);
    if (p._abort) p._signal?.removeEventListener('abort', p._abort);
    p._on?._forget(p.id);
    this._count--;
    this._bytes -= p._bytes;
    const lane = this._lanes.get(subject) as Publish[];
    lane.splice(lane.indexOf(p), 1);
    if (!lane.length) this._lanes.delete(subject);
    if (error) p._reject(error);
    else p._resolve(acked as Acked);
    this._send(subject);
  }
}
