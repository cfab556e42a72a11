/** The generation loop: prefill once, share what was given among the samples, decode token by token. */

import { value } from './bundle.mjs';
import { firstSlots, separateCache, sharedCache, sharesPrefix } from './cache.mjs';
import { OptionError } from './errors.mjs';
import { drawUniforms } from './random.mjs';
import { cacheNames } from './specs.mjs';

/**
 * A request for samples. Iterate over it for the tokens of one position after the other, or ask for the whole; nothing
 * is drawn before either. Documented in ../index.d.ts.
 */
export class Run {
  #rows; // Int32Array [n_positions] of each sample
  #steps;
  #paint;
  #position = 0; // up to which the rows are drawn
  #failure;

  /**
   * Use `Model.complete`, `sample` or `generate`.
   *
   * @param {import('./bundle.mjs').Bundle} bundle
   * @param {() => Promise<Int32Array>} primer the first tokens of the picture, without sos
   * @param {object} options as `samplingOptions` returns them
   * @param {(rows: Int32Array[]) => object[]} paint tokens to pictures
   */
  constructor(bundle, primer, options, paint) {
    const { n_positions: positions } = bundle.manifest.config;
    this.#rows = Array.from({ length: options.n }, () => new Int32Array(positions));
    this.#paint = paint;
    this.#steps = this.#draw(bundle, primer, options);
  }

  [Symbol.asyncIterator]() {
    return this.#steps;
  }

  async tokens() {
    while (!(await this.#steps.next()).done);
    if (this.#failure) {
      throw this.#failure.error;
    }
    const positions = this.#rows[0].length;
    if (this.#position < positions) {
      const message = `the run was left at position ${this.#position} of ${positions}; iterate to the end, or start anew`;
      throw new OptionError(message, 'run');
    }
    return this.#rows.map((row) => row.slice());
  }

  async images() {
    return this.#paint(await this.tokens());
  }

  async *#draw(bundle, primer, options) {
    try {
      options.signal?.throwIfAborted();
      const given = await primer();
      this.#rows.forEach((row) => row.set(given));
      this.#position = given.length;
      const total = options.n * (this.#rows[0].length - given.length);
      let drawn = 0;
      for await (const tokens of decode(bundle, given, options)) {
        const position = this.#position++;
        tokens.forEach((token, sample) => (this.#rows[sample][position] = token));
        drawn += tokens.length;
        options.progress?.({ position, drawn, total });
        yield { position, tokens };
      }
    } catch (error) {
      this.#failure = { error };
      throw error;
    }
  }
}

/** Streams the tokens that follow `primer`, an Int32Array [n] for each position up to the last one. */
async function* decode(bundle, primer, options) {
  const { manifest } = bundle;
  const { n_positions: positions } = manifest.config;
  let position = primer.length;
  if (position === positions) {
    return;
  }
  let slots = [];
  let last = [position ? primer[position - 1] : manifest.sos];
  if (position) {
    slots = await bundle.using('prefill', (graph) => prefill(graph, manifest, primer));
  } else if (sharesPrefix(bundle, options.n, 1)) {
    // The shared-prefix graph needs a prefix: sos, once the other graph has drawn what follows it.
    ({ slots, last } = await bundle.using('decode', (graph) => afterSos(graph, manifest, options)));
    yield Int32Array.from(last);
    position = 1;
  }
  const shared = sharesPrefix(bundle, options.n, position);
  const [graph, letGo] = await bundle.lease(shared ? 'decode_shared' : 'decode');
  let step;
  try {
    const cache = shared
      ? sharedCache(manifest, options.n, slots, bundle.inPlace ? positions - position + 1 : 1)
      : separateCache(manifest, options.n, slots);
    slots = []; // what a graph returned may be large, and the cache has it
    step = new DecodeStep(graph, manifest, cache, options, last);
    for (; position < positions; position++) {
      await bundle.turn();
      options.signal?.throwIfAborted();
      yield await step.draw(position);
    }
  } finally {
    step?.end();
    await letGo();
  }
}

/** The cache of sos and all of `primer` but its last token, which the first decode step feeds. */
async function prefill(graph, { config, sos }, primer) {
  const inputs = BigInt64Array.from([sos, ...primer.subarray(0, -1)], BigInt);
  const names = cacheNames(config.n_layer, 'present');
  const outputs = await graph.run({ input_ids: value('int64', inputs, [1, inputs.length]) }, names);
  return names.map((name) => outputs[name]);
}

/** The cache of sos alone, and each sample's first token: drawn one by one, for the decode graph's cache is large. */
async function afterSos(graph, manifest, options) {
  const names = cacheNames(manifest.config.n_layer, 'present');
  const feeds = { ...stepInputs(options, 1), ...separateCache(manifest, 1, []) };
  feeds.input_ids.data[0] = BigInt(manifest.sos);
  const uniforms = new Float32Array(options.n);
  drawUniforms(options.seed, 0, uniforms);
  let slots;
  const last = [];
  for (const uniform of uniforms) {
    feeds.uniform.data[0] = uniform;
    const outputs = await graph.run(feeds, slots ? ['next_ids'] : ['next_ids', ...names]);
    slots ??= names.map((name) => firstSlots(outputs[name], 1));
    last.push(Number(outputs.next_ids.data[0]));
  }
  return { slots, last };
}

/** The inputs of a decode graph but its cache. */
function stepInputs({ temperature, topK, topP }, rows) {
  return {
    input_ids: value('int64', new BigInt64Array(rows), [rows, 1]),
    past_length: value('int64', new BigInt64Array(1), []),
    uniform: value('float32', new Float32Array(rows), [rows]),
    temperature: value('float32', Float32Array.of(temperature), []),
    top_k: value('int64', BigInt64Array.of(BigInt(topK)), []),
    top_p: value('float32', Float32Array.of(topP), []),
  };
}

/** A decode graph and its inputs, of which each step's outputs replace the tokens and the cache. */
class DecodeStep {
  #graph;
  #feeds;
  #carried;
  #seed;

  /** last: the token that every row is fed first, or one for each row. */
  constructor(graph, { config }, cache, options, last) {
    this.#graph = graph;
    this.#seed = options.seed;
    this.#feeds = { ...stepInputs(options, options.n), ...cache };
    this.#feeds.input_ids.data.forEach((_, row, ids) => (ids[row] = BigInt(last[row % last.length])));
    const past = cacheNames(config.n_layer, 'past_key_values');
    const present = cacheNames(config.n_layer, 'present');
    this.#carried = { next_ids: 'input_ids', ...Object.fromEntries(present.map((name, i) => [name, past[i]])) };
  }

  /** Feeds each row its last token. Resolves to those drawn for `position`, Int32Array [rows]. */
  async draw(position) {
    const feeds = this.#feeds;
    feeds.past_length.data[0] = BigInt(position);
    drawUniforms(this.#seed, position, feeds.uniform.data);
    await this.#graph.advance(feeds, this.#carried);
    return Int32Array.from(feeds.input_ids.data, Number);
  }

  /** Frees the cache; there are no more steps. */
  end() {
    this.#graph.forget(this.#feeds);
  }
}
