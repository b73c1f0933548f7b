// The console under load: some hundred subscribers and one that does not read (it.args.stalled, its address). All
// that it shows comes from /status and /sessions; a subscription and a publish are tried with the keyboard alone.
export async function run(it) {
  const { subscribers, stalled } = it.args;
  const context = await it.browser();
  const page = await it.page(context);
  // The admin port's / is the console to a browser.
  const answer = await page.goto(it.args.admin);
  it.check(new URL(page.url()).pathname === '/console/', `/ leads a browser to ${page.url()}`);
  it.check(answer.headers()['content-security-policy']?.includes("default-src 'none'"), 'the page has no policy');
  await it.until('three ready nodes', page, () => document.getElementById('health').textContent === '3 of 3 nodes ready, 8 of 8 groups coordinated');
  await it.until('rates that are drawn', page, () => [...document.querySelectorAll('#tiles .tile')].length === 4 &&
    [...document.querySelectorAll('#tiles .line')].every((l) => l.getAttribute('d').split('L').length > 5));
  const tile = (name) => page.locator('#tiles .tile').filter({ has: page.getByText(name, { exact: true }) }).locator('strong');
  const value = async (name) => {
    const text = (await tile(name).textContent()).replace('/s', '').replace(',', '');
    return text.endsWith('k') ? 1000 * parseFloat(text) : parseFloat(text);
  };
  await it.until('the subscribers to be counted', page, (n) => Number(document.querySelectorAll('#tiles strong')[3].textContent) >= n, subscribers);
  const [into, out] = [await value('records in'), await value('delivered')];
  // Each record of /prices/* goes to each subscriber of it; how fast both are depends on the machine.
  it.check(into > 1 && out > into * (subscribers / 4), `${into} records in and ${out} delivered a second to ${subscribers} subscribers`);

  await it.until('the node cards', page, () => document.querySelectorAll('#node-list .card').length === 3 && [...document.querySelectorAll('#node-list .card')].every((c) => c.textContent.includes('ready')));
  it.check(await page.locator('#groups tr').count() === 8, 'there are not eight groups');
  it.check(await page.locator('#parts tr').count() === 6, 'there are not six partitions');
  for (const row of await page.locator('#parts tr').allInnerTexts()) {
    it.check(/^\S+\/\d\s+n\d\s+[\d.,k]+\s+([\d,]+|\?)\s+\d+\s+[\d,]+\s+[\d,]+$/.test(row), `a partition's row: ${JSON.stringify(row)}`);
  }
  await page.getByLabel('Topic holds').fill('chat');
  await it.until('only the partitions of chat', page, () => document.querySelectorAll('#parts tr').length === 2);
  await page.getByLabel('Topic holds').fill('');

  // The one that does not read is the furthest behind.
  await it.until('the stalled client to be first', page, (address) => {
    const first = document.querySelector('#session-list summary');
    return first?.querySelector('.remote').textContent === address && !first.querySelector('.pill').hidden && /^[\d,]+ behind$/.test(first.querySelector('.lag').textContent);
  }, stalled);
  it.check(await page.locator('#session-list > li').count() === 25, 'the first page of sessions has not 25');
  await page.locator('#session-list summary').first().focus();
  await page.keyboard.press('Enter');
  await it.until('what it is subscribed to', page, () => /\/chat\/stalled\s*[\d,]+ behind/.test(document.querySelector('#session-list details[open]')?.textContent ?? ''));
  await page.getByRole('button', { name: 'Less far behind' }).click();
  await it.until('the second page', page, () => document.getElementById('sessions-note').textContent.startsWith('26 to 50'));
  await page.getByRole('button', { name: 'Further behind', exact: true }).click();
  await it.until('the first page again', page, () => document.getElementById('sessions-note').textContent.startsWith('1 to 25'));

  // By keyboard: everything is reached with Tab, in the order of the page, and the focus is seen.
  await page.evaluate(() => { document.activeElement.blur(); window.scrollTo(0, 0); });
  await page.getByRole('link', { name: 'Skip to the content' }).focus();
  it.check((await page.locator('.skip').boundingBox()).x >= 0, 'the skip link is not seen when it has the focus');
  for (const name of ['Rates', 'Nodes', 'Coordinators', 'Partitions', 'Sessions', 'Try']) {
    await page.keyboard.press('Tab');
    const focused = await page.evaluate(() => [document.activeElement.textContent, getComputedStyle(document.activeElement).outlineStyle]);
    it.check(focused[0] === name && focused[1] !== 'none', `Tab leads to ${focused}, not to ${name}`);
  }
  const fields = await page.evaluate(() => [...document.querySelectorAll('input, select, textarea, button')]
    .filter((e) => !e.labels?.length && !e.textContent.trim() && !e.getAttribute('aria-label')).map((e) => e.id));
  it.check(fields.length === 0, `without a name: ${fields}`);

  await page.locator('#sub-subject').focus();
  await page.keyboard.type('/chat/tried');
  await page.keyboard.press('Enter');
  await it.until('the subscription', page, () => document.querySelectorAll('#subs li').length === 1 && document.getElementById('wire').textContent.startsWith('connected to n'));
  await page.locator('#pub-subject').focus();
  await page.keyboard.type('/chat/tried');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.type('{"text": "from the console"}');
  await page.keyboard.press('Tab');
  await page.keyboard.type('trace: 17');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await it.until('the record', page, () => [...document.querySelectorAll('#log .msg')].filter((li) => li.textContent.includes('/chat/tried') && li.textContent.includes('{"text":"from the console"}  {"trace":"17"}')).length === 1);
  await it.until('the answer', page, () => /published: partition \d, offset \d+/.test(document.getElementById('log').textContent));
  await page.locator('#pub-value').fill('not JSON');
  await page.getByRole('button', { name: 'Publish' }).click();
  await it.until('why it was not sent', page, () => document.getElementById('log').textContent.includes('the value is not JSON'));
  await page.locator('#pub-subject').fill('/prices/x');
  await page.getByLabel('Value as').selectOption('text');
  await page.getByRole('button', { name: 'Publish' }).click();
  await it.until('the refusal', page, () => document.getElementById('log').textContent.includes('bad_subject: no such topic is open for publishing'));
  await it.shots(page, 'console');
  await page.getByRole('button', { name: 'Unsubscribe /chat/tried' }).click();
  await it.until('the end of the subscription', page, () => document.querySelectorAll('#subs li').length === 0);

  // A flood does not fill the page.
  await page.locator('#sub-history').fill('-1');
  await page.locator('#sub-subject').fill('/prices/*');
  await page.locator('#sub-subject').press('Enter');
  await it.until('more messages than fit', page, () => parseInt(document.getElementById('heard').textContent.replace(',', '')) > 300);
  it.check(await page.locator('#log li').count() <= 200, 'the list grows without end');
}
