/** Bundles in browsers: files are fetched, graphs run in onnxruntime-web. */

import { BundleError, ImageError, OptionError, RuntimeError, reason } from './core/errors.mjs';
import { checkHash, checkPinned, checkSize, hostOptions, importRuntime, sessionOptions } from './core/host.mjs';
import { MANIFEST_FILE, MAX_MANIFEST_BYTES, WEIGHTS_FILE } from './core/manifest.mjs';
import { Model } from './core/model.mjs';
import { isNoGraph, isOutOfMemory } from './core/ort-errors.mjs';
import { openWithCopies } from './core/copying-graph.mjs';
import { shown } from './core/options.mjs';

export { BundleError, IgptError, ImageError, OptionError, RuntimeError } from './core/errors.mjs';

export async function openBundle(url, options = {}) {
  const settings = hostOptions(options, ['wasm'], ['ort', 'webgpu']);
  const base = addressOf(url);
  const ort = options.ort ?? (await importRuntime(() => import('onnxruntime-web/wasm'), 'onnxruntime-web'));
  const gpu = await gpuRuntime(options.webgpu);
  if (settings.threads !== undefined) {
    ort.env.wasm.numThreads = settings.threads; // of all sessions there will be: it counts when the first one is opened
  }
  const model = await Model.open({
    where: base.href,
    library: 'onnxruntime-web',
    memory: gpu ? 'the browser' : 'WebAssembly',
    mapsWeights: false,
    inPlace: false,
    onGpu: gpu !== undefined,
    release: ort.env?.versions?.web,
    manifestText: async () => {
      const manifest = new URL(MANIFEST_FILE, base);
      const bytes = await fetched(manifest, 'manifest', MAX_MANIFEST_BYTES);
      if (settings.sha256 !== undefined) {
        checkPinned(manifest.href, await sha256Of(bytes, manifest), settings.sha256);
      }
      const text = new TextDecoder('utf-8').decode(bytes);
      if (/^\s*</.test(text)) {
        // What many servers send instead of "not found".
        throw new BundleError(`${manifest.href} is a page and no manifest; check the address`, 'manifest');
      }
      return text;
    },
    file: (name, record) => checkedFile(new URL(encodeURIComponent(name), base), name, record, settings),
    open: async (graph, weights, how) => {
      const session = { ...sessionOptions(settings, how), externalData: [{ path: WEIGHTS_FILE, data: weights }] };
      if (gpu && how.carried.length) {
        return openOnGpu(gpu, graph, session, how.carried);
      }
      return alone(openWithCopies(ort, await exclusively(() => ort.InferenceSession.create(graph, session))));
    },
    turn: () => new Promise(afterEvents),
  });
  const { precision, kv_cache: cache } = model.manifest;
  if (gpu && (precision !== 'fp32' || cache !== 'fp32')) {
    await model.release();
    const message = `WebGPU decodes in fp32 only, and ${base.href} is in ${precision} with a cache in ${cache}; open it without webgpu`;
    throw new OptionError(message, 'webgpu');
  }
  return model;
}

/** What decodes on the GPU, a runtime of its own as it lacks kernels that pictures need; undefined if nothing shall. */
async function gpuRuntime(webgpu = false) {
  if (webgpu === true) {
    return importRuntime(() => import('onnxruntime-web/webgpu'), 'onnxruntime-web');
  }
  if (webgpu !== false && !webgpu?.InferenceSession) {
    throw new OptionError(`webgpu must be true, false or the module onnxruntime-web/webgpu, got ${shown(webgpu)}`, 'webgpu');
  }
  return webgpu || undefined;
}

/** A decode graph whose cache, the outputs `carried`, stays on the GPU. */
async function openOnGpu(gpu, graph, session, carried) {
  const preferredOutputLocation = Object.fromEntries(carried.map((name) => [name, 'gpu-buffer']));
  const settings = { ...session, executionProviders: ['webgpu'], preferredOutputLocation };
  try {
    return alone(openWithCopies(gpu, await exclusively(() => gpu.InferenceSession.create(graph, settings))));
  } catch (error) {
    if (isNoGraph(error) || isOutOfMemory(error)) {
      throw error; // it has nothing to do with WebGPU
    }
    throw new RuntimeError(`WebGPU cannot be used (${reason(error)}); open the bundle without webgpu`, 'webgpu', error);
  }
}

