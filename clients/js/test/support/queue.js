// What must happen is waited for so long at most. A machine that stands still does not count: of each step only its
// planned length does.
export const PATIENCE_MS = 20_000;
const STEP_MS = 100;

// outOfPatience calls f then; the function that it returns calls that off.
function outOfPatience(f) {
  let left = PATIENCE_MS / STEP_MS;
  let timer = setTimeout(function step() {
    if (--left > 0) timer = setTimeout(step, STEP_MS);
    else f();
  }, STEP_MS);
  return () => clearTimeout(timer);
}

// eventually waits for a condition that something else brings about.
export async function eventually(what, cond) {
  let never = false;
  const calm = outOfPatience(() => (never = true));
  try {
    while (!cond()) {
      if (never) throw new Error(`never: ${what}`);
      await new Promise((r) => setTimeout(r, 1));
    }
  } finally {
    calm();
  }
}

// A queue whose reader waits.
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
        const calm = outOfPatience(() => reject(new Error(`never: ${what}`)));
        this.waiting = () => {
          calm();
          this.waiting = null;
          resolve();
        };
      });
    }
    return this.items.shift();
  }
}
