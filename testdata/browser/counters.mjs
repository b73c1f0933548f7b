// The console makes rates of counters that start anew with their node, are missing for a while with it, or are not
// there at all, because the node is older than they are. The answers are made up here.
export async function run(it) {
  const context = await it.browser();
  const page = await it.page(context);
  // A question is answered when the scenario has the next answer, and each is given once.
  const answers = [];
  let wake = () => {};
  await page.route('**/status?*', async (route) => {
    while (answers.length === 0) await new Promise((resolve) => { wake = resolve; });
    const next = answers.shift();
    await route.fulfill({ json: { nodes: next } }).catch(() => answers.unshift(next)); // the page waits no longer
  });
  const node = (name, uptime, delivered) => ({
    node: name, version: '', uptime_seconds: uptime, ready: true, connections: 3, subscriptions: 4, client: 'c', groups: [], partitions: [],
    cache: { bytes: 1, budget: 2, records: 3 }, counters: delivered === null ? undefined : { delivered, records: delivered },
  });
  let step = 0;
  const shows = async (what, list, want) => {
    step++;
    list.push(node('mark', 100 + step, null)); // so that it is seen which answer the page shows
    for (const n of list) n.version = `answer ${step}`;
    answers.push(list);
    wake();
    await it.until(`${what}: to be shown`, page, (version) => document.getElementById('node-list').textContent.includes(version), `answer ${step}`);
    const got = await page.evaluate(() => [...document.querySelectorAll('#tiles strong')].slice(0, 2).map((e) => e.textContent));
    it.check(String(got) === String(want), `${what}: ${got}, want ${want}`);
  };
  answers.push([]);
  await page.goto(new URL('/console/', it.args.admin).href);
  await it.until('the first answer', page, () => document.getElementById('health').textContent.startsWith('0 of 0'));
  await shows('nodes without counters', [node('a', 10, null), node('b', 10, null)], ['–', '–']);
  it.check(/these nodes do not count it/.test(await page.locator('#tiles').textContent()), 'it is not told why there are no rates');
  await shows('one that counts, for the first time', [node('a', 20, 1e9), node('b', 20, null)], ['–', '–']);
  await shows('the same counters again', [node('a', 30, 1e9), node('b', 30, null)], ['0/s', '0/s']);
  await shows('a new start, from zero', [node('a', 1, 5), node('b', 40, null)], ['–', '–']);
  await shows('nothing since', [node('a', 2, 5), node('b', 50, null)], ['0/s', '0/s']);
  await shows('counters that fall', [node('a', 3, 1), node('b', 60, null)], ['–', '–']);
  await shows('a new start that has done more already', [node('a', 1, 1e12), node('b', 70, null)], ['–', '–']);
  it.check(!/NaN|undefined|Infinity|-\d/.test(await page.locator('#rates').innerText()), `the rates say ${await page.locator('#rates').innerText()}`);
}
