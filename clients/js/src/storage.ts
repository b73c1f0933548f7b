import { TidewireError } from './errors.js';
import { places, vectorOf, type Places } from './position.js';

/**
 * Where vectors are kept: `sessionStorage`, `localStorage`, React Native's `AsyncStorage`, or anything with
 * these two methods, at once or by a promise. One key must belong to one subscription at a time: for a page
 * that may be open in several tabs, take `sessionStorage`.
 *
 * @example
 * k.subscribe('/orders/*', { storage: sessionStorage });
 */
export interface VectorStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
}

const SAVE_MS = 250;

/** Keeps one subscription's vector in a storage: soon after it changed, and at once when asked to. @internal */
export class Keeper {
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _writing: Promise<void> | undefined;
  private _due = false;

  constructor(private _storage: VectorStorage, private _key: string, private _current: () => Places | undefined, private _failed: (e: TidewireError) => void) {}

  /** What was kept; undefined if there is nothing that makes sense. */
  async _load(): Promise<Places | undefined> {
    try {
      const text = await this._storage.getItem(this._key);
      return text ? places(JSON.parse(text)) : undefined;
    } catch (error) {
      this._fail('read', error);
      return undefined;
    }
  }

  /** The vector has changed. */
  _touch(): void {
    this._due = true;
    this._timer ??= setTimeout(() => void this._flush(), SAVE_MS);
  }

  /** Writes now what is due; resolves when it is written. */
  async _flush(): Promise<void> {
    clearTimeout(this._timer);
    this._timer = undefined;
    const current = this._current();
    if (!this._due || !current) return this._writing;
    this._due = false;
    const text = JSON.stringify(vectorOf(current));
    try {
      const before = this._writing;
      if (before) await before; // an older vector must not overtake this one
      const written = this._storage.setItem(this._key, text);
      if (!(written instanceof Promise)) return;
      this._writing = written.then(() => {}, (error) => this._fail('write', error)).finally(() => (this._writing = undefined));
      await this._writing;
    } catch (error) {
      this._fail('write', error);
    }
  }

  private _fail(what: string, cause: unknown): void {
    this._failed(new TidewireError('storage', `cannot ${what} the vector under ${this._key}: ${cause}`, { cause }));
  }
}
