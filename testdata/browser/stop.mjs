import { Stream, number } from './lib.mjs';

// The node that the page is on is stopped with the page's own button: the stream goes on from another node
// without a hole, and the page says so. The node is started again, and everything goes on.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context);
  const stream = new Stream(page);
  await page.goto(it.args.page);
  await stream.more(100);
  const here = (await page.locator('#where').textContent()).match(/on node (n\d)/)[1];
  await page.getByRole('button', { name: `Stop ${here}` }).click();
  await it.until('another node', page, (was) => /^on node n\d$/.test(document.getElementById('where').textContent) && !document.getElementById('where').textContent.endsWith(was), here);
  it.check(stream.opened >= 2, `one connection was enough (${stream.opened})`);
  await stream.more(100);
  await it.until('the stopped node to be shown as such', page, (was) => document.getElementById('nodes').textContent.includes(`Start ${was} again`), here);
  await it.until('the move to be told', page, (was) => document.getElementById('events').textContent.includes(`moved ${was} → `), here);
  await it.shot(page, 'page-node-stopped');
  await page.getByRole('button', { name: `Start ${here} again` }).click();
  await it.until('the node to be back', page, (was) => [...document.querySelectorAll('#nodes li')].some((li) => li.textContent.includes(was) && li.textContent.includes('running')), here);
  await stream.more(100);
  stream.judge(it, 'over a stopped node');
  for (const what of ['missed', 'repeated']) it.check(await number(page, what) === 0, `the page says that records were ${what}: ${await number(page, what)}`);
  it.check(stream.sent.some((op) => op.op === 'sub' && op.subject === '/prices/*' && op.resume?.length > 0), 'no subscription was resumed');
}
