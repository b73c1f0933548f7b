import { TidewireError } from './errors.js';
import { askToken, nodeURL, type Settings, type WebSocketLike } from './options.js';
import { utf8Length } from './subject.js';

/** Any op of the server; which fields there are depends on `op`. @internal */
export interface Answer {
  op: string;
  id?: number;
  subject?: string;
  [field: string]: any;
}

/** Any op of the client. @internal */
export interface Op {
  op: string;
  id: number;
  [field: string]: unknown;
}

/** What a connection tells its owner. @internal */
export interface Owner {
  _settings: Settings;
  _nextID(): number;
  /** The server has welcomed us and accepted the token, if there is one. */
  _ready(c: Connection): void;
  /** An op that is no answer, and the length of its frame. Throws for one that breaks the protocol. */
  _handle(a: Answer, size: number): void;
  /** The connection has ended, or never came about. */
  _lost(c: Connection, why: TidewireError | Error, code: number): void;
}

const MAX_RETRY_MS = 600_000; // a peer must not put us to sleep for a year
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** `retry_ms` of an op, held to what is sensible. @internal */
export const retryMs = (a: Answer): number => (a.retry_ms > 0 ? Math.min(Number(a.retry_ms), MAX_RETRY_MS) : 0);

/** The error that an `error` op tells. @internal */
export const errorOf = (a: Answer, mid?: string): TidewireError =>
  a.op === 'error' ? new TidewireError(a.code, String(a.message), { mid }) : new TidewireError('bad_request', `the server answered with ${a.op}`, { mid });

/** One WebSocket connection, from dialling to its end. @internal */
export class Connection {
  _node = '';
  _session = '';
  /** The server did something for us: backoff starts anew after this connection. */
  _useful = false;
  /** The server asked not to return sooner (bye). */
  _floorMs = 0;
  /** Where the server said to go instead (bye). */
  _elsewhere: string[] = [];
  _isReady = false;
  _began = Date.now();

  private _owner: Owner;
  private _url: string;
  private _ws!: WebSocketLike;
  private _over = false;
  private _maxFrame = Infinity;
  private _calls = new Map<number, { _then: (a: Answer) => void; _bytes: number }>();
  private _out: string[] = [];
  private _heard = Date.now();
  private _patience: number;
  private _watchdog: ReturnType<typeof setTimeout> | undefined;
  private _renewal: ReturnType<typeof setTimeout> | undefined;
  private _pinged = false; // and nothing was heard since

  constructor(owner: Owner, url: string) {
    this._owner = owner;
    this._url = url;
    this._patience = owner._settings.connectTimeoutMs;
    this._watch();
    try {
      this._ws = new owner._settings.WebSocket(url, 'tidewire.v1.json');
    } catch (error) {
      queueMicrotask(() => this._end(error as Error, 1006)); // a page with TLS may not connect without
      return;
    }
    this._ws.onmessage = (event) => this._receive(event.data);
    this._ws.onerror = (event) => this._end(new Error(event?.message || 'the connection failed'), 1006);
    this._ws.onclose = ({ code, reason }) => {
      const said = `closed with code ${code} ${reason}`;
      this._end(code === 4001 ? new TidewireError('unauthenticated', said) : new Error(said), code);
    };
  }

  /** Queues an op; `then` gets its answer unless the connection ends before. Ops of one moment share a frame. */
  _send(op: Op, then: (a: Answer) => void): void {
    if (this._over) return;
    const text = JSON.stringify(op);
    const bytes = utf8Length(text);
    if (bytes > this._maxFrame) {
      then({ op: 'error', code: 'too_large', message: `${bytes} bytes: the server accepts frames of up to ${this._maxFrame}` });
      return;
    }
    this._calls.set(op.id, { _then: then, _bytes: bytes });
    if (this._out.push(text) === 1) queueMicrotask(() => this._flush());
  }

  /** No answer is awaited any more. */
  _forget(id: number): void {
    this._calls.delete(id);
  }

  /** The largest op without an answer; what a server that closes with 1009 cannot have taken. */
  _largest(): number | undefined {
    let id: number | undefined;
    let most = 0;
    for (const [k, call] of this._calls) if (call._bytes > most) [id, most] = [k, call._bytes];
    return id;
  }

  /** Asks the server for a sign of life; without one soon the connection is given up. */
  _probe(): void {
    if (this._pinged || !this._isReady) return;
    this._pinged = true;
    this._send({ op: 'ping', id: this._owner._nextID() }, () => {});
    clearTimeout(this._watchdog);
    this._watchdog = setTimeout(() => {
      if (this._pinged) this._end(new Error('no answer to ping'), 1006);
      else this._watch();
    }, this._owner._settings.connectTimeoutMs / 2);
  }

  /** Ends the connection; its owner is told once. */
  _end(why: TidewireError | Error, code: number): void {
    if (this._over) return;
    this._over = true;
    clearTimeout(this._watchdog);
    clearTimeout(this._renewal);
    try {
      this._ws.onmessage = this._ws.onclose = null;
      this._ws.onerror = () => {}; // ws throws without a listener when it is closed before it is open
      if (code === 1000) {
        this._flush();
        this._ws.close(1000);
      } else if (this._ws.terminate) this._ws.terminate(); // ws would wait for a peer that may be dead
      else this._ws.close();
    } catch {
      // There was nothing to close.
    }
    this._isReady = false;
    this._owner._lost(this, why, code);
  }

