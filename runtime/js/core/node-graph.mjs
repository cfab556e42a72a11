/**
 * A graph in onnxruntime-node, with outputs written over inputs.
 *
 * The package's `InferenceSession.run` writes outputs into the tensors it is given, but then returns a copy of each: the
 * whole cache at every step, which takes longer than the step. So this module calls the binding beneath, and keeps it
 * from making copies that nobody reads: it makes them with the Tensor class it was given, and one that throws ends that.
 * By then the outputs are where they belong. Where the binding is not as expected - another version, or onnxruntime-node
 * was in use before - it runs through `InferenceSession`, which gives the same tokens.
 */

import { createRequire } from 'node:module';

import { openWithCopies } from './copying-graph.mjs';

const NO_COPY = new Error('no copy is wanted'); // one for all: making one takes time

turnTelemetryOff();
const binding = findBinding();
let copies = true; // whether whoever runs the binding wants copies of its outputs

/** ONNX Runtime tells its makers nothing, unless the user has asked for that. It looks when it is loaded. */
function turnTelemetryOff() {
  if (!/^\s*(0|false|no|off|n)\s*$/i.test(process.env.ORT_DISABLE_TELEMETRY ?? '')) {
    process.env.ORT_DISABLE_TELEMETRY = '1';
  }
}

/** The binding, made to copy outputs only where that is wanted; undefined if it is not as expected. */
function findBinding() {
  try {
    const found = createRequire(import.meta.url)('onnxruntime-node/dist/binding.js');
    const { initOrtOnce, InferenceSession } = found.binding;
    const { loadModel, run, dispose } = InferenceSession.prototype;
    if ([found.initOrt, initOrtOnce, loadModel, run, dispose].some((part) => typeof part !== 'function')) {
      return undefined;
    }
    let replaced = false;
    found.binding.initOrtOnce = (level, Tensor, main) => {
      replaced = true;
      initOrtOnce(level, new Proxy(Tensor, { construct: makeTensor }), main);
    };
    found.initOrt();
    return replaced ? InferenceSession : undefined;
  } catch {
    return undefined;
  }
}

function makeTensor(Tensor, args) {
  if (!copies) {
    throw NO_COPY;
  }
  return Reflect.construct(Tensor, args);
}

/** Whether graphs are run through the binding. */
export function writesInPlace() {
  return binding !== undefined;
}

/**
 * Opens a graph, whose weights are mapped from their file.
 *
 * @param ort the module onnxruntime-node
 * @param {string | Uint8Array} graph its path, or its file's content
 * @param {object} options of the session
 * @returns {Promise<import('./bundle.mjs').Graph>}
 */
export async function openNodeGraph(ort, graph, options) {
  if (!binding) {
    return openWithCopies(ort, await ort.InferenceSession.create(graph, options));
  }
  const session = new binding();
  if (typeof graph === 'string') {
    session.loadModel(graph, options);
  } else {
    session.loadModel(graph.buffer, graph.byteOffset, graph.byteLength, options);
  }
  return {
    run: async (feeds, outputs) => session.run(feeds, Object.fromEntries(outputs.map((name) => [name, null])), {}),
    advance: (feeds, carried) => runInPlace(session, feeds, carried),
    forget: () => undefined,
    release: async () => session.dispose(),
  };
}

async function runInPlace(session, feeds, carried) {
  const fetches = {};
  for (const output in carried) {
    fetches[output] = feeds[carried[output]];
  }
  let running;
  copies = false;
  try {
    running = session.run(feeds, fetches, {}); // returns when it is done
  } catch (error) {
    if (error !== NO_COPY) {
      throw error;
    }
  } finally {
    copies = true;
  }
  await running; // should a version of the binding return before it is done
}
