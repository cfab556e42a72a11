/** The manifest: what a bundle's `manifest.json` says, read with every field that this package uses checked. */

import { BundleError } from './errors.mjs';
import { recommendedSampling, samplingProblem, shown } from './options.mjs';
import { CACHE_TYPES, graphSpecs, matches } from './specs.mjs';

export const MANIFEST_FILE = 'manifest.json';
export const WEIGHTS_FILE = 'weights.safetensors';
export const MAX_MANIFEST_BYTES = 16 << 20;

const VERSIONS = { format_version: 7, sampling_version: 1 };
const PROTOCOLS = ['paper', 'hf'];
const FUNCTIONS = ['softmax', 'sigmoid', 'none'];
const PRECISIONS = ['fp32', 'int8', 'int4', 'fp16'];
export const SHA256 = /^[0-9a-f]{64}$/;
const RELEASE = /^(\d{1,4})\.(\d{1,4})$/;

/** Names of files that lie directly in the bundle: no path, whatever the system's separator. */
export function isFileName(name) {
  return typeof name === 'string' && !/[/\\:\0]/.test(name) && !['', '.', '..'].includes(name);
}

/**
 * Parses `manifest.json`.
 *
 * @param {string} text its contents
 * @param {string} where its path or address, for errors
 * @returns the record as it stands there, frozen
 * @throws {BundleError} it is not JSON, is of another version, or a field is missing or malformed
 */
export function parseManifest(text, where) {
  let record;
  try {
    record = JSON.parse(text);
  } catch (error) {
    throw new BundleError(`${where} is not valid JSON (${error.message}); export the bundle again`, 'manifest', error);
  }
  const check = checker(where);
  check(isObject(record), 'manifest', 'is not a JSON object');
  for (const [field, known] of Object.entries(VERSIONS)) {
    if (record[field] !== known) {
      throw new BundleError(
        `${where} has ${field} ${shown(record[field])}, this igpt-onnx reads ${known}; ` +
          'install the matching igpt-onnx or export the bundle again',
        field,
      );
    }
  }
  check(typeof record.name === 'string', 'name', 'is not text');
  checkConfig(record, check);
  checkPrecision(record, check);
  checkImageFormat(record, check);
  checkClassifier(record, check);
  checkSampling(record, check);
  checkMinimum(record, check);
  checkFiles(record, check);
  checkLikelihood(record, check);
  checkExamples(record, check);
  checkGraphs(record, check);
  return frozen(record);
}

/** A function that raises BundleError for the field unless its condition holds. */
function checker(where) {
  return (holds, field, reason) => {
    if (!holds) {
      throw new BundleError(`${where}: ${field} ${reason}; export the bundle again`, field);
    }
  };
}

function checkConfig({ config, sos }, check) {
  check(isObject(config), 'config', 'is missing');
  for (const name of ['vocab_size', 'n_positions', 'n_embd', 'n_layer', 'n_head']) {
    check(isCount(config[name]), `config.${name}`, `is ${shown(config[name])}, not a positive whole number`);
  }
  check(config.n_embd % config.n_head === 0, 'config.n_embd', 'is not a multiple of config.n_head');
  check(sos === config.vocab_size - 1, 'sos', `is ${shown(sos)}, not config.vocab_size - 1`);
}

function checkPrecision({ precision, kv_cache: cache }, check) {
  check(PRECISIONS.includes(precision), 'precision', `is ${shown(precision)}, not one of ${PRECISIONS.join(', ')}`);
  const caches = Object.keys(CACHE_TYPES);
  check(caches.includes(cache), 'kv_cache', `is ${shown(cache)}, not one of ${caches.join(', ')}`);
  check((precision === 'fp16') === (cache === 'fp16'), 'kv_cache', `is ${cache} with precision ${precision}`);
}

function checkImageFormat({ image_format: form, config }, check) {
  check(isObject(form), 'image_format', 'is missing');
  for (const name of ['height', 'width']) {
    check(isCount(form[name]), `image_format.${name}`, `is ${shown(form[name])}, not a positive whole number`);
  }
  check(
    form.height * form.width === config.n_positions,
    'image_format.height',
    `x width, ${form.height}x${form.width}, is not config.n_positions`,
  );
  const { clusters } = form;
  const field = 'image_format.clusters';
  check(Array.isArray(clusters) && clusters.length === config.vocab_size - 1, field, 'has not a colour for every token');
  for (const colour of clusters) {
    check(Array.isArray(colour) && colour.length === 3 && colour.every(Number.isFinite), field, 'holds what is no colour');
  }
}

