import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { runScenario } from './support/scenario.js';

// The table that every client is checked with.
const dir = new URL('../../../testdata/protocol/', import.meta.url);
const names = readdirSync(dir).filter((n) => n.endsWith('.txt')).sort();
assert.ok(names.length > 20, 'the table of scenarios is missing');
for (const name of names) {
  test(name, () => runScenario(readFileSync(new URL(name, dir), 'utf8')));
}
