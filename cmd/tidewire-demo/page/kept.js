// A storage for one subscription of the client. With the subscription's vector it keeps what the page has of it,
// both as of the same record, so that a reload shows what was there and goes on after it.
const KEEP_MS = 10 * 60000; // older places are not worth resuming

export class Kept {
  // state() returns what to keep, as JSON can hold it.
  constructor(key, state) {
    this.key = `tidewire-demo ${key}`;
    this.state = state;
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.key));
      if (kept && Date.now() - kept.at < KEEP_MS) [this.vector, this.before] = [kept.vector, kept.state];
    } catch {
      // Forbidden, or not ours: the page begins anew.
    }
  }

  getItem() {
    return this.vector;
  }

  setItem(_, vector) {
    sessionStorage.setItem(this.key, JSON.stringify({ at: Date.now(), vector, state: this.state() }));
  }
}
