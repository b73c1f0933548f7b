// Asks an address again and again: sooner where the answers are quick, later where they are slow (a large
// cluster's status is), with growing pauses where none comes, not at all while nobody sees the page.

const TIMEOUT = 8000, SLOWEST = 10000, LONGEST = 30000;

export class Poll {
  // on.answer(json) and on.silence({since, why, next, status}), one of them for each question.
  constructor(address, every, on) {
    this.address = address;
    this.every = every;
    this.on = on;
    this.failures = 0;
    this.since = null; // when it last answered, before it fell silent
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.timer !== undefined) this.now();
    });
  }

  // now asks at once; what it was asked for may have changed, so an answer that is under way will not do.
  now() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.asking) this.again = true;
    else this.ask();
  }

  async ask() {
    this.asking = true;
    const begun = performance.now();
    let json, silence, wait;
    try {
      const answer = await fetch(this.address(), { signal: AbortSignal.timeout(TIMEOUT), cache: 'no-store' });
      if (!answer.ok) throw Object.assign(new Error(`${answer.status}: ${(await answer.text()).slice(0, 300)}`), { status: answer.status });
      json = await answer.json();
      this.failures = 0;
      this.since = new Date();
      wait = Math.min(Math.max(this.every, 3 * (performance.now() - begun)), SLOWEST);
    } catch (err) {
      const longest = Math.min(LONGEST, this.every * 2 ** Math.min(++this.failures, 8));
      wait = longest / 2 + (Math.random() * longest) / 2;
      silence = { since: this.since, status: err.status, why: err.name === 'TimeoutError' ? `no answer within ${TIMEOUT / 1000} s` : err.message, next: wait };
    }
    this.asking = false;
    if (this.again) {
      this.again = false;
      this.ask();
      return;
    }
    this.timer = setTimeout(() => { if (!document.hidden) this.now(); }, wait);
    if (silence) this.on.silence?.(silence);
    else this.on.answer(json);
  }
}
