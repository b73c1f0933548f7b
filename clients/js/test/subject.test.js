import assert from 'node:assert/strict';
import { test } from 'node:test';
import { after, parseSubject, subject } from 'tidewire';

test('a key has one text and every text one key', () => {
  for (const [key, text] of [
    ['42', '/t/42'], ['', '/t/'], ['1/speed', '/t/1/speed'], ['50%', '/t/50%25'], ['*', '/t/%2A'], ['a/*/b', '/t/a/%2A/b'],
    ['*/*', '/t/%2A/%2A'], ['a*', '/t/a*'], ['é€😀', '/t/é€😀'], ['\n', '/t/%0A'], ['\u0085', '/t/%C2%85'], ['\u007f', '/t/%7F'], ['\u00a0', '/t/\u00a0'],
    [Uint8Array.of(0xff, 0x61), '/t/%FFa'], [Uint8Array.of(0xc3), '/t/%C3'], [Uint8Array.of(0xed, 0xa0, 0x80), '/t/%ED%A0%80'],
    [Uint8Array.of(0xe2, 0x82, 0x41), '/t/%E2%82A'], [null, '/t'],
  ]) {
    assert.equal(subject('t', key), text);
    assert.deepEqual(parseSubject(text), { topic: 't', key });
  }
  // Bytes that are UTF-8 are the string's own subject.
  assert.equal(subject('t', new TextEncoder().encode('é/50%/*')), subject('t', 'é/50%/*'));
  assert.equal(subject('t'), '/t');
  assert.throws(() => subject('t', '\ud800'), URIError);
});

test('epochs order first', () => {
  assert.ok(after([0, 2, 0], [0, 1, 9]) && after([0, 1, 9], [0, 1, 8]));
  assert.ok(!after([0, 1, 9], [0, 1, 9]) && !after([0, 1, 9], [0, 2, 0]));
});
