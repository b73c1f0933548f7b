/**
 * What went wrong, to branch on. The cluster's own codes are those of the protocol (`bad_request`,
 * `bad_subject`, `unauthenticated`, `forbidden`, `already_subscribed`, `not_subscribed`, `too_large`,
 * `rate_limited`, `unavailable`, `limit`, and what a newer server may know). The client adds:
 *
 * | code | means |
 * | --- | --- |
 * | `topic_gone` | the subscription ended because its topic was deleted |
 * | `queue_full` | a publish was not taken: too many, or too many bytes, wait already |
 * | `uncertain` | a publish was given up after it may have reached the cluster: publish again with its `mid` |
 * | `aborted` | given up before anything was sent |
 * | `closed` | the client or the subscription was closed by the application |
 * | `connections` | too many subscriptions that overlap one another |
 * | `storage` | a vector could not be read from or written to the storage |
 *
 * @example
 * if (error instanceof TidewireError && error.code === 'queue_full') await later();
 */
export type ErrorCode =
  | 'bad_request' | 'bad_subject' | 'unauthenticated' | 'forbidden' | 'already_subscribed' | 'not_subscribed'
  | 'too_large' | 'rate_limited' | 'unavailable' | 'limit'
  | 'topic_gone' | 'queue_full' | 'uncertain' | 'aborted' | 'closed' | 'connections' | 'storage'
  | (string & {});

/**
 * Every error of this package. The cluster's refusals carry its message, which says what would be right.
 *
 * @example
 * try {
 *   await k.publish('/orders/42', order);
 * } catch (error) {
 *   if (error instanceof TidewireError) console.warn(error.code, error.mid, error.message);
 * }
 */
export class TidewireError extends Error {
  /** What went wrong, to branch on. */
  readonly code: ErrorCode;
  /** Of a publish: its message id. Publishing again with it writes nothing twice. */
  readonly mid?: string;

  constructor(code: ErrorCode, message: string, extra: { mid?: string; cause?: unknown } = {}) {
    super(message, { cause: extra.cause });
    this.name = 'TidewireError';
    this.code = code;
    if (extra.mid !== undefined) this.mid = extra.mid;
  }
}
