/** What goes wrong outside of a bundle is not blamed on the bundle: each cause has its type, its words and its remedy. */

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { importRuntime } from '../core/host.mjs';
import { BundleError, RuntimeError, openBundle } from '../node.mjs';
import { openBundle as openInWeb } from '../web.mjs';
import { TINY } from './golden.mjs';
import { openInWasm } from './wasm.mjs';

const GOLDEN = fileURLToPath(TINY);
const SCORE = await readFile(path.join(GOLDEN, 'score.onnx'));
const PICTURE = { width: 2, height: 2, data: new Uint8Array(12) };

const raised = (type, field, pattern) => (error) => {
  assert.ok(error instanceof type, `${error}`);
  assert.equal(error.field, field);
  assert.match(error.message, pattern);
  assert.doesNotMatch(error.message, /[\r\n]/);
  assert.ok(error.message.length < 700);
  return true;
};

/** Of onnxruntime-web: sessions that are opened and run as told. */
const standIn = ({ create, run = () => ({}), release = () => undefined }) => ({
  env: { versions: { web: '1.30.0' }, wasm: {} },
  Tensor: class {},
  InferenceSession: {
    create: async (...args) => {
      await create?.(...args);
      return { run: async () => run(), release: async () => release() };
    },
  },
});
const fails = (error) => () => {
  throw error;
};

// What onnxruntime-web 1.30 and browsers were seen to say.
const NO_FETCH =
  'no available backend found. ERR: [wasm] RuntimeError: Aborted(both async and sync fetching of the wasm failed). ' +
  "Build with -sASSERTIONS for more info., [cpu] Error: previous call to 'initWasm()' failed.";
const NO_MODULE =
  'no available backend found. ERR: [wasm] TypeError: Failed to fetch dynamically imported module: ' +
  'http://localhost/ort/ort-wasm-simd-threaded.mjs';

describe('opening a graph', () => {
  for (const [error, type, field, pattern] of [
    [new Error(NO_FETCH), RuntimeError, 'onnxruntime-web', /onnxruntime-web cannot be loaded .*\.wasm files can be fetched/],
    [new Error(NO_MODULE), RuntimeError, 'onnxruntime-web', /onnxruntime-web cannot be loaded .*load the page again/],
    [
      new Error("previous call to 'initializeWebAssembly()' failed."), RuntimeError, 'onnxruntime-web', /cannot be loaded/,
    ],
    [
      new Error('no available backend found. ERR: [wasm] RangeError: WebAssembly.Memory(): could not allocate memory'),
      RuntimeError, 'score', /WebAssembly has not enough memory to open .*score\.onnx/,
    ],
    [new Error("Can't create a session. ERROR_CODE: 6, ERROR_MESSAGE: std::bad_alloc"), RuntimeError, 'score', /not enough memory/],
    [new Error('Can\'t create a session. failed to allocate a buffer of size 9.'), RuntimeError, 'score', /not enough memory/],
    [new RangeError('Array buffer allocation failed'), RuntimeError, 'score', /not enough memory/],
    [new RangeError('Invalid typed array length: 5000000000'), RuntimeError, 'score', /not enough memory/],
    [new Error('no available backend found. ERR: [xnnpack] backend not found.'), RuntimeError, 'executionProviders', /provider/],
    [new Error('first line\nsecond line'), RuntimeError, 'score', /\(first line\)/],
    [new Error('x'.repeat(5000)), RuntimeError, 'score', /xxx \.\.\. xxx/],
    [12345678, RuntimeError, 'score', /exception 12345678 in WebAssembly/],
    [undefined, RuntimeError, 'score', /\(undefined\)/],
    [new Error(''), RuntimeError, 'score', /\(Error\)/],
    [
      new Error("Can't create a session. ERROR_CODE: 7, ERROR_MESSAGE: Failed to load model because protobuf parsing failed."),
      BundleError, 'graphs.score', /cannot read .*score\.onnx .*export the bundle again/,
    ],
  ]) {
    test(`that fails with ${String(error).slice(0, 60).replace('\n', ' ')}`, async () => {
      const model = await openInWasm(TINY, { ort: standIn({ create: fails(error) }) });
      const caught = await model.score(PICTURE).catch((caught) => caught);
      assert.ok(raised(type, field, pattern)(caught));
      assert.equal(caught.cause, error);
      assert.equal(/export/.test(caught.message), type === BundleError);
      await model.release();
    });
  }

  test('on a GPU, where a graph may be none', async () => {
    const webgpu = standIn({ create: fails(new Error('Failed to load model because protobuf parsing failed.')) });
    const model = await openInWasm(TINY, { webgpu });
    await assert.rejects(model.sample({ n: 1 }).tokens(), raised(BundleError, 'graphs.decode', /export the bundle again/));
    await model.release();
    const none = standIn({ create: fails(new Error('no available backend found. ERR: [webgpu] Error: no adapter')) });
    const other = await openInWasm(TINY, { webgpu: none });
    await assert.rejects(other.sample({ n: 1 }).tokens(), raised(RuntimeError, 'webgpu', /open the bundle without webgpu/));
    await other.release();
  });
});

