import { errorOf, retryMs, type Answer, type Connection } from './connection.js';
import { Emitter } from './emitter.js';
import { TidewireError } from './errors.js';
import type { Link } from './link.js';
import { message, type Gap, type Lost, type Message, type Moved, type Recovered } from './message.js';
import { after, places, position, vectorOf, type Places, type Position, type Vector } from './position.js';
import { Keeper, type VectorStorage } from './storage.js';

/**
 * Where a subscription starts and how it is delivered. Without any: what comes from now on.
 *
 * @example
 * k.subscribe('/orders/*', { history: 10, storage: sessionStorage });
 */
export interface SubscribeOptions {
  /** So many of the most recent cached records first; -1: all that are cached. Default: 0. */
  history?: number;
  /** Go on after this vector. Wins over `history` and over what is in `storage`. */
  resume?: Vector;
  /** Keeps the vector there, so that a reload resumes. */
  storage?: VectorStorage;
  /** The key in `storage`. Default: `tidewire:` and the subject. */
  storageKey?: string;
  /** At most one message per subject in so many milliseconds, always the newest. Default: 0, every message. */
  conflateMs?: number;
  /**
   * How many messages may wait for the application. There is no way to make a browser's WebSocket wait, so
   * when it is full the subscription ends on the server and is taken up again from its vector once half of
   * it has been read: nothing is lost, and nothing else is held up. Default: 1,024.
   */
  buffer?: number;
  /** How many bytes of frames may wait, in the same way. Default: 8 MiB. */
  bufferBytes?: number;
}

/**
 * `connecting`: not served now, or still catching up. `live`: the server has said that everything up to now
 * was sent. `denied`: the server refused or ended it. `closed`: the application did.
 *
 * @example
 * badge.hidden = s.state === 'live';
 */
export type SubscriptionState = 'connecting' | 'live' | 'denied' | 'closed';

/**
 * What a subscription tells. `message`, `live`, `gap`, `recovered` and `moved` come in their place in the
 * stream: with `for await`, when the loop gets there. The others come at once.
 *
 * @example
 * s.on('message', (m) => show(m.value));
 * s.on('gap', (gap) => reload(gap.reason));
 */
export interface SubscriptionEvents<T = any> {
  /** The next record; each partition in order, none twice. */
  message: Message<T>;
  /** Everything that was there when the subscription was made has been delivered. */
  live: void;
  /** It went on after a break without a loss. */
  recovered: Recovered;
  /** Records are lost for good. */
  gap: Gap;
  /** Another node serves it now. */
  moved: Moved;
  /** The connection is gone; the client is trying again. */
  connecting: void;
  /** The server refused it or ended it, and why. It has ended. */
  denied: TidewireError;
  /** The vector could not be kept in the storage; the subscription itself goes on. */
  error: TidewireError;
}

type Item = { [K in 'message' | 'live' | 'recovered' | 'gap' | 'moved']: [K, SubscriptionEvents[K], bytes: number] }[
  'message' | 'live' | 'recovered' | 'gap' | 'moved'
];

const IDLE = 0; // the server does not serve it
const STARTING = 1; // sub was sent
const ACTIVE = 2; // subbed was received: records count
const STOPPING = 3; // unsub was sent; what still comes is not counted

/**
 * One subject's stream of messages, by events or as an async iterable (not both at once). Leaving the loop
 * ends it; so does {@link Subscription.close}.
 *
 * @example
 * const s = k.subscribe('/orders/*', { history: 10 });
 * s.on('gap', (gap) => console.warn('lost', gap));
 * for await (const m of s) console.log(m.subject, m.value);
 */
export class Subscription<T = any> extends Emitter<SubscriptionEvents<T>> implements AsyncIterable<Message<T>> {
  /** What was subscribed to. */
  readonly subject: string;

  private _options: SubscribeOptions;
  private _link: Link;
  private _fresh: (why: TidewireError) => boolean;
  private _ended: () => void;
  private _limit: number;
  private _limitBytes: number;
  private _keeper: Keeper | undefined;
  private _loading = false;
  private _stored = false; // the vector to resume from came out of the storage
  private _refused = false; // and was refused: the application is to be told
  private _phase = IDLE;
  private _state: SubscriptionState = 'connecting';
  private _accepted = false; // at least once: from now on it is resumed
  private _paused = false; // the queue was full; half of it must be read first
  private _broken = false; // the connection was lost since the last subbed
  private _liveDue = true; // the application has not been told that it has caught up
  private _hole: Position | undefined; // the record that showed a hole, which a second attempt is to fill
  private _places: Places | undefined; // everything up to here is in the queue or was handed over
  private _given: Places | undefined; // everything up to here was handed over
  private _queue: Item[] = [];
  private _queued = 0; // bytes
  private _draining = false;
  private _reader: (() => void) | undefined;
  private _iterating = false;
  private _error: TidewireError | undefined;
  private _retry: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(link: Link, subject: string, options: SubscribeOptions, fresh: (why: TidewireError) => boolean, ended: () => void) {
    super();
    this.subject = subject;
    this._link = link;
    this._options = options;
    this._fresh = fresh;
    this._ended = ended;
    this._limit = Math.max(1, options.buffer ?? 1024);
    this._limitBytes = options.bufferBytes ?? 8 << 20;
    if (options.resume) this._given = this._places = places(options.resume);
    if (options.storage) {
      this._keeper = new Keeper(options.storage, options.storageKey ?? 'tidewire:' + subject, () => this._given, (e) => this._emit('error', e));
      if (!this._places) {
        this._loading = true;
        void this._keeper._load().then((kept) => {
          this._loading = false;
          this._stored = !!kept;
          if (kept) this._given = this._places = kept;
          this._start();
        });
      }
    }
  }

