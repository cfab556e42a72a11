// The page's modules that need no page: addresses, options and colours.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fromHex, hexOf, nameOf, nearest, offered } from '../page/colours.mjs';
import { readLink, writeLink } from '../page/link.mjs';
import { problemOf, wordsOf } from '../page/options.mjs';

test('a link says what it was made of, and nothing else', () => {
  const state = { model: 'a b&c=#~2', sample: 'räksmörgås', keep: 0, n: '8', seed: '18446744073709551615', topP: undefined };
  const hash = writeLink({ ...state, picture: 'secret' });
  assert.ok(!hash.includes('secret'));
  const { topP, ...given } = state;
  assert.deepEqual(readLink(hash), { ...given, keep: '0' });
  assert.deepEqual(readLink(''), {});
  assert.deepEqual(readLink('#__proto__=1&model='), { model: '' });
});

test('options that cannot be are found', () => {
  for (const [name, right, wrong] of [
    ['n', ['1', '16'], ['', '0', '17', '1.5', '1e1', '-1', 'many']],
    ['seed', ['0', '18446744073709551615'], ['', '-1', '18446744073709551616', '1.0']],
    ['temperature', ['', '0', '0.8', '1e3'], ['-1', 'Infinity', 'warm', ' ']],
    ['topK', ['', '0', '512'], ['-1', '1.5', '9007199254740992']],
    ['topP', ['', '0.5', '1'], ['0', '1.1', '-1', 'NaN']],
  ]) {
    for (const text of right) assert.equal(problemOf(name, text), undefined, `${name} ${text}`);
    for (const text of wrong) assert.match(problemOf(name, text) ?? '', /^Choose /, `${name} ${text}`);
  }
});

test('how completions are drawn, in words', () => {
  const request = { seed: '3', temperature: 0.8, topK: 0, topP: 1, keepRows: 8 };
  assert.equal(wordsOf(request, 16), '8 of 16 rows kept, seed 3, temperature 0.8');
  assert.equal(wordsOf({ seed: '3', topK: 5, topP: 0.9, keepRows: 0 }, 16), '0 of 16 rows kept, seed 3, top-k 5, top-p 0.9');
});

test('colours of a palette', () => {
  const levels = [0, 85, 170, 255];
  const palette = levels.flatMap((r) => levels.flatMap((g) => levels.map((b) => [r, g, b])));
  assert.deepEqual(palette[nearest(palette, [250, 260, 180])], [255, 255, 170]);
  const chosen = offered(palette);
  assert.equal(new Set(chosen).size, 40);
  for (const corner of [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]) {
    assert.ok(chosen.some((index) => hexOf(palette[index]) === hexOf(corner)), String(corner));
  }
  assert.deepEqual(offered([[1, 2, 3], [1, 2, 3]]), [0]);
  assert.deepEqual(fromHex(hexOf([1, 20, 255])), [1, 20, 255]);
  const names = [[255, 255, 255], [0, 0, 0], [120, 120, 120], [255, 0, 0], [0, 0, 160], [150, 255, 150], [255, 140, 0]].map(nameOf);
  assert.deepEqual(names, ['white', 'black', 'grey', 'red', 'dark blue', 'light green', 'orange']);
});