describe('running a graph', () => {
  for (const [error, pattern] of [
    [new Error('failed to call OrtRun(). ERROR_CODE: 6, ERROR_MESSAGE: std::bad_alloc'), /WebAssembly has not enough memory for/],
    [new Error('Failed to allocate memory for requested buffer of size 512000000000\n'), /not enough memory/],
    [987654, /failed in the score graph \(exception 987654 in WebAssembly\)/],
    [new Error('failed to call OrtRun(). ERROR_CODE: 2, ERROR_MESSAGE: a\nb'), /failed in the score graph .*ERROR_MESSAGE: a\)/],
    [new WebAssembly.RuntimeError('memory access out of bounds'), /failed in the score graph \(memory access out of bounds\)/],
  ]) {
    test(`that fails with ${String(error).slice(0, 60).replace('\n', ' ')}`, async () => {
      const model = await openInWasm(TINY, { ort: standIn({ run: fails(error) }) });
      await assert.rejects(model.score(PICTURE), raised(RuntimeError, 'score', pattern));
      await model.release();
    });
  }

  test('and closing it', async () => {
    const model = await openInWasm(TINY, { ort: standIn({ run: fails(1), release: fails(new Error('a\nb')) }) });
    await assert.rejects(model.score(PICTURE), RuntimeError);
    await assert.rejects(model.release(), raised(RuntimeError, 'score', /\(a\)/));
  });
});

describe('a bundle whose hashes are right', () => {
  let directory;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'igpt-causes-'));
    await cp(GOLDEN, directory, { recursive: true });
  });
  afterEach(() => rm(directory, { recursive: true }));

  const replace = async (name, bytes) => {
    await writeFile(path.join(directory, name), bytes);
    const file = path.join(directory, 'manifest.json');
    const record = JSON.parse(await readFile(file, 'utf-8'));
    record.files[name] = { size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
    await writeFile(file, JSON.stringify(record));
  };
  const wasm = () => openInWasm(new URL(`file://${directory}/`));

  for (const [host, open] of [['node', () => openBundle(directory)], ['wasm', wasm]]) {
    for (const [what, bytes] of [
      ['garbage', Buffer.from('garbage garbage')],
      ['nothing', Buffer.alloc(0)],
      ['its first part', SCORE.subarray(0, 3000)],
    ]) {
      test(`${host}: and a graph that is ${what}`, async () => {
        await replace('score.onnx', bytes);
        const model = await open();
        await assert.rejects(model.score(PICTURE), raised(BundleError, 'graphs.score', /cannot read .*export the bundle again/));
        await model.release();
      });
    }

    test(`${host}: and weights that are too short`, async () => {
      const weights = await readFile(path.join(GOLDEN, 'weights.safetensors'));
      await replace('weights.safetensors', weights.subarray(0, 1000));
      const model = await open();
      await assert.rejects(model.score(PICTURE), raised(RuntimeError, 'score', /cannot open .*score\.onnx/));
      await model.release();
    });

    test(`${host}: and an execution provider that there is none of`, async () => {
      const options = { executionProviders: ['nonsense'] };
      const model = await (host === 'node' ? openBundle(GOLDEN, options) : openInWasm(TINY, options));
      await assert.rejects(model.score(PICTURE), raised(RuntimeError, 'executionProviders', /provider/));
      await model.release();
    });

    test(`${host}: and a progress function that fails`, async () => {
      const progress = fails(new Error('mine'));
      const model = await (host === 'node' ? openBundle(GOLDEN, { progress }) : openInWasm(TINY, { progress }));
      await assert.rejects(model.score(PICTURE), /^Error: mine$/);
      await model.release();
    });
  }
});

