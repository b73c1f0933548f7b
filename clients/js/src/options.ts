import { TidewireError } from './errors.js';

/**
 * The part of the WebSocket interface that is used. The browser's and React Native's have it, Node's from
 * version 22 on, and the one of the package `ws`.
 *
 * @example
 * import WebSocket from 'ws'; // Node 20
 * const k = new Tidewire({ nodes, WebSocket });
 */
export interface WebSocketLike {
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(frame: string): void;
  close(code?: number): void;
  /** Of `ws` alone. */
  terminate?(): void;
}

/**
 * How to reach a cluster. Only `nodes` is required.
 *
 * @example
 * const options: Options = {
 *   nodes: ['wss://a.example.com', 'wss://b.example.com'],
 *   token: async () => (await fetch('/session/token')).text(),
 * };
 */
export interface Options {
  /** The cluster's client addresses: `host:port`, or URLs (`wss://…`, `https://…`; `/ws` unless they have a path). */
  nodes: string[];
  /**
   * Who you are: a token, or a function that is asked for one at each connection and in time before the last
   * one expires. A token is never sent in a URL.
   */
  token?: string | (() => string | Promise<string>);
  /** The WebSocket to use where there is none in the environment (Node before 22): `ws`'s. */
  WebSocket?: new (url: string, protocol: string) => WebSocketLike;
  /** Begin with the first node instead of one at random. Default: at random, so that clients spread. */
  inOrder?: boolean;
  /**
   * How long a page may be hidden until its connection is closed; it resumes as soon as it is visible again.
   * Publishes under way are waited for. `Infinity`: never. Default: 60,000.
   */
  hiddenMs?: number;
  /** How many publishes may wait or be under way; one more fails with `queue_full`. Default: 1,000. */
  maxPublishes?: number;
  /** How many bytes these may have. Default: 8 MiB. */
  maxPublishBytes?: number;
  /**
   * How many connections may be used. One serves all subscriptions; only those that overlap (such as `/a/*`
   * and `/a/b`, or one subject twice) need connections of their own. Default: 4.
   */
  maxConnections?: number;
  /** From the start of a connection to the server's welcome. Default: 10,000. */
  connectTimeoutMs?: number;
  /** Of the full-jitter exponential backoff between connections. Default: 250. */
  backoffBaseMs?: number;
  /** The longest of these waits. Default: 20,000. */
  backoffCapMs?: number;
}

/** The options with every default filled in. @internal */
export type Settings = Required<Omit<Options, 'token'>> & Pick<Options, 'token'>;

/** Checks the options; throws a TypeError that says what would be right. @internal */
export function settings(o: Options): Settings {
  if (!Array.isArray(o?.nodes) || !o.nodes.length) throw new TypeError('nodes: name at least one');
  const WebSocket = o.WebSocket ?? (globalThis as { WebSocket?: Settings['WebSocket'] }).WebSocket;
  if (!WebSocket) throw new TypeError("no WebSocket here: pass that of the package 'ws' in the options");
  return {
    inOrder: false, hiddenMs: 60_000, maxPublishes: 1000, maxPublishBytes: 8 << 20, maxConnections: 4, connectTimeoutMs: 10_000,
    backoffBaseMs: 250, backoffCapMs: 20_000,
    ...Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)),
    nodes: o.nodes.map(nodeURL), WebSocket,
  };
}

/** The URL to dial. @internal */
export function nodeURL(node: string): string {
  const m = /^(?:(ws|http)(s?):\/\/)?([^\s/?#@]+)(\/[^\s?#]*)?$/.exec(node);
  if (!m || (!m[1] && !/:\d+$/.test(m[3] as string))) throw new TypeError(`node ${JSON.stringify(node)} is neither host:port nor a ws:// or wss:// URL`);
  const secure = m[1] ? m[2] : (globalThis as { location?: { protocol?: string } }).location?.protocol === 'https:' ? 's' : '';
  return `ws${secure}://${m[3]}${m[4] && m[4] !== '/' ? m[4] : '/ws'}`;
}

/** Asks for the token; undefined: there is none. @internal */
export async function askToken(token: Options['token']): Promise<string | undefined> {
  const t = typeof token === 'function' ? await token() : token;
  if (t !== undefined && typeof t !== 'string') throw new TidewireError('unauthenticated', 'the token is no string');
  return t || undefined;
}
