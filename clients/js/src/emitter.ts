/** Listeners by event. What a listener throws does not stop the others: it is thrown on its own. */
export class Emitter<E> {
  /** @internal */
  _listeners = new Map<keyof E, Set<(value: never) => void>>();

  /**
   * Calls `listener` for every `event` from now on; returns a function that ends that.
   *
   * @example
   * const off = s.on('gap', (gap) => reload(gap.reason));
   * off();
   */
  on<K extends keyof E>(event: K, listener: (value: E[K]) => void): () => void {
    let set = this._listeners.get(event);
    if (!set) this._listeners.set(event, (set = new Set()));
    set.add(listener);
    return () => this.off(event, listener);
  }

  /**
   * Ends what {@link Emitter.on} began.
   *
   * @example
   * s.off('message', show);
   */
  off<K extends keyof E>(event: K, listener: (value: E[K]) => void): void {
    this._listeners.get(event)?.delete(listener);
  }

  /** @internal */
  _emit<K extends keyof E>(event: K, value: E[K]): void {
    for (const listener of [...(this._listeners.get(event) ?? [])]) {
      try {
        (listener as (value: E[K]) => void)(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