  /** Where the subscription stands. */
  get state(): SubscriptionState {
    return this._state;
  }

  /**
   * The place after the last message that was handed over: with it in {@link SubscribeOptions.resume} a later
   * subscription goes on there. Undefined until there is one.
   *
   * @example
   * await save(s.vector);
   */
  get vector(): Vector | undefined {
    return this._given && vectorOf(this._given);
  }

  override on<K extends keyof SubscriptionEvents<T>>(event: K, listener: (value: SubscriptionEvents<T>[K]) => void): () => void {
    if (event === 'message' && this._iterating) throw new TypeError('its messages go to a loop');
    const off = super.on(event, listener);
    if (event === 'message' && !this._draining) {
      this._draining = true;
      queueMicrotask(() => this._drain()); // so that listeners attached together all get what waits
    }
    return off;
  }

  /**
   * The messages, one after the other. Ends when the subscription is closed; throws a {@link TidewireError}
   * when the server refused or ended it.
   */
  [Symbol.asyncIterator](): AsyncIterator<Message<T>, void> {
    if (this._iterating || this._pushing()) throw new TypeError('its messages go to listeners or another loop');
    this._iterating = true;
    return {
      next: async () => {
        for (;;) {
          const item = this._shift();
          if (item?.[0] === 'message') return { done: false, value: item[1] as Message<T> };
          if (item) continue;
          if (this._state === 'denied' && this._error) throw this._error;
          if (this._state === 'closed' || this._state === 'denied') return { done: true, value: undefined };
          await new Promise<void>((resolve) => (this._reader = resolve));
        }
      },
      return: async () => {
        await this.close();
        return { done: true, value: undefined };
      },
    };
  }

  /**
   * Ends the subscription; what still waited is dropped. Resolves when its vector is kept.
   *
   * @example
   * await s.close();
   */
  async close(): Promise<void> {
    this._queue = [];
    this._queued = 0;
    if (this._phase === STARTING || this._phase === ACTIVE) this._stop();
    this._finish('closed');
    await this._keeper?._flush();
  }

  /** Writes the vector now. @internal */
  async _flush(): Promise<void> {
    await this._keeper?._flush();
  }

  /** Sends sub if there is nothing against it. @internal */
  _start(): void {
    const c = this._link._conn;
    if (this._phase !== IDLE || this._over() || !c || this._loading || this._retry) return;
    if (this._queue.length > this._limit / 2) this._paused = true;
    if (this._paused) return;
    this._phase = STARTING;
    const { history, conflateMs } = this._options;
    const resume = this._places && vectorOf(this._places);
    c._send({
      op: 'sub', id: this._link._nextID(), subject: this.subject,
      history: (!this._accepted && history) || undefined, resume, conflate_ms: conflateMs || undefined,
    }, (a) => this._answered(c, a, !!resume));
  }

  private _answered(c: Connection, a: Answer, resumed: boolean): void {
    if (this._over() || this._phase !== STARTING) return;
    if (a.op !== 'subbed') {
      this._phase = IDLE;
      if (a.op === 'error' && a.retry_ms > 0) {
        this._retry = setTimeout(() => {
          this._retry = undefined;
          this._start();
        }, retryMs(a));
        return;
      }
      const error = errorOf(a);
      if (a.code === 'unauthenticated' && this._fresh(error)) return; // the next connection has a fresh token
      if (a.code === 'bad_request' && this._stored && !this._accepted) {
        // What was stored is no vector of this topic any more: it was made anew with fewer partitions.
        this._stored = false;
        this._refused = true;
        this._given = this._places = undefined;
        this._start();
        return;
      }
      this._finish('denied', error);
      return;
    }
    this._phase = ACTIVE;
    const at = places(a.at);
    this._places = at;
    const previous = this._accepted ? this._link._before : '';
    if (resumed && a.recovered === false) {
      this._liveDue = true;
      this._push(['gap', { reason: a.gap ?? 'unknown', at: vectorOf(at), lost: lostOf(a) }, 0]);
    } else if (resumed && (this._broken || !this._accepted)) {
      this._liveDue = true;
      this._push(['recovered', { node: c._node, previous, at: vectorOf(at) }, 0]);
    } else if (!this._accepted) {
      this._given = new Map(at);
      this._keeper?._touch();
      if (this._refused) this._push(['gap', { reason: 'refused', at: vectorOf(at), lost: [] }, 0]);
    }
    if (this._broken && previous && previous !== c._node) this._push(['moved', { from: previous, to: c._node }, 0]);
    this._broken = false;
    this._accepted = true;
  }

