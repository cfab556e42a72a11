/** The key/value cache of some rows that begin alike, in the two forms that the decode graphs take. SPEC section 3. */

import { value } from './bundle.mjs';
import { OptionError } from './errors.mjs';
import { CACHE_TYPES, SHARED_CHANNELS, cacheNames } from './specs.mjs';

const SHARED_ROWS = 6; // from so many rows on, sharing the prefix is faster than a copy for each
const SHARED_PREFIX = 16; // from so many given tokens on

/**
 * Whether rows store what they have in common once.
 *
 * Where activations or slots are rounded to int8, the two decode graphs may round differently: one of them for any number
 * of rows draws the same pictures however many are drawn. Where the decode graphs do not write into the cache that they
 * are given, a step copies it, so that sharing always pays: a row's own cache then has no more slots than tokens.
 */
export function sharesPrefix(bundle, rows, length) {
  if (bundle.onGpu) {
    return false; // the prefix would be sent there at every step
  }
  const { precision, kv_cache: cache } = bundle.manifest;
  const rounds = precision === 'int8' || (precision === 'fp32' && cache === 'int8');
  const long = length >= SHARED_PREFIX;
  const pays = bundle.inPlace || rounds ? long && (rounds || rows >= SHARED_ROWS) : length > 0;
  return pays && bundle.has('decode_shared');
}

/**
 * A cache for the decode graph: a slot for every position of every row.
 *
 * @param {import('./bundle.mjs').Value[]} slots what prefill returned for the given tokens, [1, n_head, length, head];
 *     none if there are none
 * @returns {Record<string, import('./bundle.mjs').Value>} the graph's inputs
 */
export function separateCache(manifest, rows, slots) {
  const { n_layer: layers, n_head: heads, n_positions: positions, n_embd: width } = manifest.config;
  const head = width / heads;
  const feeds = {};
  cacheNames(layers, 'past_key_values').forEach((name, i) => {
    const tensor = zeros(manifest, [rows, heads, positions, head]);
    if (slots.length) {
      const length = slots[i].dims[2];
      const given = bits(slots[i]);
      for (let row = 0; row < rows; row++) {
        for (let h = 0; h < heads; h++) {
          const part = given.subarray(h * length * head, (h + 1) * length * head);
          tensor.data.set(part, (row * heads + h) * positions * head);
        }
      }
    }
    feeds[name] = tensor;
  });
  return feeds;
}

/**
 * A cache for the shared-prefix decode graph: the slots in common once, and those of each row's own tokens.
 *
 * @param {number} capacity slots of a row's own, with the sentinel. The present cache has one slot more than the past
 *     one if that is full.
 */
export function sharedCache(manifest, rows, slots, capacity) {
  const { n_layer: layers, n_head: heads, n_embd: width } = manifest.config;
  const head = width / heads;
  const channels = head + SHARED_CHANNELS;
  const feeds = {};
  cacheNames(layers, 'prefix').forEach((name, i) => {
    feeds[name] = i % 2 ? transposed(slots[i]) : value('float32', Float32Array.from(bits(slots[i])), slots[i].dims);
  });
  for (const name of cacheNames(layers, 'past_key_values')) {
    const tensor = zeros(manifest, [rows, heads, capacity, channels]);
    for (let row = 0; row < rows * heads; row++) {
      tensor.data[row * capacity * channels + head] = CACHE_TYPES[manifest.kv_cache].one;
    }
    feeds[name] = tensor;
  }
  return feeds;
}

/** The first `length` slots of a cache of one row, [1, n_head, capacity, head]. */
export function firstSlots(tensor, length) {
  const [, heads, capacity, head] = tensor.dims;
  const data = bits(tensor);
  const kept = new data.constructor(heads * length * head);
  for (let h = 0; h < heads; h++) {
    kept.set(data.subarray(h * capacity * head, (h * capacity + length) * head), h * length * head);
  }
  return value(tensor.type, kept, [1, heads, length, head]);
}

/** [1, heads, length, head] to float32 [1, heads, head, length]. */
function transposed(tensor) {
  const [, heads, length, head] = tensor.dims;
  const data = bits(tensor);
  const columns = new Float32Array(data.length);
  for (let h = 0; h < heads; h++) {
    const start = h * length * head;
    for (let slot = 0; slot < length; slot++) {
      for (let channel = 0; channel < head; channel++) {
        columns[start + channel * length + slot] = data[start + slot * head + channel];
      }
    }
  }
  return value('float32', columns, [1, heads, head, length]);
}

/** Portable attention multiplies empty slots by zero, which must not meet a NaN: they are zeros. */
function zeros(manifest, dims) {
  const { dtype, Values } = CACHE_TYPES[manifest.kv_cache];
  const size = dims.reduce((product, dim) => product * dim);
  try {
    return value(dtype, new Values(size), dims);
  } catch (error) {
    const gigabytes = (2 * manifest.config.n_layer * size * Values.BYTES_PER_ELEMENT) / 1e9;
    const message = `${dims[0]} samples need ${gigabytes.toFixed(1)} GB of cache, more than there is; draw fewer at once`;
    throw new OptionError(message, 'n', error);
  }
}

/** The data of a tensor; float16 as its bits, whatever array type holds it. */
function bits({ type, data }) {
  return type === 'float16' ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
}
