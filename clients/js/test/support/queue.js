// A queue whose reader waits, for so long at most.
export const PATIENCE_MS = 20_000;

export class Queue {
  items = [];
  waiting = null;

  push(item) {
    this.items.push(item);
    this.waiting?.();
  }

  async next(what) {
    if (!this.items.length) {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`never: ${what}`)), PATIENCE_MS);
        this.waiting = () => {
          clearTimeout(timer);
          this.waiting = null;
          resolve();
        };
      });
    }
    return this.items.shift();
  }
}
