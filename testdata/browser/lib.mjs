// What the scenarios share: a browser, waiting, screenshots, and a judge of what went over the wire. A scenario
// is a module that exports run(it); what it needs to know comes in it.args, from the Go test that starts it.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];
export const PATIENCE = 90000; // of every wait: machines are shared, and a wait that ends well ends early
const screenshots = new URL('./screenshots/', import.meta.url).pathname;

export const DESKTOP = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844 };

export class It {
  constructor(args) {
    this.args = args;
    this.problems = [];
    this.closers = [];
  }

  // browser starts one with a profile of its own and returns its only context.
  async browser() {
    const profile = mkdtempSync(join(tmpdir(), 'tidewire-browser-'));
    this.closers.push(() => rmSync(profile, { recursive: true, force: true, maxRetries: 5 }));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: this.args.browser, headless: true, args: ARGS, chromiumSandbox: false,
      viewport: DESKTOP, reducedMotion: 'reduce', timeout: PATIENCE,
    });
    this.closers.push(() => context.close());
    context.setDefaultTimeout(PATIENCE);
    context.setDefaultNavigationTimeout(PATIENCE);
    return context;
  }

  // page opens one whose errors are the scenario's.
  async page(context, address) {
    const page = await context.newPage();
    page.on('pageerror', (err) => this.problem(`an error in the page: ${err.stack ?? err}`));
    page.on('console', (m) => {
      if (m.type() === 'error' && !/net::ERR|WebSocket connection to|Failed to load resource/.test(m.text())) this.problem(`the page complains: ${m.text()}`);
    });
    page.on('dialog', (d) => { this.problem(`the page shows a dialog: ${d.message()}`); d.dismiss(); });
    if (address) await page.goto(address);
    return page;
  }

  problem(text) {
    this.problems.push(text);
    console.log(`PROBLEM ${text}`);
  }

  check(ok, text) { if (!ok) this.problem(text); }

  // until waits for a condition, in the page if it takes an argument of the page's, here otherwise.
  async until(what, page, cond, arg) {
    try {
      await page.waitForFunction(cond, arg, { timeout: PATIENCE, polling: 50 });
    } catch (err) {
      throw new Error(`waited in vain: ${what} (${String(err.message).split('\n')[0]})`);
    }
  }

  async shot(page, name) {
    mkdirSync(screenshots, { recursive: true });
    await page.evaluate(() => window.scrollTo(0, 0)); // what sticks to the top is there then
    await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true, animations: 'disabled', timeout: PATIENCE });
  }

  // shots takes the page on desktop and phone, light and dark, and checks that nothing sticks out.
  async shots(page, name) {
    for (const [device, size] of [['desktop', DESKTOP], ['phone', PHONE]]) {
      await page.setViewportSize(size);
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
        await this.shot(page, `${name}-${device}-${colorScheme}`);
      }
      await this.noOverflow(page, `${name} on a ${device}`);
    }
    await page.setViewportSize(DESKTOP);
  }

  async noOverflow(page, what) {
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    this.check(wide <= room, `${what}: ${wide} pixels wide in a window of ${room}`);
  }

  async close() {
    for (const c of this.closers.reverse()) await c();
  }
}

// A Stream judges the quotes that a page was sent, over all its connections: the values of each symbol count up
// by one, so what is left out or sent twice shows, whatever the page does with it. What had come to the browser but not
// yet to the page when that gave the connection up comes again, and only that: it lies behind the vector with which the
// page resumes.
export class Stream {
  constructor(page) {
    this.counts = new Map();
    this.records = 0;
    this.holes = [];
    this.repeats = [];
    this.again = 0;
    this.sent = []; // ops of the page
    this.open = 0; // connections
    this.opened = 0;
    page.on('websocket', (ws) => {
      this.open++;
      this.opened++;
      ws.on('close', () => this.open--);
      const on = { resumed: new Map(), reached: new Map() }; // positions by partition, of this connection
      ws.on('framesent', (f) => {
        for (const op of f.payload.split('\n').map((text) => JSON.parse(text))) {
          this.sent.push(op);
          if (op.op === 'sub' && op.subject === '/prices/*') for (const pos of op.resume ?? []) on.resumed.set(pos[0], pos);
        }
      });
      ws.on('framereceived', (f) => this.take(JSON.parse(f.payload), on));
    });
  }

  take(m, on) {
    if (m.op !== 'msg' || !m.subject.startsWith('/prices/')) return;
    this.records++;
    const { symbol, n } = m.data, last = this.counts.get(symbol);
    const again = on && after(m.pos, on.resumed.get(m.pos[0])) && after(m.pos, on.reached.get(m.pos[0]) ?? [0, 0, 0]);
    on?.reached.set(m.pos[0], m.pos);
    if (last === undefined || n === last + 1) this.counts.set(symbol, n);
    else if (n <= last && again) this.again++; // to the page it is new
    else if (n <= last) this.repeats.push(`${symbol} ${n} after ${last}`);
    else {
      this.holes.push(`${symbol} ${n} after ${last}`);
      this.counts.set(symbol, n);
    }
  }

  // more waits for n further records.
  async more(n) {
    const want = this.records + n;
    const end = Date.now() + PATIENCE;
    while (this.records < want) {
      if (Date.now() > end) throw new Error(`waited in vain for ${n} further records: ${want - this.records} are missing`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  judge(it, when) {
    it.check(this.holes.length === 0, `${when}: records are missing: ${this.holes.slice(0, 5)}`);
    it.check(this.repeats.length === 0, `${when}: records came twice: ${this.repeats.slice(0, 5)}`);
    it.check(this.records > 100, `${when}: only ${this.records} records were judged`);
  }
}

// after says whether a position lies behind another of the same partition; behind none it does not.
const after = ([, epoch, seqno], than) => than !== undefined && (epoch > than[1] || (epoch === than[1] && seqno > than[2]));

// number reads a counter of the page.
export const number = (page, id) => page.evaluate((i) => Number(document.getElementById(i).textContent), id);
