/** The model, off the page's thread: messages in, what was asked for and what is being drawn out. */

import { imageOf, openBundle } from '/js/web.mjs';
import { savedScale } from './canvas.mjs';
import { filmOf } from './film.mjs';
import { encodeGif } from './gif.mjs';

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
let openings = 0; // so that an overtaken one is dropped
let running; // AbortController of the completions being drawn

const tasks = {
  async open({ url, onGpu }) {
    const mine = ++openings;
    const before = model;
    model = undefined;
    await before?.release();
    const ort = await load('wasm');
    const webgpu = onGpu && (await load('webgpu'));
    const progress = (done) => mine === openings && postMessage({ type: 'loading', ...done });
    const opened = await openBundle(url, { ort, webgpu, progress });
    if (mine !== openings) {
      await opened.release();
      throw new Error('another model was chosen meanwhile');
    }
    model = opened;
    const { graphs, examples } = model.manifest;
    const { size, sampling } = model;
    return { size, sampling, palette: paletteOf(), examples: examples ?? null, draws: 'decode' in graphs };
  },
  async look({ image }) {
    return model.tokens(await pixelsOf(image));
  },
  async judge({ image: given }) {
    const image = await pixelsOf(given);
    const classes = model.labels.length ? await model.classify(image) : [];
    const score = 'decode' in model.manifest.graphs ? await model.score(image) : undefined;
    return { classes, score, notices: score ? noticesOf(score.nats) : [] };
  },
  async complete({ image, options }) {
    running = new AbortController();
    const { signal } = running;
    const pixels = await pixelsOf(image);
    const run = model.complete(pixels, { ...options, seed: BigInt(options.seed), signal });
    try {
      for await (const { position, tokens } of run) postMessage({ type: 'step', position, tokens });
      return { tokens: await run.tokens() };
    } catch (error) {
      if (signal.aborted) return { stopped: true };
      throw error;
    } finally {
      running = undefined;
    }
  },
  async gif(completions) {
    const { size, frames } = filmOf(completions);
    return encodeGif(size, frames, savedScale(size));
  },
};

/** By the number of rows that are kept: a line that says that they are unlike what the model was trained on, else null. */
function noticesOf(nats) {
  const { height, width } = model.size;
  return Array.from({ length: height }, (_, rows) => model.likeness(nats.subarray(0, rows * width))?.notice ?? null);
}

/** A picture's pixels. A file is decoded here: a large one would keep the page's thread busy. */
function pixelsOf(image) {
  return image instanceof Blob ? imageOf(image) : image;
}

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
    postMessage({ type: 'done', id, error: error?.message ?? String(error), field: error?.field });
  }
});
postMessage({ type: 'ready' });