function checkClassifier({ classifier, config }, check) {
  check(classifier === null || isObject(classifier), 'classifier', 'is missing');
  if (classifier !== null) {
    const { labels, layers, protocol, function_to_apply: applied } = classifier;
    const named = Array.isArray(labels) && labels.length > 0 && labels.every((label) => typeof label === 'string');
    check(named, 'classifier.labels', 'is not a list of names');
    const isLayer = (layer) => Number.isInteger(layer) && layer >= 0 && layer <= config.n_layer;
    const known = Array.isArray(layers) && layers.length > 0 && layers.every(isLayer);
    check(known, 'classifier.layers', `are ${shown(layers)}, not some of 0 .. ${config.n_layer}`);
    check(PROTOCOLS.includes(protocol), 'classifier.protocol', `is ${shown(protocol)}, not one of ${PROTOCOLS.join(', ')}`);
    const field = 'classifier.function_to_apply';
    check(FUNCTIONS.includes(applied), field, `is ${shown(applied)}, not one of ${FUNCTIONS.join(', ')}`);
  }
}

function checkSampling({ sampling }, check) {
  check(sampling === undefined || sampling === null || isObject(sampling), 'sampling', 'is no record of options');
  const [name, problem] = samplingProblem(recommendedSampling({ sampling })) ?? [];
  check(name === undefined, `sampling.${{ topK: 'top_k', topP: 'top_p' }[name] ?? name}`, problem);
}

function checkMinimum({ onnxruntime_minimum: minimum }, check) {
  const known = minimum === null || (typeof minimum === 'string' && RELEASE.test(minimum));
  check(known, 'onnxruntime_minimum', `is ${shown(minimum)}, not a release like 1.25`);
}

function checkLikelihood({ likelihood, image_format: form }, check) {
  if (likelihood === null || likelihood === undefined) return;
  check(isObject(likelihood) && typeof likelihood.pictures === 'string', 'likelihood.pictures', 'is not text');
  const { by_rows: rows } = likelihood;
  const rising = ([low, median, high]) => 0 <= low && low <= median && median <= high;
  const known = Array.isArray(rows) && rows.length === form.height;
  const whole = known && rows.every((row) => Array.isArray(row) && row.length === 3 && row.every(Number.isFinite));
  check(whole && rows.every(rising), 'likelihood.by_rows', `has not three rising numbers for each of ${form.height} rows`);
}

function checkExamples({ examples, files }, check) {
  if (examples === null || examples === undefined) return;
  check(isObject(examples), 'examples', 'is not an object');
  const { file, names } = examples;
  check(Object.hasOwn(files, file), 'examples.file', `is ${shown(file)}, which is not among files`);
  const texts = Array.isArray(names) && names.length > 0 && names.every((name) => typeof name === 'string');
  check(texts, 'examples.names', 'is not a list of names');
}

/** Whether a classifier gives values instead of probabilities. */
export function isRegression({ function_to_apply: name }) {
  return name === 'none';
}

function checkFiles({ files }, check) {
  check(isObject(files), 'files', 'is missing');
  for (const [name, file] of Object.entries(files)) {
    check(isFileName(name), `files.${name}`, 'is not the name of a file in the bundle');
    check(isObject(file) && Number.isSafeInteger(file.size) && file.size >= 0, `files.${name}.size`, 'is no size');
    check(typeof file.sha256 === 'string' && SHA256.test(file.sha256), `files.${name}.sha256`, 'is no SHA-256');
  }
  check(Object.hasOwn(files, WEIGHTS_FILE), 'files', `lacks ${WEIGHTS_FILE}`);
}

function checkGraphs(record, check) {
  const { graphs, files, config, classifier, precision } = record;
  check(isObject(graphs), 'graphs', 'is missing');
  check(isObject(graphs.prefill), 'graphs.prefill', 'is missing');
  for (const [name, graph] of Object.entries(graphs)) {
    const field = `graphs.${name}`;
    check(isObject(graph), field, 'is no record of a graph');
    check(isFileName(graph.file), `${field}.file`, `is ${shown(graph.file)}, not the name of a file in the bundle`);
    check(Object.hasOwn(files, graph.file), `${field}.file`, `is ${graph.file}, which is not among files`);
    for (const side of ['inputs', 'outputs']) {
      check(Array.isArray(graph[side]) && graph[side].every(isTensor), `${field}.${side}`, 'is not a list of tensors');
    }
  }
  const specs = graphSpecs({
    config,
    imageFormat: record.image_format,
    nLabels: classifier === null ? 0 : classifier.labels.length,
    isRegression: classifier !== null && isRegression(classifier),
    lmHead: graphs.prefill.outputs.some(({ name }) => name === 'logits'),
    cacheType: CACHE_TYPES[record.kv_cache].dtype,
  });
  for (const [name, spec] of Object.entries(specs)) {
    const graph = graphs[name];
    const same = !graph || (matches(graph.inputs, spec.inputs) && matches(graph.outputs, spec.outputs));
    check(same, `graphs.${name}`, 'is not the graph of this config and classifier');
  }
  check(precision !== 'fp16' || !graphs.decode_shared, 'graphs.decode_shared', 'is not a graph of fp16');
}

function isTensor(tensor) {
  return isObject(tensor) && Array.isArray(tensor.shape);
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value) {
  return Number.isSafeInteger(value) && value > 0;
}

function frozen(value) {
  if (typeof value === 'object' && value !== null) {
    Object.values(value).forEach(frozen);
    Object.freeze(value);
  }
  return value;
}
