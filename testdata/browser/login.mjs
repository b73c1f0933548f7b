// The console of a node whose admin port wants a token: it asks for it, takes no wrong one, and with the right one shows
// everything and can be tried, also after a reload. The token is nowhere that a script could read it.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context, it.args.admin);
  await it.until('to be asked', page, () => document.getElementById('login').open);
  it.check(new URL(page.url()).pathname === '/console/', `at ${page.url()}`);
  it.check(await page.evaluate(() => document.querySelectorAll('#node-list .card').length === 0), 'a node is shown to who has shown nothing');
  const enter = async (token) => {
    await page.getByLabel('TIDEWIRE_ADMIN_TOKEN').fill(token);
    await page.getByRole('button', { name: 'Open the console' }).click();
  };
  await enter('not the token at all');
  await it.until('the wrong one to be refused', page, () => document.getElementById('login-why').textContent.includes('not the token'));
  await it.shots(page, 'console-login');
  await enter(it.args.token);
  const shown = () => !document.getElementById('login').open && document.querySelectorAll('#node-list .card').length === 1 && document.getElementById('silent').hidden;
  await it.until('the console', page, shown);
  await page.getByLabel('Subject').first().fill('/none/k');
  await page.getByRole('button', { name: 'Subscribe', exact: true }).click();
  await it.until('an answer over its WebSocket', page, () => /bad_subject/.test(document.getElementById('log').textContent));
  const readable = await page.evaluate(() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + location.href + document.documentElement.outerHTML);
  it.check(!readable.includes('tidewire_admin') && !readable.includes(it.args.token), 'a script can read the cookie or the token');
  await page.reload();
  await it.until('the console after a reload', page, shown);
}
