import { Stream } from './lib.mjs';

// The demo page: prices move, a message goes through Kafka and comes back with its position.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context);
  const stream = new Stream(page);
  await page.goto(it.args.page);
  await it.until('twenty prices', page, () => document.querySelectorAll('#prices .tile').length === 20);
  await stream.more(100);
  await page.getByLabel('Name').fill('Ada');
  await page.getByLabel('Message').fill('hello from a browser');
  await page.getByLabel('Message').press('Enter');
  await it.until('the message with its position', page, () => [...document.querySelectorAll('#chat li')]
    .some((li) => li.className === '' && /^Ada: hello from a browser\[\d+, \d+, \d+\]$/.test(li.textContent)));
  it.check(await page.locator('#chat li').filter({ hasText: 'hello from a browser' }).count() === 1, 'the message is shown more than once');
  await it.until('what the page counts', page, () => Number(document.getElementById('received').textContent) > 100);
  stream.judge(it, 'live');
  await it.shots(page, 'page');
}
