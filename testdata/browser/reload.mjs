import { Stream, number } from './lib.mjs';

// A reload goes on where the page was: what comes between is not missed, and what was on the page is there again.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context);
  const stream = new Stream(page);
  await page.goto(it.args.page);
  await stream.more(100);
  await page.getByLabel('Message').fill('before the reload');
  await page.getByLabel('Message').press('Enter');
  await it.until('the message', page, () => /before the reload\[/.test(document.getElementById('chat').textContent));
  for (let i = 1; i <= 3; i++) {
    const before = stream.sent.length;
    await page.reload();
    await stream.more(50);
    const subs = stream.sent.slice(before).filter((op) => op.op === 'sub' && op.subject === '/prices/*');
    it.check(subs.length === 1 && subs[0].resume?.length === 4, `reload ${i} subscribed with ${JSON.stringify(subs)}`);
  }
  await it.until('the resume to be told', page, () => document.getElementById('events').textContent.includes('reloaded, resumed on'));
  await it.until('the message of before', page, () => document.querySelectorAll('#chat li').length > 0 && /before the reload\[/.test(document.getElementById('chat').textContent));
  it.check((await page.locator('#chat').textContent()).split('before the reload').length === 2, 'the message is there more than once');
  stream.judge(it, 'over reloads');
  for (const what of ['missed', 'repeated']) it.check(await number(page, what) === 0, `the page says that records were ${what}: ${await number(page, what)}`);
}
