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
  it.check(await post('start', 'n1') === 202, 'n1 could not be started');
  await page.getByRole('button', { name: 'Ask now' }).click();
  await it.until('the console to be back', page, () => document.getElementById('silent').hidden && document.getElementById('health').textContent.startsWith('3 of 3 nodes ready'));
}
