// A program that used onnxruntime-node before this package: outputs are copied then, and the tokens must be the same.
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import ort from 'onnxruntime-node';

import { TINY, replay } from './golden.mjs';
import { inHubCache } from './hub.mjs';

const POSTPROCESS = fileURLToPath(new URL('postprocess.onnx', TINY));

const other = await ort.InferenceSession.create(POSTPROCESS);
const { openBundle } = await import('igpt-onnx/node');

const cached = await inHubCache(fileURLToPath(TINY));
after(() => rm(path.join(cached, '../../../..'), { recursive: true }));

replay('node with copies', () => openBundle(TINY));
replay('node with copies, blobs of the repository', () => openBundle(cached));

test('the other program still gets its outputs', async () => {
  const { writesInPlace } = await import('../core/node-graph.mjs');
  assert.equal(writesInPlace(), false);
  const { images } = await other.run({ tokens: new ort.Tensor('int64', new BigInt64Array(64), [1, 64]) });
  assert.equal(images.data.length, 192);
});
