/** Names, types and shapes of every graph input and output. SPEC section 3. */

/** Channels that the shared-prefix graph's own cache has more than a head. */
export const SHARED_CHANNELS = 8;

/** What a cache holds by the manifest's `kv_cache`: NumPy's name of its type, and what holds its values here. */
export const CACHE_TYPES = {
  fp32: { dtype: 'float32', Values: Float32Array, one: 1 },
  int8: { dtype: 'int8', Values: Int8Array, one: 127 },
  fp16: { dtype: 'float16', Values: Uint16Array, one: 0x3c00 },
};

/**
 * Names of the cache tensors in order: key and value of block 0, key and value of block 1, ...
 *
 * @param {number} nLayer
 * @param {'past_key_values' | 'present' | 'prefix'} prefix
 */
export function cacheNames(nLayer, prefix) {
  return Array.from({ length: 2 * nLayer }, (_, i) => `${prefix}.${i >> 1}.${i % 2 ? 'value' : 'key'}`);
}

/**
 * Inputs and outputs of every graph that a bundle of such a model may have, by name.
 *
 * @param {{config: object, imageFormat: {height: number, width: number}, nLabels: number, isRegression: boolean,
 *     lmHead: boolean,
 *     cacheType: string}} model
 * @returns {Record<string, {inputs: Spec[], outputs: Spec[]}>} a Spec is [name, dtype, shape]; a string is a free dimension
 */
export function graphSpecs({ config, imageFormat, nLabels, isRegression, lmHead, cacheType }) {
  const { n_layer: layers, n_embd: width, n_positions: positions, n_head: heads } = config;
  const clusters = config.vocab_size - 1;
  const head = width / heads;
  const cache = (prefix, type, ...shapes) =>
    cacheNames(layers, prefix).map((name, i) => [name, type, shapes[i % shapes.length]]);

  const options = [['temperature', 'float32', []], ['top_k', 'int64', []], ['top_p', 'float32', []]];
  const step = [['input_ids', 'int64', ['batch', 'sequence']], ['past_length', 'int64', []]];
  const sampling = [['uniform', 'float32', ['batch']], ...options];
  const sampled = [['next_ids', 'int64', ['batch', 1]], ['logits', 'float32', ['batch', clusters]]];
  const slots = ['batch', heads, positions, head];
  const own = ['batch', heads, 'capacity', head + SHARED_CHANNELS];
  const prefix = cache('prefix', 'float32', [1, heads, 'prefix', head], [1, heads, head, 'prefix']);

  const image = [['image', 'uint8', ['image_height', 'image_width', 3]]];
  const images = ['images', 'uint8', ['batch', imageFormat.height, imageFormat.width, 3]];
  const rows = ['tokens', 'int64', ['batch', positions]];
  const request = [['keep_rows', 'int64', []], ['n', 'int64', []], ['seed', 'int64', []]];
  const features = [layers + 1, width];
  const stream = ['batch', 'sequence', width];
  return {
    prefill: {
      inputs: step.slice(0, 1),
      outputs: [
        ...(lmHead ? [['logits', 'float32', ['batch', 'sequence', clusters]]] : []),
        ...Array.from({ length: layers + 1 }, (_, i) => [`hidden_states.${i}`, 'float32', stream]),
        ['features', 'float32', ['batch', ...features]],
        ['normed_features', 'float32', ['batch', ...features]],
        ...(nLabels ? [['class_logits', 'float32', ['batch', nLabels]]] : []),
        ...cache('present', cacheType, ['batch', heads, 'sequence', head]),
      ],
    },
    decode: {
      inputs: [...step, ...cache('past_key_values', cacheType, slots), ...sampling],
      outputs: [...sampled, ...cache('present', cacheType, slots)],
    },
    decode_shared: {
      inputs: [
        ['input_ids', 'int64', ['batch', 1]],
        step[1],
        ...prefix,
        ...cache('past_key_values', cacheType, own),
        ...sampling,
      ],
      outputs: [...sampled, ...cache('present', cacheType, own)],
    },
    preprocess: { inputs: image, outputs: [['tokens', 'int64', [positions]]] },
    postprocess: { inputs: [rows], outputs: [images] },
    complete: { inputs: [...image, ...request, ...options], outputs: [images, rows] },
    classify: { inputs: image, outputs: [[isRegression ? 'values' : 'probabilities', 'float32', [nLabels]]] },
    features: { inputs: image, outputs: [['features', 'float32', features]] },
    score: {
      inputs: image,
      outputs: [
        ['nats', 'float32', [imageFormat.height, imageFormat.width]],
        ['nats_per_token', 'float32', []],
      ],
    },
  };
}

/** Whether the manifest's record of tensors is that of `specs`, whatever its free dimensions are called. */
export function matches(tensors, specs) {
  return (
    tensors.length === specs.length &&
    specs.every(([name, dtype, shape], i) => {
      const tensor = tensors[i];
      return (
        tensor.name === name &&
        tensor.dtype === dtype &&
        tensor.shape.length === shape.length &&
        shape.every((size, axis) =>
          typeof size === 'string' ? typeof tensor.shape[axis] === 'string' : tensor.shape[axis] === size,
        )
      );
    })
  );
}
