/** onnxruntime-web whose WebAssembly cannot be fetched: in a process of its own, as it tries once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as ort from 'onnxruntime-web/wasm';

import { RuntimeError } from '../web.mjs';
import { TINY } from './golden.mjs';
import { openInWasm } from './wasm.mjs';

test('the package is named, now and when it is tried again', async () => {
  ort.env.wasm.wasmPaths = { wasm: 'http://127.0.0.1:1/ort.wasm' };
  const model = await openInWasm(TINY);
  for (let time = 0; time < 2; time++) {
    await assert.rejects(model.sample({ n: 1 }).tokens(), (error) => {
      assert.ok(error instanceof RuntimeError && error.field === 'onnxruntime-web', `${error}`);
      assert.match(error.message, /^onnxruntime-web cannot be loaded \(.*; see that its \.mjs and \.wasm files can be fetched/);
      return true;
    });
  }
  await model.release();
});
