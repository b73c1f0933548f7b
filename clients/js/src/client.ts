import { Emitter } from './emitter.js';
import { TidewireError } from './errors.js';
import { Link } from './link.js';
import type { Moved } from './message.js';
import { settings, type Options, type Settings } from './options.js';
import { Publisher, type Acked, type PublishOptions } from './publish.js';
import { overlap } from './subject.js';
import { Subscription, type SubscribeOptions } from './subscription.js';
import { watch } from './visibility.js';

/**
 * `connecting`: there is no connection, one is being made. `live`: connected, and the token accepted.
 * `paused`: by {@link Tidewire.pause} or because the page is hidden. `denied`: the token was refused and no
 * other can be had; the client has ended. `closed`: so has it.
 *
 * @example
 * dot.className = k.state;
 */
export type ClientState = 'connecting' | 'live' | 'paused' | 'denied' | 'closed';

/**
 * What a client tells of its connection.
 *
 * @example
 * k.on('connecting', ({ error, retryMs }) => status(`offline: ${error.message}, next try in ${retryMs} ms`));
 * k.on('live', ({ node }) => status(`connected to ${node}`));
 */
export interface ClientEvents {
  /** The connection was lost, or an attempt failed; when the next one will be. */
  connecting: { error: Error; retryMs: number };
  /** Connected to a node. */
  live: { node: string; session: string };
  /** Connected to another node than before. */
  moved: Moved;
  /** Nothing is tried until the page is visible again or {@link Tidewire.resume} is called. */
  paused: void;
  /** The token was refused. With a token function a new one is tried later; else the client has ended. */
  denied: TidewireError;
}

/**
 * A client of a Tidewire cluster. It connects to one of the nodes, moves to another when that one goes,
 * and subscribes again from where it was: a subscription misses no record and gets none twice, unless a
 * `gap` says so. Publishes are repeated until they are acknowledged or refused, and written once.
 *
 * @example
 * const k = new Tidewire({ nodes: ['wss://a.example.com', 'wss://b.example.com'] });
 * for await (const m of k.subscribe('/orders/*', { history: 10 })) console.log(m.subject, m.value);
 */
export class Tidewire extends Emitter<ClientEvents> {
  private _settings: Settings;
  private _links: Link[] = [];
  private _publisher: Publisher;
  private _lastID = 0;
  private _state: ClientState = 'connecting';
  private _error: TidewireError | undefined;
  private _hiding: ReturnType<typeof setTimeout> | undefined;
  private _unwatch: () => void;

  /**
   * Begins to connect. Throws a TypeError for options that cannot work.
   *
   * @example
   * const k = new Tidewire({ nodes: ['127.0.0.1:8080', '127.0.0.1:8180'], token: () => freshToken() });
   */
  constructor(options: Options) {
    super();
    this._settings = settings(options);
    this._publisher = new Publisher(this._newLink(), this._settings, (why) => this._fresh(this._links[0] as Link, why));
    this._unwatch = watch({
      _hidden: () => this._hidden(),
      _visible: (online) => {
        clearTimeout(this._hiding);
        this._resume(online);
      },
      _leaving: () => void this._flush(),
    });
  }

  /** Where the connection stands. */
  get state(): ClientState {
    return this._state;
  }

  /** The name of the node that the client is connected to; undefined while there is none. */
  get node(): string | undefined {
    return this._links[0]?._conn?._node;
  }

  /**
   * Subscribes to a subject, or to a pattern such as `/orders/*`. Returns at once; the subscription tells what
   * becomes of it. All share one connection, but those that overlap.
   *
   * @example
   * const s = k.subscribe<Order>('/orders/42', { history: 1 });
   * s.on('message', (m) => show(m.value));
   */
  subscribe<T = any>(subject: string, options: SubscribeOptions = {}): Subscription<T> {
    this._check();
    let link = this._links.find((l) => ![...l._subs.keys()].some((other) => overlap(other, subject)));
    if (!link) {
      if (this._links.length >= this._settings.maxConnections) {
        throw new TidewireError('connections', `${subject} overlaps with others on all ${this._links.length} connections (see maxConnections)`);
      }
      link = this._newLink();
    }
    const on = link;
    const s = new Subscription<T>(on, subject, options, (why) => this._fresh(on, why), () => {
      if (on._subs.get(subject) === s) on._subs.delete(subject);
      // After this turn, so that the unsub goes out and a subscription made at once can use the connection.
      queueMicrotask(() => this._unlink(on));
    });
    on._subs.set(subject, s);
    s._start();
    return s;
  }

