/** Replays the golden pack (tests/golden/README.md) in onnxruntime-node, and in onnxruntime-web's WebAssembly under Node. */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { drawUniforms } from '../core/random.mjs';
import { openBundle } from '../node.mjs';
import { openInWasm } from './wasm.mjs';

const GOLDEN = new URL('../../../tests/golden/', import.meta.url);
const CASES = JSON.parse(readFileSync(new URL('cases.json', GOLDEN), 'utf-8'));
const PICTURES = Object.fromEntries(CASES.pictures.map((item) => [item.name, item]));

const picture = (name) => {
  const { width, height, rgb } = PICTURES[name];
  return { width, height, data: Uint8Array.from(Buffer.from(rgb, 'base64')) };
};

const near = (actual, expected, tolerance) => {
  const [left, right] = [[...actual], expected.flat()];
  assert.equal(left.length, right.length);
  const worst = left.reduce((most, value, i) => Math.max(most, Math.abs(value - right[i])), 0);
  assert.ok(worst <= tolerance, `differs by ${worst}`);
};

test('random numbers', () => {
  for (const { seed, sample, position, uniform } of CASES.uniforms) {
    const draws = new Float32Array(sample + 1);
    drawUniforms(BigInt(seed), position, draws);
    assert.equal(draws[sample], uniform);
  }
});

for (const [host, open] of [['node', openBundle], ['wasm', openInWasm]]) {
  describe(host, () => {
    let model;
    before(async () => {
      model = await open(new URL('bundle/', GOLDEN));
    });
    after(() => model.release());

    test('pictures to tokens', async () => {
      for (const { name, tokens } of CASES.pictures) {
        assert.deepEqual([...(await model.tokens(picture(name)))], tokens, name);
      }
    });

    test('tokens to pictures', () => {
      for (const { tokens, rgb } of CASES.images) {
        const [image] = model.images([tokens]);
        assert.deepEqual(Buffer.from(image.data).toString('base64'), rgb);
        assert.deepEqual([image.width, image.height], [8, 8]);
      }
    });

    for (const expected of CASES.model) {
      test(`classes, features and score of ${expected.picture}`, async () => {
        const image = picture(expected.picture);
        const classes = Object.fromEntries((await model.classify(image)).map((c) => [c.label, c.probability]));
        near(model.labels.map((label) => classes[label]), expected.probabilities, 1e-4);
        const features = await model.features(image);
        assert.deepEqual([...features.dims], [4, 32]);
        near(features.data, expected.features, 1e-4);
        const { nats, natsPerToken } = await model.score(image);
        near(nats, expected.nats, 1e-3);
        near([natsPerToken], [expected.nats_per_token], 1e-4);
      });
    }

    for (const { keep, n, seed, temperature, top_k: topK, top_p: topP, tokens, picture: name } of CASES.completions) {
      test(`${n} completions of ${keep} tokens, seed ${seed}`, async () => {
        const options = { n, seed: BigInt(seed), temperature, topK, topP };
        const primer = PICTURES[name].tokens.slice(0, keep);
        const drawn = await model.generate(primer, options).tokens();
        assert.deepEqual(drawn.map((row) => [...row]), tokens);
        if (keep % 8 === 0 && keep < 64) {
          const once = await model.completeOnce(picture(name), { ...options, keepRows: keep / 8 });
          assert.deepEqual(once.tokens.map((row) => [...row]), tokens);
          assert.deepEqual(once.images, model.images(tokens));
        }
      });
    }
  });
}
