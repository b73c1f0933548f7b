import { Connection, type Answer, type Owner } from './connection.js';
import type { TidewireError } from './errors.js';
import type { Settings } from './options.js';
import { position } from './position.js';
import { candidates } from './subject.js';
import type { Subscription } from './subscription.js';

/** What a link tells the client. @internal */
export interface LinkEvents {
  /** The connection is ready for ops. `moved` is the node before, if it was another. */
  _ready(node: string, session: string, moved: string | undefined): void;
  /** It is not, and will be tried again after so long; undefined: not until it is woken. */
  _lost(why: Error, retryMs: number | undefined): void;
  /** The token was refused. `final`: no other would be had, so the client has ended. */
  _denied(why: TidewireError, final: boolean): void;
  /** Ops sent on `c` will not be answered any more; `blame` is the one that a close with 1009 or 1007 was about. */
  _dropped(c: Connection, blame: number | undefined): void;
}

const TOKEN = 4001; // close codes of the protocol
const TOO_MANY = 4009;
const isTooLarge = (code: number): boolean => code === 1009 || code === 1007;

/**
 * Keeps one connection to the cluster, going from node to node, and serves the subscriptions on it. They
 * do not overlap, so every record belongs to one of them.
 *
 * @internal
 */
export class Link implements Owner {
  readonly _settings: Settings;
  readonly _subs = new Map<string, Subscription>();
  /** Ready for ops; undefined while there is none. */
  _conn: Connection | undefined;
  /** The name of the node before this one. */
  _before = '';

  private _events: LinkEvents;
  private _ids: () => number;
  private _trying: Connection | undefined;
  private _next: number;
  private _elsewhere: string[] = [];
  private _attempt = 0;
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _notBefore = 0;
  private _stopped = false;

  constructor(settings: Settings, ids: () => number, events: LinkEvents) {
    this._settings = settings;
    this._events = events;
    this._ids = ids;
    this._next = settings.inOrder ? 0 : Math.floor(Math.random() * settings.nodes.length);
    // Not at once: the application that makes a client attaches its listeners after that.
    this._timer = setTimeout(() => this._connect());
  }

  _nextID(): number {
    return this._ids();
  }

  /** Ends the connection and stays away until {@link Link._wake}. */
  _stop(why: Error): void {
    this._stopped = true;
    clearTimeout(this._timer);
    (this._trying ?? this._conn)?._end(why, 1000);
  }

  /**
   * Connects now, or makes sure that the connection is alive: the device woke up. `anew`: the network has come
   * back. A connection of before is dead then, as a rule without a word, and is not worth asking.
   */
  _wake(anew: boolean): void {
    this._stopped = false;
    const c = this._trying ?? this._conn;
    if (c && (anew || (this._trying && Date.now() - c._began > 1000))) c._end(new Error('begun before the network changed'), 1006);
    if (this._conn) this._conn._probe();
    else if (!this._trying) {
      this._attempt = 0;
      this._due();
    }
  }

  _ready(c: Connection): void {
    this._trying = undefined;
    this._conn = c;
    this._events._ready(c._node, c._session, this._before && this._before !== c._node ? this._before : undefined);
    for (const s of this._subs.values()) s._start();
  }

  _handle(a: Answer, size: number): void {
    if (a.op === 'msg') {
      const pos = position(a.pos);
      if (a.prev) position([pos[0], ...a.prev]);
      for (const name of candidates(String(a.subject))) {
        const s = this._subs.get(name);
        if (s) {
          s._record(a, pos, size);
          return;
        }
      }
      return;
    }
    const s = this._subs.get(a.subject as string);
    if (a.op === 'live') s?._caughtUp();
    else if (a.op === 'gap') s?._gap(a);
    else if (a.op === 'unsubbed' && a.reason !== 'asked') s?._unsubbed(a);
    // hb, pong and what a newer server may say need no more than having been heard.
  }

  _lost(c: Connection, why: Error & { code?: string }, code: number): void {
    this._trying = this._conn = undefined;
    if (c._node) this._before = c._node;
    if (c._elsewhere.length) this._elsewhere = c._elsewhere;
    this._events._dropped(c, isTooLarge(code) ? c._largest() : undefined);
    for (const s of this._subs.values()) s._disconnected();
    if (code === TOKEN || why.code === 'unauthenticated') {
      const final = typeof this._settings.token !== 'function'; // a fixed token stays what it is
      this._stopped ||= final;
      this._events._denied(why as TidewireError, final);
    }
    if (this._stopped) {
      this._events._lost(why, undefined);
      return;
    }
    if (c._useful && code !== TOO_MANY && code !== TOKEN && !isTooLarge(code)) this._attempt = 0;
    const ceiling = Math.min(this._settings.backoffCapMs, this._settings.backoffBaseMs * 2 ** Math.min(this._attempt++, 30));
    this._notBefore = Date.now() + c._floorMs;
    this._events._lost(why, this._schedule(Math.random() * ceiling));
  }

  /** Connects after so long, and never sooner than the server asked for; returns how long it will be. */
  private _schedule(ms: number): number {
    const wait = Math.max(ms, this._notBefore - Date.now());
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._due(), wait);
    return wait;
  }

  /** Connects, unless the server asked not to yet. Timers may fire a millisecond early. */
  private _due(): void {
    clearTimeout(this._timer);
    if (Date.now() < this._notBefore) this._schedule(0);
    else this._connect();
  }

  private _connect(): void {
    if (this._conn || this._trying || this._stopped) return;
    const nodes = this._settings.nodes;
    const url = this._elsewhere.shift() ?? (nodes[this._next++ % nodes.length] as string);
    this._trying = new Connection(this, url);
  }
}