  /** @internal */
  _record(a: Answer, pos: Position, size: number): void {
    if (this._phase !== ACTIVE) return;
    const vector = this._places as Places;
    const at = vector.get(pos[0]);
    if (at && !after(pos, at)) return; // repeated
    const prev = a.prev && ([pos[0], a.prev[0], a.prev[1]] as Position);
    if (at && prev && after(prev, at) && !this._options.conflateMs) {
      if (!this._hole || after(pos, this._hole) || after(this._hole, pos)) {
        // A record before this one never came. Asking again from the vector brings it, or shows that it is gone.
        this._hole = pos;
        this._stop();
        return;
      }
      const on = new Map(vector).set(pos[0], prev);
      if (!this._push(['gap', { reason: 'missed', at: vectorOf(on), lost: [{ partition: pos[0], from: [at[1], at[2] + 1], to: [prev[1], prev[2]] }] }, 0])) return;
      this._places = on;
    }
    if (this._push(['message', message(a, pos), size])) {
      (this._places as Places).set(pos[0], pos);
      this._hole = undefined;
    }
  }

  /** @internal */
  _caughtUp(): void {
    if (this._phase !== ACTIVE) return;
    this._state = 'live';
    if (this._liveDue && this._push(['live', undefined, 0])) this._liveDue = false;
  }

  /** A gap inside the stream. Its vector may name only the partitions that have one. @internal */
  _gap(a: Answer): void {
    if (this._phase !== ACTIVE) return;
    const on = new Map([...(this._places as Places), ...places(a.at)]);
    if (this._push(['gap', { reason: a.reason ?? 'unknown', at: vectorOf(on), lost: lostOf(a) }, 0])) this._places = on;
  }

  /** @internal */
  _unsubbed(a: Answer): void {
    this._finish('denied', new TidewireError(a.reason, `the server ended ${this.subject}: ${a.reason}`));
  }

  /** Forgets what the server knew. @internal */
  _disconnected(): void {
    clearTimeout(this._retry);
    this._retry = undefined;
    this._phase = IDLE;
    this._broken = true;
    if (this._over()) return;
    this._state = 'connecting';
    this._emit('connecting', undefined as never);
  }

  /** Ends it; the first reason stays. @internal */
  _finish(state: 'denied' | 'closed', error?: TidewireError): void {
    if (this._over()) return;
    this._state = state;
    this._error = error;
    this._phase = IDLE;
    clearTimeout(this._retry);
    this._ended();
    void this._keeper?._flush();
    if (error) this._emit('denied', error);
    this._reader?.();
  }

  private _over(): boolean {
    return this._state === 'denied' || this._state === 'closed';
  }

  private _pushing(): boolean {
    return !!this._listeners.get('message')?.size;
  }

  /** Hands an item over or queues it; if there is no room, pauses and returns false: it will come again. */
  private _push(item: Item): boolean {
    if (this._pushing() && !this._queue.length) {
      this._hand(item);
      return true;
    }
    if (this._queue.length >= this._limit || (this._queued + item[2] > this._limitBytes && this._queue.length)) {
      this._paused = true;
      this._state = 'connecting';
      this._stop();
      return false;
    }
    this._queue.push(item);
    this._queued += item[2];
    this._reader?.();
    return true;
  }

  /** Takes one item out of the queue and hands it over. */
  private _shift(): Item | undefined {
    const item = this._queue.shift();
    if (!item) return undefined;
    this._queued -= item[2];
    this._hand(item);
    if (this._paused && this._queue.length <= this._limit / 2 && this._queued <= this._limitBytes / 2) {
      this._paused = false;
      this._start();
    }
    return item;
  }

  private _drain(): void {
    this._draining = false;
    while (this._pushing() && this._shift());
  }

  private _hand([event, value]: Item): void {
    if (event === 'message') (this._given ??= new Map()).set(value.position[0], value.position);
    else if (event === 'gap' || event === 'recovered') this._given = places(value.at);
    if (event === 'message' || event === 'gap' || event === 'recovered') this._keeper?._touch();
    this._emit(event, value as never);
  }

  /** Sends unsub and ignores what still comes; a new sub follows the answer if there is to be one. */
  private _stop(): void {
    const c = this._link._conn;
    if (!c) return;
    this._phase = STOPPING;
    c._send({ op: 'unsub', id: this._link._nextID(), subject: this.subject }, () => {
      if (this._phase !== STOPPING) return;
      this._phase = IDLE; // unsubbed or not_subscribed: either way it is not served now
      this._start();
    });
  }
}

function lostOf(a: Answer): Lost[] {
  return (Array.isArray(a.lost) ? a.lost : []).map((l: Lost) => {
    const end = (e: unknown): [number, number] | undefined => e ? (position([l.partition, ...(e as [number, number])]).slice(1) as [number, number]) : undefined;
    return { partition: l.partition, from: end(l.from), to: end(l.to) };
  });
}