export async function imageOf(source) {
  if (typeof ImageData !== 'undefined' && source instanceof ImageData) {
    return source;
  }
  let drawn = source;
  if (source instanceof Blob) {
    try {
      // Profiles are ignored, and transparent colours kept as they are: this package lays them over white.
      drawn = await createImageBitmap(source, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
    } catch (error) {
      throw new ImageError(`the picture cannot be decoded (${reason(error)}); give a PNG, JPEG or WebP`, 'image', error);
    }
  }
  const [width, height] = [drawn?.naturalWidth ?? drawn?.width, drawn?.naturalHeight ?? drawn?.height];
  if (!(width >= 1 && height >= 1)) {
    throw new ImageError(`a picture is a Blob, ImageBitmap, image or canvas with pixels, got ${shown(source)}`, 'image');
  }
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.drawImage(drawn, 0, 0);
  if (drawn !== source) {
    drawn.close();
  }
  return context.getImageData(0, 0, width, height);
}

function addressOf(url) {
  if (typeof url !== 'string' && !(url instanceof URL)) {
    throw new OptionError(`the bundle must be a URL, got ${shown(url)}`, 'url');
  }
  try {
    const base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    if (!base.pathname.endsWith('/')) {
      base.pathname += '/'; // a bundle is a directory: its files are below it
    }
    return base;
  } catch (error) {
    throw new OptionError(`${shown(url)} is no URL; give the address of the bundle's directory`, 'url', error);
  }
}

/** SHA-256 of what was fetched, in hexadecimal. */
async function sha256Of(bytes, url) {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) {
    const remedy = 'serve the page over https or from localhost, or open the bundle with verify: false and no sha256';
    throw new RuntimeError(`${url.href} cannot be verified: this page has no crypto.subtle; ${remedy}`, 'verify');
  }
  let digest;
  try {
    digest = new Uint8Array(await subtle.digest('SHA-256', bytes));
  } catch (error) {
    throw new RuntimeError(`${url.href} cannot be verified (${reason(error)}); free some memory`, 'verify', error);
  }
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

async function checkedFile(url, name, record, { verify, progress }) {
  const bytes = await fetched(url, `files.${name}`, record.size, (loaded) =>
    progress?.({ file: name, loaded, total: record.size }),
  );
  checkSize(url.href, name, bytes.length, record);
  if (verify) {
    checkHash(url.href, name, await sha256Of(bytes, url), record);
  }
  return bytes;
}

/** The bytes at an address, of which there must be no more than `most`. */
async function fetched(url, field, most, progress) {
  const cannot = (why, error) =>
    new BundleError(`${url.href} cannot be fetched (${why}); check the address and the connection`, field, error);
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw cannot(reason(error), error);
  }
  if (!response.ok) {
    throw cannot(`${response.status} ${response.statusText}`.trim());
  }
  const chunks = [];
  let loaded = 0;
  const reader = response.body?.getReader(); // an empty answer may have none
  const next = async () => {
    try {
      return (await reader?.read()) ?? { done: true };
    } catch (error) {
      throw new BundleError(`${url.href} was cut short (${reason(error)}); try again`, field, error);
    }
  };
  for (let chunk = await next(); !chunk.done; chunk = await next()) {
    chunks.push(chunk.value);
    loaded += chunk.value.length;
    if (loaded > most) {
      await reader.cancel();
      throw new BundleError(`${url.href} has more than ${most} bytes; copy or export the bundle again`, field);
    }
    progress?.(loaded);
  }
  return joined(chunks, loaded, url);
}

function joined(chunks, size, url) {
  let bytes;
  try {
    bytes = new Uint8Array(size);
  } catch (error) {
    const message = `the browser has not enough memory for the ${size} bytes of ${url.href} (${reason(error)})`;
    throw new RuntimeError(`${message}; free some, or use a smaller bundle`, 'memory', error);
  }
  let place = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, place);
    place += chunk.length;
  }
  return bytes;
}

let running = Promise.resolve();

/** Runs tasks one after the other: onnxruntime-web has one stack and one list of mounted files for all its sessions. */
function exclusively(task) {
  const result = running.then(task);
  running = result.catch(() => undefined);
  return result;
}

/** A graph that is never used while another one is. */
function alone(graph) {
  return {
    run: (feeds, outputs) => exclusively(() => graph.run(feeds, outputs)),
    advance: (feeds, carried) => exclusively(() => graph.advance(feeds, carried)),
    forget: (feeds) => graph.forget(feeds),
    release: () => exclusively(() => graph.release()),
  };
}

/** Calls back once the events that wait have been handled; a timer would be late by milliseconds at every step. */
function afterEvents(callback) {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    callback();
  };
  port2.postMessage(null);
}
