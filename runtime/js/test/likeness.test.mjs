/** Pictures of another kind than the model's own, by manifests that say what these cost. */

import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { BundleError, openBundle } from '../node.mjs';

const GOLDEN = fileURLToPath(new URL('../../../tests/golden/bundle/', import.meta.url));
const PICTURE = { width: 2, height: 2, data: Uint8Array.from({ length: 12 }, (_, i) => 20 * i) };
const ROWS = 8;

describe('likeness', () => {
  let directory;
  before(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'likeness-'));
  });
  after(() => rm(directory, { recursive: true }));

  async function open(fields, name = 'bundle') {
    const bundle = path.join(directory, name);
    await cp(GOLDEN, bundle, { recursive: true });
    const file = path.join(bundle, 'manifest.json');
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...fields }));
    return openBundle(bundle);
  }

  const knowing = (...row) => ({ likelihood: { pictures: '3 held-out pictures', by_rows: Array(ROWS).fill(row) } });

  test('a picture, or its upper rows, is compared', async () => {
    const model = await open(knowing(1, 2, 2.5));
    const row = (nats) => new Float32Array(16).fill(nats);
    assert.deepEqual(model.likeness(row(2.5)), { natsPerToken: 2.5, usual: [1, 2.5], unlike: false, notice: null });
    const { unlike, notice } = model.likeness(row(3.6));
    assert.ok(unlike);
    assert.equal(notice, 'unlike what this model was trained on: 3.6 nats a pixel, its own pictures cost 1.0 to 2.5');
    assert.equal(model.likeness(new Float32Array(0)), null);
    await model.release();
  });

  test('a score has it', async () => {
    const model = await open(knowing(0, 0, 0));
    const { natsPerToken, likeness } = await model.score(PICTURE);
    assert.ok(likeness.unlike);
    assert.ok(Math.abs(likeness.natsPerToken - natsPerToken) < 1e-5);
    await model.release();
  });

  test('a bundle that does not know gives none', async () => {
    const model = await open({});
    assert.equal((await model.score(PICTURE)).likeness, null);
    await model.release();
  });

  for (const [field, fields] of [
    ['likelihood.pictures', { likelihood: {} }],
    ['likelihood.by_rows', { likelihood: { pictures: '', by_rows: [] } }],
    ['likelihood.by_rows', { likelihood: { pictures: '', by_rows: Array(ROWS).fill([0, 2, 1]) } }],
    ['likelihood.by_rows', { likelihood: { pictures: '', by_rows: Array(ROWS).fill([0, '1', 2]) } }],
    ['examples', { examples: 'a' }],
    ['examples.file', { examples: { file: 'other.png', names: ['a'] } }],
    ['examples.names', { examples: { file: 'weights.safetensors', names: [] } }],
  ]) {
    test(`${field} that is malformed is refused: ${JSON.stringify(fields).slice(0, 60)}`, async () => {
      await assert.rejects(open(fields), (error) => {
        assert.ok(error instanceof BundleError);
        assert.equal(error.field, field);
        return true;
      });
    });
  }
});
