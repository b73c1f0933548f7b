// What an application gets when it installs the package.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const root = fileURLToPath(new URL('../', import.meta.url));
const LIMIT = 8000;

test('under 8 KB gzipped', (t) => {
  const size = gzipSync(readFileSync(join(root, 'dist/index.js')), { level: 9 }).length;
  t.diagnostic(`${size} bytes gzipped`);
  assert.ok(size < LIMIT, `${size} bytes`);
});

// It is in the repository so that `make run` needs Go alone.
test("the demo's page has the client as it is built now", () => {
  const dir = mkdtempSync(join(tmpdir(), 'tidewire-'));
  try {
    execFileSync(process.execPath, [join(root, 'page.js'), join(dir, 'tidewire.js')]);
    const [want, have] = [join(dir, 'tidewire.js'), join(root, '../../cmd/tidewire-demo/page/tidewire.js')].map((path) => readFileSync(path, 'utf8'));
    assert.ok(have === want, 'cmd/tidewire-demo/page/tidewire.js is not what clients/js builds: run make page and commit it');
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('without dependencies; the lock file names no place to download from', () => {
  const pkg = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  assert.deepEqual(Object.keys({ ...pkg.dependencies, ...pkg.peerDependencies, ...pkg.optionalDependencies }), []);
  for (const version of Object.values(pkg.devDependencies)) assert.match(version, /^\d+\.\d+\.\d+$/);
  assert.doesNotMatch(readFileSync(join(root, 'package-lock.json'), 'utf8'), /"resolved"|https?:\/\/[^"]*\.tgz/);
});

test('every public name is documented with an example', () => {
  const dir = join(root, 'dist');
  const undocumented = [];
  const index = readFileSync(join(dir, 'index.d.ts'), 'utf8');
  const names = [...index.matchAll(/\{([^}]*)\}/g)].flatMap((m) => m[1].split(',').map((n) => n.replace('type ', '').trim())).filter((n) => /^\w+$/.test(n));
  assert.ok(names.length > 20, `${names}`);
  const text = readdirSync(dir).filter((n) => n.endsWith('.d.ts')).map((n) => readFileSync(join(dir, n), 'utf8')).join('\n');
  const hasExample = (before) => /\/\*\*(?:(?!\*\/)[\s\S])*@example(?:(?!\*\/)[\s\S])*\*\/\s*$/.test(before);
  for (const name of names) {
    const at = text.search(new RegExp(`^export (declare )?(class|interface|type|const|function) ${name}\\b`, 'm'));
    if (at < 0 || !hasExample(text.slice(0, at))) undocumented.push(name);
  }
  // And the methods of the two classes, accessors and overrides apart.
  for (const cls of ['Tidewire', 'Subscription']) {
    const body = new RegExp(`^export declare class ${cls}\\b[\\s\\S]*?^}`, 'm').exec(text)[0];
    for (const m of body.matchAll(/^    (\w+)(<[^>]*>)?\(/gm)) {
      if (m[1] !== 'on' && !hasExample(body.slice(0, m.index)) && m[1] !== 'constructor') undocumented.push(`${cls}.${m[1]}`);
    }
  }
  assert.deepEqual(undocumented, []);
});

test('installs into an empty project, with its types', () => {
  const dir = mkdtempSync(join(tmpdir(), 'tidewire-'));
  try {
    const run = (cmd, args) => execFileSync(cmd, args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
    const packed = JSON.parse(execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', dir], { cwd: root, encoding: 'utf8' }));
    const { filename, files } = Array.isArray(packed) ? packed[0] : Object.values(packed)[0];
    assert.ok(files.every(({ path }) => /^(dist\/[\w.]+|README\.md|package\.json)$/.test(path)), JSON.stringify(files.map((f) => f.path)));
    writeFileSync(join(dir, 'package.json'), '{"private":true,"type":"module"}');
    run('npm', ['install', '--offline', '--no-audit', '--no-fund', join(dir, filename)]);
    writeFileSync(join(dir, 'use.ts'), `
      import { Tidewire, TidewireError, subject, type Message } from 'tidewire';
      async function main(): Promise<void> {
        const k = new Tidewire({ nodes: ['127.0.0.1:1'], token: async () => 't' });
        const s = k.subscribe<{ state: string }>(subject('orders', '*'), { history: 10, storage: localStorage });
        s.on('gap', (gap) => console.log(gap.lost[0]?.from?.[0]));
        k.on('connecting', ({ error, retryMs }) => console.log(error.message, retryMs.toFixed()));
        for await (const m of s) { const state: string = m.value.state; const all: Message = m; void state; void all; }
        try { const { offset } = await k.publish('/a', 1, { ack: 'replicated' }); void offset; }
        catch (e) { if (e instanceof TidewireError && e.code === 'queue_full') await k.close(); }
      }
      void main;
    `);
    writeFileSync(join(dir, 'tsconfig.json'), '{"compilerOptions":{"strict":true,"module":"nodenext","lib":["es2022","dom"],"types":[]},"files":["use.ts"]}');
    execFileSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', '.'], { cwd: dir, stdio: 'inherit' });
    const out = run(process.execPath, ['--input-type=module', '-e', `import { subject } from 'tidewire'; console.log(subject('orders', '50%'));`]);
    assert.equal(out.trim(), '/orders/50%25');
  } finally {
    rmSync(dir, { recursive: true });
  }
});
