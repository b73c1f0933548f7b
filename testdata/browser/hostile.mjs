// What others may put into keys, values, headers, names and addresses is text to the pages: it runs nowhere, makes
// no element, and leaves the pages as wide as the window. it.args.hostile are keys that the Go test subscribes to
// and publishes with, as values and headers too; what a node cannot be called is put into faked answers.
export async function run(it) {
  const { hostile } = it.args;
  const context = await it.browser();
  const innocent = async (page, what) => {
    const found = await page.evaluate(() => ({
      ran: 'pwned' in window,
      made: document.querySelectorAll('img, iframe, svg[onload], script:not([src]), a[href^="javascript:"], form[action], b > i, style').length,
    }));
    it.check(!found.ran, `${what}: a script ran`);
    it.check(found.made === 0, `${what}: ${found.made} elements were made of data`);
    await it.noOverflow(page, what);
  };

  const page = await it.page(context, new URL('/console/', it.args.admin).href);
  await page.setViewportSize({ width: 390, height: 844 });
  // Sessions with hostile subjects.
  await it.until('the sessions', page, () => document.querySelectorAll('#session-list details').length > 0);
  await page.evaluate(() => { for (const d of document.querySelectorAll('#session-list details')) d.open = true; });
  await it.until('the hostile subjects', page, () => document.getElementById('session-list').textContent.includes('<img src=x onerror='));
  // Records with hostile keys, values and headers, in the list.
  await page.locator('#sub-history').fill('-1');
  await page.locator('#sub-subject').fill('/chat/*');
  await page.locator('#sub-subject').press('Enter');
  for (const key of hostile) {
    await it.until(`the value ${JSON.stringify(key.slice(0, 60))} as it is`, page,
      (k) => [...document.querySelectorAll('#log .msg .value')].some((v) => v.textContent.includes(JSON.stringify(k).slice(0, 200))), key);
  }
  // Subscribing to a hostile subject puts it into a chip and its button.
  await page.locator('#sub-subject').fill(`/chat/${hostile[0]}`);
  await page.locator('#sub-subject').press('Enter');
  await it.until('two subscriptions', page, () => document.querySelectorAll('#subs li').length === 2);
  await innocent(page, 'the console');
  await it.shot(page, 'console-hostile-phone');

  // Answers as no node gives them.
  const nasty = hostile[0];
  const faked = await it.page(context);
  await faked.route('**/status?*', async (route) => {
    const s = await (await fetch(new URL('/status?cluster=true', it.args.admin))).json();
    s.nodes[0] = { ...s.nodes[0], node: nasty, version: nasty, client: nasty, ready: false, not_ready: [nasty] };
    s.unreachable = { [`${nasty}2`]: nasty };
    for (const g of s.nodes[1].groups) Object.assign(g, { leader: nasty, term: 1e6 });
    for (const p of s.nodes[1].partitions) Object.assign(p, { topic: nasty, coordinator: nasty, lag: 1e15, epoch: 1e6 });
    await route.fulfill({ json: s });
  });
  await faked.route('**/sessions?*', (route) => route.fulfill({ json: { node: nasty, now: Date.now(), connections: 1, subscriptions: 1, blocked: 1, behind: 1,
    sessions: [{ id: nasty, remote: nasty, since: 0, blocked: true, lag: 1e15, subscriptions: 1, furthest: [{ subject: nasty, partitions: 1, lag: 1 }] }] } }));
  await faked.setViewportSize({ width: 390, height: 844 });
  await faked.goto(new URL('/console/', it.args.admin).href);
  await it.until('the faked nodes', faked, (n) => document.getElementById('node-list').textContent.includes(n) && document.getElementById('session-list').textContent.includes(n) &&
    document.getElementById('groups').textContent.includes(n) && document.getElementById('parts').textContent.includes(n), nasty);
  await innocent(faked, 'the console with hostile answers');
  await it.shot(faked, 'console-hostile-answers-phone');

  // The demo's page: prices with hostile keys, a chat with hostile names and texts.
  const demo = await it.page(context, it.args.page);
  await demo.setViewportSize({ width: 390, height: 844 });
  await it.until('the hostile chat', demo, (n) => document.getElementById('chat').textContent.includes(n) && document.getElementById('prices').textContent.includes(n), nasty);
  await innocent(demo, 'the page');
  await it.shot(demo, 'page-hostile-phone');
}
