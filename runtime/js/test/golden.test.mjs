import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openBundle } from 'igpt-onnx/node';

import { writesInPlace } from '../core/node-graph.mjs';
import { drawUniforms, threefry2x32 } from '../core/random.mjs';
import { CASES, TINY, replay } from './golden.mjs';

test('the generator gives the known answers', () => {
  const words = (pair) => pair.map((word) => parseInt(word, 16));
  for (const { key, counter, result } of CASES.threefry) {
    assert.deepEqual(threefry2x32(...words(key), ...words(counter)), words(result));
  }
});

test('uniforms', () => {
  for (const { seed, sample, position, uniform } of CASES.uniforms) {
    const draws = new Float32Array(Math.min(sample, 1 << 16) + 1);
    if (sample < draws.length) {
      drawUniforms(BigInt(seed), position, draws);
      assert.equal(draws[sample], uniform);
    }
  }
  assert.ok(CASES.uniforms.some(({ sample }) => sample > 0 && sample < 1 << 16));
});

test('the installed onnxruntime-node is one that writes in place', () => assert.ok(writesInPlace()));

replay('node', () => openBundle(TINY));
