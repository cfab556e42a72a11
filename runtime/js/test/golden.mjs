// The golden pack (tests/golden/README.md), replayed through any host.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

const GOLDEN = new URL('../../../tests/golden/', import.meta.url);

export const TINY = new URL('bundle/', GOLDEN);

export const CASES = JSON.parse(readFileSync(new URL('cases.json', GOLDEN), 'utf-8'));

/** A picture of the pack. */
export function picture(name) {
  const { width, height, rgb } = CASES.pictures.find((known) => known.name === name);
  return { width, height, data: Uint8Array.from(Buffer.from(rgb, 'base64')) };
}

/** Defines the tests. open: resolves to the model of the golden bundle. */
export function replay(host, open) {
  let model;
  before(async () => (model = await open()));
  after(() => model?.release());

  for (const { name, tokens } of CASES.pictures) {
    test(`${host}: the tokens of ${name}`, async () => {
      assert.deepEqual(Array.from(await model.tokens(picture(name))), tokens);
    });
  }

  test(`${host}: pictures of tokens`, () => {
    const images = model.images(CASES.images.map(({ tokens }) => tokens));
    images.forEach(({ data, width, height }, i) => {
      assert.deepEqual([width, height], [8, 8]);
      assert.equal(Buffer.from(data).toString('base64'), CASES.images[i].rgb);
    });
  });

  for (const known of CASES.model) {
    test(`${host}: features, classes and score of ${known.picture}`, async () => {
      const image = picture(known.picture);
      const { data, dims } = await model.features(image);
      assert.deepEqual(dims, [known.features.length, known.features[0].length]);
      close(data, known.features.flat(), 1e-4);

      const classes = await model.classify(image);
      const byLabel = model.labels.map((label) => classes.find((found) => found.label === label).probability);
      close(byLabel, known.probabilities, 1e-4);
      assert.deepEqual(classes.map(({ probability }) => probability), byLabel.toSorted((a, b) => b - a));

      const { nats, natsPerToken } = await model.score(image);
      close(nats, known.nats, 1e-3);
      close([natsPerToken], [known.nats_per_token], 1e-4);
    });
  }

  for (const known of CASES.completions) {
    const options = {
      n: known.n,
      seed: BigInt(known.seed),
      temperature: known.temperature,
      topK: known.top_k,
      topP: known.top_p,
    };
    const name = `keep ${known.keep}, n ${known.n}, seed ${known.seed}`;
    test(`${host}: completion in steps, ${name}`, async () => {
      const primer = (await model.tokens(picture(known.picture))).subarray(0, known.keep);
      const run = model.generate(primer, options);
      const drawn = known.tokens.map((row) => row.slice(0, known.keep));
      for await (const { position, tokens } of run) {
        assert.equal(position, drawn[0].length);
        drawn.forEach((row, sample) => row.push(tokens[sample]));
      }
      assert.deepEqual(drawn, known.tokens);
      assert.deepEqual((await run.tokens()).map((row) => Array.from(row)), known.tokens);
    });

    if (known.keep % 8 === 0 && known.keep < 64) {
      test(`${host}: completion of rows, in steps and at once, ${name}`, async () => {
        const request = { ...options, keepRows: known.keep / 8 };
        const { images, tokens } = await model.completeOnce(picture(known.picture), request);
        assert.deepEqual(tokens.map((row) => Array.from(row)), known.tokens);
        assert.deepEqual(await model.complete(picture(known.picture), request).images(), images);
      });
    }
  }
}

function close(got, expected, tolerance) {
  assert.equal(got.length, expected.length);
  expected.forEach((value, i) => {
    assert.ok(Math.abs(got[i] - value) <= tolerance, `${got[i]} at ${i} instead of ${value}`);
  });
}
