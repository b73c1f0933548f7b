// The node of the console is stopped: the console says that it does not answer, and shows what it has as old. It
// finds back by itself.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context, new URL('/console/', it.args.admin).href);
  const demo = await it.page(context, it.args.page);
  const post = (what, node) => demo.evaluate(([w, n]) => fetch(`/demo/${w}?node=${n}`, { method: 'POST' }).then((r) => r.status), [what, node]);
  await it.until('three nodes', page, () => document.querySelectorAll('#node-list .card').length === 3 && document.getElementById('self').textContent === 'n1');
  // Another node first: the console tells which, and why.
  it.check(await post('stop', 'n2') === 202, 'n2 could not be stopped');
  await it.until('n2 to be unreachable', page, () => [...document.querySelectorAll('#node-list .card')].some((c) => c.textContent.startsWith('n2unreachable')) &&
    /^2 of 3 nodes ready/.test(document.getElementById('health').textContent));
  await it.until('its groups to have moved', page, () => {
    const told = document.getElementById('events').textContent; // by way of nobody, on a busy machine
    return /group \d: n2 → n[13]/.test(told) || (/group \d: n2 → none/.test(told) && /group \d: none → n[13]/.test(told));
  });
  await it.shot(page, 'console-node-unreachable');
  it.check(await post('start', 'n2') === 202, 'n2 could not be started');
  await it.until('n2 to be back', page, () => document.getElementById('health').textContent.startsWith('3 of 3 nodes ready'));

  it.check(await post('stop', 'n1') === 202, 'n1 could not be stopped');
  await it.until('the silence to be told', page, () => !document.getElementById('silent').hidden && /^n1 does not answer since .*Next question in \d+ s\.$/.test(document.getElementById('silent-why').textContent));
  it.check(await page.evaluate(() => document.body.classList.contains('stale') && document.querySelectorAll('#node-list .card').length === 3), 'what was known is not shown as old');
  await it.shot(page, 'console-silent');
  await asksNow(it, page);
  it.check(await post('start', 'n1') === 202, 'n1 could not be started');
  await page.evaluate(() => document.getElementById('again').click()); // seen or not: the console may be back already
  await it.until('the console to be back', page, () => document.getElementById('silent').hidden && document.getElementById('health').textContent.startsWith('3 of 3 nodes ready'));
}

// The button asks before the console would have asked by itself. The node is away meanwhile: one that is back may have
// been found by then, and the button be gone. A machine that stands still just then gets another try.
async function asksNow(it, page) {
  let asked = 0;
  const hear = (request) => { if (new URL(request.url()).pathname === '/status') asked = Date.now(); };
  page.on('request', hear);
  for (let left = 5; ; left--) {
    const pause = await page.waitForFunction(() => {
      const seconds = Number(/Next question in (\d+) s/.exec(document.getElementById('silent-why').textContent)?.[1]);
      return seconds >= 5 && seconds;
    }, undefined, { timeout: 90000, polling: 50 }).then((handle) => handle.jsonValue());
    const before = asked, clicked = Date.now();
    await page.getByRole('button', { name: 'Ask now' }).click();
    while (asked === before && Date.now() - clicked < 90000) await page.waitForTimeout(20);
    if (before > 0 && asked - before < (pause - 2) * 1000) break;
    if (left === 1) {
      it.problem('"Ask now" does not ask');
      break;
    }
  }
  page.off('request', hear);
}