  private _flush(): void {
    const ops = this._out;
    this._out = [];
    let frame = '';
    let size = 0;
    const send = () => frame && this._ws.send(frame);
    try {
      for (const op of ops) {
        const bytes = utf8Length(op);
        if (frame && size + bytes + 1 > this._maxFrame) {
          send();
          frame = '';
          size = 0;
        }
        frame += (frame && '\n') + op;
        size += bytes + 1;
      }
      send();
    } catch (error) {
      this._end(new Error('cannot send', { cause: error }), 1006);
    }
  }

  /**
   * Ends the connection once nothing was heard for too long. One timer, set again only when it fires. After a pause
   * of the whole process it fires before what has arrived meanwhile is read: so that has a turn first.
   */
  private _watch(last = false): void {
    const left = this._heard + this._patience - Date.now();
    if (left <= 0 && last) this._end(new Error('nothing heard in time'), 1006);
    else this._watchdog = setTimeout(() => this._watch(left <= 0), Math.max(0, Math.min(left, LONGEST_TIMER_MS)));
  }

  private _receive(frame: unknown): void {
    if (this._over) return;
    this._heard = Date.now();
    this._pinged = false;
    try {
      if (typeof frame !== 'string') throw new TypeError('a binary frame');
      const a = JSON.parse(frame) as Answer;
      if (typeof a?.op !== 'string') throw new TypeError('not an op');
      if (this._node === '' && !this._session) this._welcome(a);
      else this._dispatch(a, frame.length);
    } catch (error) {
      this._end(error as Error, 1006);
    }
  }

  private _dispatch(a: Answer, size: number): void {
    const call = a.id === undefined ? undefined : this._calls.get(a.id);
    if (call) {
      this._calls.delete(a.id as number);
      this._useful ||= a.op !== 'error' && a.op !== 'authed';
      call._then(a);
    } else if (a.op === 'bye') {
      this._floorMs = retryMs(a);
      this._elsewhere = this._addresses(a.nodes);
    } else if (a.op === 'error' && a.code === 'unauthenticated') {
      this._end(errorOf(a), 4001);
    } else if (a.op === 'expiring') {
      this._renew(0); // in a second, if no fresh token is there by then
    } else {
      this._useful ||= a.op === 'msg' || a.op === 'hb';
      this._owner._handle(a, size);
    }
  }

  /** Addresses from a bye. One without TLS is not followed from a connection that has it: it would tell the token. */
  private _addresses(nodes: unknown): string[] {
    const out: string[] = [];
    for (const n of Array.isArray(nodes) ? nodes.slice(0, 16) : []) {
      try {
        const url = nodeURL(n);
        if (url.startsWith('wss') || !this._url.startsWith('wss')) out.push(url);
      } catch {
        // A newer server may name its nodes otherwise.
      }
    }
    // Clients that are sent away together must not all go to the first.
    return this._owner._settings.inOrder ? out : out.sort(() => Math.random() - 0.5);
  }

  private _welcome(w: Answer): void {
    if (w.op !== 'welcome' || w.version !== 1) throw new TypeError(`the server began with ${w.op} ${w.version}, not welcome 1`);
    this._node = String(w.node ?? '');
    this._session = String(w.session ?? '') || 'unnamed';
    if (w.max_frame_bytes > 0) this._maxFrame = w.max_frame_bytes;
    const patience = 2 * Math.min(w.heartbeat_ms > 0 ? w.heartbeat_ms : 25_000, MAX_RETRY_MS);
    const begin = (): void => {
      this._patience = patience;
      clearTimeout(this._watchdog);
      this._watch();
      this._isReady = true;
      this._owner._ready(this);
    };
    void this._authenticate(begin, w.auth === 'required');
  }

  /** Sends a token if there is one; `then` runs when the connection may be used. */
  private async _authenticate(then: () => void, required: boolean): Promise<void> {
    let token: string | undefined;
    try {
      token = await askToken(this._owner._settings.token);
    } catch (error) {
      if (this._isReady) this._renew(Date.now() + 5000 / 0.8); // the old one still serves
      else this._end(new Error('the token function failed', { cause: error }), 1006);
      return;
    }
    if (this._over) return;
    if (token === undefined) {
      if (required) this._end(new TidewireError('unauthenticated', 'the cluster requires a token'), 4001);
      else then();
      return;
    }
    this._send({ op: 'auth', id: this._owner._nextID(), token }, (a) => {
      if (a.op !== 'authed') {
        // It cannot be verified now: the last one still serves.
        if (this._isReady && retryMs(a)) this._renew(Date.now() + retryMs(a) / 0.8);
        else this._end(errorOf(a), a.code === 'unauthenticated' ? 4001 : 1006);
        return;
      }
      if (a.expires) this._renew(a.expires);
      then();
    });
  }

  /** Asks for a fresh token when four fifths of this one's life are over. */
  private _renew(expires: number): void {
    if (typeof this._owner._settings.token !== 'function') return;
    clearTimeout(this._renewal);
    const wait = Math.max(1000, (expires - Date.now()) * 0.8);
    this._renewal = setTimeout(() => void this._authenticate(() => {}, true), Math.min(wait, LONGEST_TIMER_MS));
  }
}
