/** The model, off the page's thread: messages in, what was asked for and what is being drawn out. */

import { openBundle } from '/js/web.mjs';

/** onnxruntime-web for WebAssembly or WebGPU. */
async function load(kind) {
  let ort;
  try {
    ort = await import(`/ort/ort.${kind}.min.mjs`);
  } catch (error) {
    throw new Error(`onnxruntime-web cannot be loaded (${error.message}); is igpt-run web still running?`);
  }
  ort.env.wasm.wasmPaths = '/ort/';
  ort.env.wasm.numThreads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  return ort;
}

let model;
let running; // AbortController of the completions being drawn

const tasks = {
  async open({ url, onGpu }) {
    await model?.release();
    model = undefined;
    const ort = await load('wasm');
    const webgpu = onGpu && (await load('webgpu'));
    const progress = (done) => postMessage({ type: 'loading', ...done });
    const opened = await openBundle(url, { ort, webgpu, progress });
    model = opened;
    const { classifier, graphs } = model.manifest;
    const { size, sampling } = model;
    const threads = ort.env.wasm.numThreads;
    return { size, sampling, hasClasses: classifier !== null, draws: 'decode' in graphs, threads };
  },
  async look({ image }) {
    const tokens = await model.tokens(image);
    return { seen: model.images([tokens])[0], tokens };
  },
  async judge({ image }) {
    const classes = model.labels.length ? await model.classify(image) : [];
    const score = 'decode' in model.manifest.graphs ? await model.score(image) : undefined;
    return { classes, score };
  },
  async complete({ image, options }) {
    running = new AbortController();
    const run = model.complete(image, { ...options, seed: BigInt(options.seed), signal: running.signal });
    try {
      const palette = paletteOf();
      for await (const { position, tokens } of run) {
        postMessage({ type: 'step', position, tokens, colours: Array.from(tokens, (token) => palette[token]) });
      }
      return { tokens: await run.tokens() };
    } catch (error) {
      if (running.signal.aborted) return { stopped: true };
      throw error;
    } finally {
      running = undefined;
    }
  },
};

/** The colour of every token, [r, g, b]. */
function paletteOf() {
  const count = model.manifest.config.vocab_size - 1;
  const pixels = model.size.height * model.size.width;
  const colours = [];
  for (let first = 0; first < count; first += pixels) {
    const row = Array.from({ length: pixels }, (_, i) => Math.min(first + i, count - 1));
    const { data } = model.images([row])[0];
    for (let i = 0; i < Math.min(pixels, count - first); i++) colours.push([...data.subarray(3 * i, 3 * i + 3)]);
  }
  return colours;
}

addEventListener('message', async ({ data: { id, task, ...rest } }) => {
  if (task === 'stop') {
    running?.abort();
    return;
  }
  try {
    postMessage({ type: 'done', id, result: await tasks[task](rest) });
  } catch (error) {
    postMessage({ type: 'done', id, error: error?.message ?? String(error) });
  }
});
postMessage({ type: 'ready' });
