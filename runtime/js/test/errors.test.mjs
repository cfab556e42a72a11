/** Bad input and damaged bundles: a typed error that names the field. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { BundleError, ImageError, OptionError, RuntimeError, openBundle } from '../node.mjs';
import { openInWasm } from './wasm.mjs';

const GOLDEN = fileURLToPath(new URL('../../../tests/golden/bundle/', import.meta.url));
const PICTURE = { width: 2, height: 2, data: new Uint8Array(12) };

const raised = (type, field, pattern) => (error) => {
  assert.ok(error instanceof type, `${error}`);
  assert.equal(error.field, field);
  assert.doesNotMatch(error.message, /\n/);
  if (pattern) assert.match(error.message, pattern);
  return true;
};

describe('requests', () => {
  let model;
  before(async () => {
    model = await openBundle(GOLDEN);
  });
  after(() => model.release());

  for (const [image, field] of [
    [undefined, 'image'],
    ['picture.png', 'image'],
    [{ width: 0, height: 0, data: new Uint8Array(0) }, 'width'],
    [{ width: 2, height: 1.5, data: new Uint8Array(12) }, 'height'],
    [{ width: 2, height: 2, data: new Float32Array(12) }, 'data'],
    [{ width: 2, height: 2, data: [0, 0, 0] }, 'data'],
    [{ width: 2, height: 2, data: new Uint8Array(11) }, 'data'],
  ]) {
    test(`a picture like ${JSON.stringify(image)}`, async () => {
      assert.throws(() => model.complete(image), raised(ImageError, field));
      await assert.rejects(model.classify(image), raised(ImageError, field));
      await assert.rejects(model.completeOnce(image), raised(ImageError, field));
    });
  }

  for (const [options, field] of [
    [{ keepRows: -1 }, 'keepRows'],
    [{ keepRows: 8 }, 'keepRows'],
    [{ keepRows: 2.5 }, 'keepRows'],
    [{ keepRows: 2, keep: 0.5 }, 'keepRows'],
    [{ keep: 1 }, 'keep'],
    [{ n: 0 }, 'n'],
    [{ n: 1e9 }, 'n'],
    [{ seed: -1 }, 'seed'],
    [{ seed: 2n ** 64n }, 'seed'],
    [{ seed: 2 ** 60 }, 'seed'],
    [{ temperature: NaN }, 'temperature'],
    [{ temperature: -1 }, 'temperature'],
    [{ topK: -1 }, 'topK'],
    [{ topP: 0 }, 'topP'],
    [{ topP: 1.1 }, 'topP'],
    [{ signal: {} }, 'signal'],
    [{ rows: 3 }, 'rows'],
    [null, 'options'],
  ]) {
    test(`options like ${JSON.stringify(options, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))}`, () => {
      assert.throws(() => model.complete(PICTURE, options), raised(OptionError, field));
    });
  }

  for (const [primer, field] of [
    [[16], 'primer'],
    [[0, -1], 'primer'],
    [[0.5], 'primer'],
    [new Array(65).fill(0), 'primer'],
    [7, 'primer'],
  ]) {
    test(`a primer like ${JSON.stringify(primer).slice(0, 20)}`, () => {
      assert.throws(() => model.generate(primer), raised(OptionError, field));
    });
  }

  test('a signal ends a run before it begins and midway', async () => {
    const reason = new Error('enough');
    await assert.rejects(model.sample({ signal: AbortSignal.abort(reason) }).images(), reason);
    const controller = new AbortController();
    const run = model.sample({ n: 2, signal: controller.signal });
    let steps = 0;
    await assert.rejects(async () => {
      for await (const { position } of run) {
        assert.equal(position, steps++);
        if (steps === 5) controller.abort(reason);
      }
    }, reason);
    assert.equal(steps, 5);
    await assert.rejects(run.images(), reason);
  });

  test('a run that is left has no pictures', async () => {
    const run = model.sample({ n: 1 });
    for await (const step of run) if (step.position === 3) break;
    await assert.rejects(run.images(), raised(OptionError, 'run', /left at position 4 of 64/));
  });
});

describe('bundles', () => {
  let directory;
  beforeEach(async () => {
    if (directory) await rm(directory, { recursive: true });
    directory = await mkdtemp(path.join(tmpdir(), 'igpt-onnx-'));
    await cp(GOLDEN, directory, { recursive: true });
  });
  after(() => rm(directory, { recursive: true }));

  const edit = async (change) => {
    const file = path.join(directory, 'manifest.json');
    const record = JSON.parse(await readFile(file, 'utf-8'));
    change(record);
    await writeFile(file, JSON.stringify(record));
  };

  test('a bundle that needs a newer ONNX Runtime', async () => {
    await edit((record) => (record.onnxruntime_minimum = '9.1'));
    await assert.rejects(
      openBundle(directory),
      raised(RuntimeError, 'onnxruntime_minimum', /needs ONNX Runtime 9\.1 or newer, and this is 1\.\d+/),
    );
  });

  test('a pinned bundle', async () => {
    const file = path.join(directory, 'manifest.json');
    const sha256 = createHash('sha256').update(await readFile(file)).digest('hex');
    await (await openBundle(directory, { sha256: sha256.toUpperCase() })).release();
    await edit((record) => (record.name = 'another'));
    await assert.rejects(openBundle(directory, { sha256 }), raised(BundleError, 'sha256', /not the bundle that was asked for/));
    await assert.rejects(openBundle(directory, { sha256: '12' }), raised(OptionError, 'sha256', /64 hexadecimal digits/));
  });

  for (const [name, open] of [['node', openBundle], ['wasm', (where) => openInWasm(new URL(`file://${where}/`))]]) {
    for (const [what, change, field] of [
      ['version', (r) => (r.format_version = 99), 'format_version'],
      ['sampling version', (r) => (r.sampling_version = null), 'sampling_version'],
      ['no config', (r) => delete r.config, 'config'],
      ['other sizes', (r) => (r.image_format.height = 9), 'image_format'],
      ['sampling that is a number', (r) => (r.sampling = 1), 'sampling'],
      ['half a sampling', (r) => (r.sampling = { temperature: 0.8, top_p: 1 }), 'sampling.top_k'],
      ['a negative temperature', (r) => (r.sampling = { temperature: -1, top_k: 0, top_p: 1 }), 'sampling.temperature'],
      ['examples in no file', (r) => (r.examples = { file: 'examples.png', names: ['a'] }), 'examples.file'],
      ['examples elsewhere', (r) => (r.examples = { file: '../examples.png', names: ['a'] }), 'examples.file'],
      ['examples without names', (r) => (r.examples = { file: 'weights.safetensors' }), 'examples.names'],
      ['a top-p of nothing', (r) => (r.sampling = { temperature: 1, top_k: 0, top_p: 0 }), 'sampling.top_p'],
      ['an unknown function', (r) => (r.classifier.function_to_apply = 'tanh'), 'classifier.function_to_apply'],
      ['values of no regression', (r) => (r.classifier.function_to_apply = 'none'), 'graphs.classify'],
      ['a release that is none', (r) => (r.onnxruntime_minimum = 'new'), 'onnxruntime_minimum'],
    ]) {
      test(`${name}: a manifest with ${what}`, async () => {
        await edit(change);
        await assert.rejects(open(directory), (error) => {
          assert.ok(error instanceof BundleError && error.field.startsWith(field), `${error.field}: ${error}`);
          return true;
        });
      });
    }

    test(`${name}: weights that were tampered with`, async () => {
      const file = path.join(directory, 'weights.safetensors');
      const bytes = await readFile(file);
      bytes[bytes.length - 5] ^= 1;
      await writeFile(file, bytes);
      const model = await open(directory);
      await assert.rejects(model.sample({ n: 1 }).images(), raised(BundleError, 'files.weights.safetensors.sha256'));
      await model.release();
    });

    test(`${name}: a graph that was cut short`, async () => {
      const file = path.join(directory, 'decode.onnx');
      await writeFile(file, (await readFile(file)).subarray(0, 1000));
      await writeFile(path.join(directory, 'decode_shared.onnx'), '');
      const model = await open(directory);
      await assert.rejects(model.sample({ n: 1 }).images(), (error) => {
        assert.ok(error instanceof BundleError && /^files\.decode(_shared)?\.onnx\.size$/.test(error.field), `${error}`);
        return true;
      });
      await model.release();
    });

    test(`${name}: files that are missing`, async () => {
      await rm(path.join(directory, 'score.onnx'));
      const model = await open(directory);
      await assert.rejects(model.score(PICTURE), raised(BundleError, 'files.score.onnx'));
      await model.release();
    });

    test(`${name}: graphs there are none of`, async () => {
      await edit((r) => delete r.graphs.complete);
      const model = await open(directory);
      await assert.rejects(model.completeOnce(PICTURE), raised(BundleError, 'graphs.complete', /--embed/));
      await model.release();
    });
  }

  test('a request starts from the sampling that the bundle recommends', async () => {
    const opened = async (change) => {
      await edit(change);
      return openBundle(directory);
    };
    const tokens = (model, options) => model.sample({ n: 3, seed: 4, ...options }).tokens();
    const plain = await openBundle(directory);
    assert.deepEqual(plain.sampling, { temperature: 1, topK: 0, topP: 1 });
    const none = await opened((r) => (r.sampling = null));
    assert.deepEqual(none.sampling, plain.sampling);
    const asked = { temperature: 0.5, topK: 3, topP: 0.9 };
    const model = await opened((r) => (r.sampling = { temperature: 0.5, top_k: 3, top_p: 0.9, later: 'more' }));
    assert.deepEqual(model.sampling, asked);
    assert.deepEqual(await tokens(model, {}), await tokens(plain, asked));
    assert.deepEqual(await tokens(model, { topP: undefined }), await tokens(plain, asked));
    assert.deepEqual(await tokens(model, { temperature: 2 }), await tokens(plain, { ...asked, temperature: 2 }));
    assert.deepEqual(await tokens(model, plain.sampling), await tokens(plain, {}));
    assert.notDeepEqual(await tokens(model, {}), await tokens(plain, {}));
    const request = { n: 2, keepRows: 3, seed: 1 };
    assert.deepEqual(await model.completeOnce(PICTURE, request), await plain.completeOnce(PICTURE, { ...request, ...asked }));
    await Promise.all([plain.release(), none.release(), model.release()]);
  });

  test('wasm: WebGPU that is not to be had', async () => {
    const where = new URL(`file://${directory}/`);
    await assert.rejects(openInWasm(where, { webgpu: 'yes' }), raised(OptionError, 'webgpu', /must be true, false or the module/));
    const model = await openInWasm(where, { webgpu: true }); // Node has none
    await assert.rejects(model.sample({ n: 1 }).images(), raised(RuntimeError, 'webgpu', /open the bundle without webgpu/));
    await model.release();
    await edit((r) => (r.precision = 'int4'));
    await assert.rejects(openInWasm(where, { webgpu: true }), raised(OptionError, 'webgpu', /in fp32 only/));
  });

  test('a file that is a link', async () => {
    await rm(path.join(directory, 'weights.safetensors'));
    await symlink(path.join(GOLDEN, 'weights.safetensors'), path.join(directory, 'weights.safetensors'));
    const model = await openBundle(directory);
    await assert.rejects(model.sample({ n: 1 }).images(), raised(BundleError, 'files.weights.safetensors', /regular file/));
  });

  test('a file name that is a path', async () => {
    await edit((r) => (r.graphs.decode.file = '../decode.onnx'));
    await assert.rejects(openBundle(directory), BundleError);
  });

  test('no bundle', async () => {
    await assert.rejects(openBundle(path.join(directory, 'nothing')), raised(BundleError, 'path', /no bundle at/));
    await assert.rejects(openBundle(7), raised(OptionError, 'path'));
    await assert.rejects(openBundle(directory, { threads: 0 }), raised(OptionError, 'threads'));
    await rm(path.join(directory, 'manifest.json'));
    await assert.rejects(openBundle(directory), raised(BundleError, 'path', /has no manifest.json/));
  });

  test('a provider there is none of', async () => {
    const model = await openBundle(directory, { executionProviders: ['nonsense'] });
    await assert.rejects(model.sample({ n: 1 }).images(), (error) => error instanceof BundleError || error instanceof RuntimeError);
  });
});
