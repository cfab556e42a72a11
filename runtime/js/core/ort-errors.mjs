/**
 * What ONNX Runtime raises, as one of this package's errors. Its own have no types: what happened is in their words, and
 * in WebAssembly some are mere numbers.
 */

import { BundleError, IgptError, RuntimeError, reason } from './errors.mjs';

const NO_MEMORY =
  /bad_alloc|failed to allocate|could not allocate|can't allocate|allocation failed|out of memory|cannot enlarge memory|invalid (typed )?array (buffer )?length/i;
const NOT_READ =
  /protobuf parsing failed|no graph was found in the protobuf|ModelProto does not have a graph|model data pointer is null/i;
const NO_PROVIDER =
  /backend not found|executionProviders\[|failed to load shared library|AppendExecutionProvider|no available backend|adapter/i;
// What onnxruntime-web says if its WebAssembly cannot be fetched or started, now or when it was tried before.
const NO_LIBRARY = /\[(wasm|cpu)\] (?!backend not found)|'init(Wasm|ializeWebAssembly)\(\)' failed/;

/** Whether memory ran out. */
export function isOutOfMemory(error) {
  return NO_MEMORY.test(wordsOf(error));
}

/** Whether a graph's file is none. */
export function isNoGraph(error) {
  return NOT_READ.test(wordsOf(error));
}

function wordsOf(error) {
  return String(error?.message ?? error);
}

/**
 * Why a graph cannot be opened.
 *
 * @param {unknown} error what was raised
 * @param {{library: string, memory: string}} host see `Host`
 * @param {string} file the graph's path or address
 * @param {string} name of the graph
 * @returns {IgptError}
 */
export function openingFailed(error, { library, memory }, file, name) {
  if (error instanceof IgptError) {
    return error;
  }
  const why = reason(error);
  if (isOutOfMemory(error)) {
    const remedy = 'free some, or use a smaller bundle';
    return new RuntimeError(`${memory} has not enough memory to open ${file} (${why}); ${remedy}`, name, error);
  }
  if (isNoGraph(error)) {
    return new BundleError(`ONNX Runtime cannot read ${file} (${why}); export the bundle again`, `graphs.${name}`, error);
  }
  if (NO_LIBRARY.test(wordsOf(error))) {
    const remedy = 'see that its .mjs and .wasm files can be fetched, and load the page again';
    return new RuntimeError(`${library} cannot be loaded (${why}); ${remedy}`, library, error);
  }
  if (NO_PROVIDER.test(wordsOf(error))) {
    const remedy = 'install what it needs, or leave executionProviders out';
    return new RuntimeError(`an execution provider is not to be had (${why}); ${remedy}`, 'executionProviders', error);
  }
  const remedy = `check the release of ${library} and the execution providers`;
  return new RuntimeError(`ONNX Runtime cannot open ${file} (${why}); ${remedy}`, name, error);
}

/** Why a graph that was opened failed. Parameters and result are as those of `openingFailed`. */
export function runningFailed(error, { memory }, name) {
  const why = reason(error);
  if (isOutOfMemory(error)) {
    const remedy = 'draw fewer at once, or use a smaller bundle';
    return new RuntimeError(`${memory} has not enough memory for the ${name} graph (${why}); ${remedy}`, name, error);
  }
  return new RuntimeError(`ONNX Runtime failed in the ${name} graph (${why}); open the bundle again`, name, error);
}