describe('a server', () => {
  let address, answer;
  const server = createServer((request, response) => answer(request, response));
  before(async () => {
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    address = `http://127.0.0.1:${server.address().port}/`;
  });
  after(() => server.close());

  const send = async (request, response) => response.end(await readFile(path.join(GOLDEN, request.url)));
  const open = () => openInWeb(address, { ort: standIn({}) });

  test('without the file', async () => {
    answer = (_, response) => response.writeHead(404).end();
    await assert.rejects(open(), raised(BundleError, 'manifest', /http.*manifest\.json cannot be fetched \(404 Not Found\)/));
    answer = (request, response) => (/weights/.test(request.url) ? response.writeHead(503).end() : send(request, response));
    const model = await open();
    const pattern = /http.*weights\.safetensors cannot be fetched \(503 Service Unavailable\); check the address/;
    await assert.rejects(model.score(PICTURE), raised(BundleError, 'files.weights.safetensors', pattern));
  });

  test('that sends a page, or nothing', async () => {
    answer = (_, response) => response.end('\n<!doctype html><title>My app</title>');
    await assert.rejects(open(), raised(BundleError, 'manifest', /manifest\.json is a page and no manifest; check the address/));
    answer = (_, response) => response.writeHead(204).end();
    await assert.rejects(open(), raised(BundleError, 'manifest', /is not valid JSON/));
  });

  test('that breaks off', async () => {
    answer = async (request, response) => {
      if (!/weights/.test(request.url)) return send(request, response);
      response.writeHead(200, { 'Content-Length': 5000 }).write('some');
      setTimeout(() => response.destroy(), 50);
    };
    const model = await open();
    const pattern = /http.*weights\.safetensors was cut short .*try again/;
    await assert.rejects(model.score(PICTURE), raised(BundleError, 'files.weights.safetensors', pattern));
  });

  test('that is not there', async () => {
    const nowhere = openInWeb('http://127.0.0.1:1/', { ort: standIn({}) });
    await assert.rejects(nowhere, raised(BundleError, 'manifest', /http:\/\/127\.0\.0\.1:1\/manifest\.json cannot be fetched/));
  });
});

describe('a package', () => {
  const importing = (message, code) => importRuntime(fails(Object.assign(new Error(message), { code })), 'onnxruntime-node');

  test('that is not installed', async () => {
    const missing = importing("Cannot find package 'onnxruntime-node' imported from /a.mjs", 'ERR_MODULE_NOT_FOUND');
    await assert.rejects(missing, raised(RuntimeError, 'onnxruntime-node', /imported .*run: npm install onnxruntime-node/));
    const unmapped = importing("Failed to resolve module specifier 'onnxruntime-web/wasm'");
    await assert.rejects(unmapped, raised(RuntimeError, 'onnxruntime-node', /npm install/));
  });

  test('that is not for this system', async () => {
    const foreign = importing("/lib/libc.so.6: version `GLIBC_2.99' not found", 'ERR_DLOPEN_FAILED');
    await assert.rejects(foreign, raised(RuntimeError, 'onnxruntime-node', /cannot be loaded .*for this system/));
    const binding = importing("Cannot find module '../bin/napi-v6/sunos/x64/onnxruntime_binding.node'", 'MODULE_NOT_FOUND');
    await assert.rejects(binding, raised(RuntimeError, 'onnxruntime-node', /cannot be loaded/));
  });
});