  /**
   * Publishes one message: a string as text, bytes as bytes, null as a tombstone, anything else as JSON.
   * Resolves when it is written; rejects with a {@link TidewireError}. Publishes to one subject are written in
   * the order of the calls.
   *
   * @example
   * const { partition, offset } = await k.publish('/chat/room-1', { from: 'me', text: 'hello' });
   */
  async publish(subject: string, value: unknown, options: PublishOptions = {}): Promise<Acked> {
    this._check();
    return this._publisher._publish(subject, value, options);
  }

  /**
   * Closes the connection and stays away until {@link Tidewire.resume}; subscriptions and publishes wait. A page
   * does so by itself when it is hidden; in React Native the app says it.
   *
   * @example
   * AppState.addEventListener('change', (s) => (s === 'active' ? k.resume() : k.pause()));
   */
  pause(): void {
    if (this._over() || this._state === 'paused') return;
    this._state = 'paused';
    for (const l of this._links) l._stop(new Error('paused'));
    void this._flush();
    this._emit('paused', undefined);
  }

  /**
   * Ends {@link Tidewire.pause}. If not paused: connects now instead of waiting, or makes sure that the
   * connection is alive.
   *
   * @example
   * retryButton.onclick = () => k.resume();
   */
  resume(): void {
    this._resume(false);
  }

  /**
   * Ends every subscription and publish. Resolves when all vectors are kept in their storage.
   *
   * @example
   * await k.close();
   */
  async close(): Promise<void> {
    if (!this._over()) {
      this._state = 'closed';
      this._error = new TidewireError('closed', 'the client was closed');
      this._publisher._close('closed', 'the client was closed');
      await this._end((s) => s.close());
    }
  }

  private _resume(anew: boolean): void {
    if (this._over()) return;
    if (this._state === 'paused') this._state = 'connecting';
    for (const l of this._links) l._wake(anew);
  }

  private _over(): boolean {
    return this._state === 'closed' || this._state === 'denied';
  }

  private _check(): void {
    if (this._error) throw this._error;
  }

  private async _end(each: (s: Subscription) => Promise<void> | void): Promise<void> {
    clearTimeout(this._hiding);
    this._unwatch();
    const subs = this._links.flatMap((l) => [...l._subs.values()]);
    const ended = Promise.all(subs.map(each));
    for (const l of this._links) l._stop(new Error('closed'));
    await ended;
  }

  private async _flush(): Promise<void> {
    await Promise.all(this._links.flatMap((l) => [...l._subs.values()].map((s) => s._flush())));
  }

  private _newLink(): Link {
    const first = !this._links.length;
    const link: Link = new Link(this._settings, () => ++this._lastID, {
      _ready: (node, session, moved) => {
        if (!first) return;
        this._state = 'live';
        this._emit('live', { node, session });
        if (moved) this._emit('moved', { from: moved, to: node });
        this._publisher._resend();
      },
      _lost: (error, retryMs) => {
        if (!first || retryMs === undefined || this._over()) return;
        this._state = 'connecting';
        this._emit('connecting', { error, retryMs });
      },
      _dropped: (c, blame) => {
        if (first) this._publisher._dropped(c, blame);
      },
      _denied: (why, final) => {
        if (this._over()) return;
        if (final) {
          this._state = 'denied';
          this._error = why;
          this._publisher._close(why.code, why.message);
          void this._end((s) => s._finish('denied', why));
        }
        this._emit('denied', why);
      },
    });
    if (this._state === 'paused') link._stop(new Error('paused'));
    this._links.push(link);
    return link;
  }

  /** Gives up a connection that serves nothing any more; the first stays. */
  private _unlink(link: Link): void {
    const i = this._links.indexOf(link);
    if (i <= 0 || link._subs.size) return;
    this._links.splice(i, 1);
    link._stop(new Error('not needed any more'));
  }

  /** Gives up a connection whose token has expired under it; false: there is no other token. */
  private _fresh(link: Link, why: TidewireError): boolean {
    if (typeof this._settings.token !== 'function') return false;
    link._conn?._end(why, 4001);
    return true;
  }

  private _hidden(): void {
    void this._flush();
    clearTimeout(this._hiding);
    if (this._settings.hiddenMs === Infinity) return;
    this._hiding = setTimeout(() => {
      if (this._publisher._waiting) this._hidden();
      else this.pause();
    }, Math.min(this._settings.hiddenMs, 2 ** 31 - 1));
  }
}
