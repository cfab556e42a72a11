/** What a bundle can do: complete, sample, classify, embed and score pictures. Documented in ../index.d.ts. */

import { Bundle, value } from './bundle.mjs';
import { BundleError, OptionError } from './errors.mjs';
import { Run } from './generate.mjs';
import { isRegression } from './manifest.mjs';
import { likeness } from './likeness.mjs';
import { checkedTokens, clusterColours, paint, rgbOf } from './image.mjs';
import { recommendedSampling, rowsToKeep, samplingOptions, shown } from './options.mjs';

export class Model {
  #bundle;
  #colours; // levels [3 * clusters]

  /** Use `openBundle`. */
  constructor(bundle) {
    this.#bundle = bundle;
    this.#colours = clusterColours(bundle.manifest.image_format.clusters);
  }

  /** Opens the bundle that a host reads. Raises BundleError. */
  static async open(host) {
    return new Model(await Bundle.open(host));
  }

  get manifest() {
    return this.#bundle.manifest;
  }

  get labels() {
    return this.manifest.classifier?.labels ?? [];
  }

  get size() {
    const { height, width } = this.manifest.image_format;
    return { height, width };
  }

  get sampling() {
    return recommendedSampling(this.manifest);
  }

  complete(image, options = {}) {
    const request = this.#request(options, true);
    const kept = rowsToKeep(options, this.size.height) * this.size.width;
    const pixels = rgbOf(image);
    return this.#run(async () => (await this.#preprocessed(pixels)).subarray(0, kept), request);
  }

  sample(options = {}) {
    return this.#run(async () => new Int32Array(0), this.#request(options, false));
  }

  generate(primer, options = {}) {
    const request = this.#request(options, false);
    const { n_positions: positions } = this.manifest.config;
    const tokens = checkedTokens(primer, this.#nClusters, 'primer', positions);
    return this.#run(async () => tokens, request);
  }

  async completeOnce(image, options = {}) {
    const { n, seed, temperature, topK, topP, signal } = this.#request(options, true);
    if (options.progress !== undefined) {
      throw new OptionError('progress has nothing to tell of a single call; use complete', 'progress');
    }
    const feeds = {
      image: imageValue(rgbOf(image)),
      keep_rows: value('int64', BigInt64Array.of(BigInt(rowsToKeep(options, this.size.height))), []),
      n: value('int64', BigInt64Array.of(BigInt(n)), []),
      seed: value('int64', BigInt64Array.of(BigInt.asIntN(64, seed)), []), // the same 64 bits
      temperature: value('float32', Float32Array.of(temperature), []),
      top_k: value('int64', BigInt64Array.of(BigInt(topK)), []),
      top_p: value('float32', Float32Array.of(topP), []),
    };
    signal?.throwIfAborted();
    const outputs = await this.#bundle.using('complete', (graph) => graph.run(feeds, ['images', 'tokens']));
    signal?.throwIfAborted();
    const rows = (data, length) => Array.from({ length: n }, (_, i) => data.slice(i * length, (i + 1) * length));
    const positions = this.manifest.config.n_positions;
    return {
      images: rows(outputs.images.data, 3 * positions).map((data) => ({ ...this.size, data: Uint8Array.from(data) })),
      tokens: rows(outputs.tokens.data, positions).map((tokens) => Int32Array.from(tokens, Number)),
    };
  }

  async classify(image) {
    const { classifier } = this.manifest;
    if (classifier === null) {
      const remedy = 'add one with `igpt-run probe export`, or export an ImageGPTForImageClassification checkpoint';
      throw new BundleError(`the bundle ${this.manifest.name} has no classifier; ${remedy}`, 'classifier');
    }
    if (classifier.protocol === 'paper' && !this.#bundle.has('classify')) {
      const remedy = 'which classify.onnx does: export it with --embed';
      throw new BundleError(`the classifier of ${this.manifest.name} wants pictures cut square, ${remedy}`, 'classifier');
    }
    const pixels = rgbOf(image);
    const [kind, output] = isRegression(classifier) ? ['value', 'values'] : ['probability', 'probabilities'];
    const results = this.#bundle.has('classify')
      ? (await this.#ofImage('classify', pixels, [output]))[output].data
      : applied(classifier, (await this.#prefilled(pixels, false, ['class_logits'])).class_logits.data);
    return classifier.labels.map((label, i) => ({ label, [kind]: results[i] })).sort((a, b) => b[kind] - a[kind]);
  }

  async features(image) {
    const pixels = rgbOf(image);
    const { features } = this.#bundle.has('features')
      ? await this.#ofImage('features', pixels, ['features'])
      : await this.#prefilled(pixels, false, ['features']);
    return { data: Float32Array.from(features.data), dims: features.dims.slice(-2) };
  }

  async score(image) {
    const pixels = rgbOf(image);
    if (this.#bundle.has('score')) {
      const outputs = await this.#ofImage('score', pixels, ['nats', 'nats_per_token']);
      return this.#scored(Float32Array.from(outputs.nats.data), outputs.nats_per_token.data[0]);
    }
    this.#requireDecoder();
    const tokens = await this.#preprocessed(pixels);
    const { logits } = await this.#prefill(tokens, true, ['logits']);
    const classes = this.#nClusters;
    const nats = Float32Array.from(tokens, (token, i) =>
      crossEntropy(logits.data.subarray(i * classes, (i + 1) * classes), token),
    );
    return this.#scored(nats, nats.reduce((sum, part) => sum + part) / nats.length);
  }

  #scored(nats, natsPerToken) {
    return { natsPerToken, nats, likeness: this.likeness(nats) };
  }

  likeness(nats) {
    return likeness(this.manifest, nats);
  }

  async tokens(image) {
    return this.#preprocessed(rgbOf(image));
  }

  images(tokens) {
    const { height, width } = this.size;
    if (!Array.isArray(tokens) || tokens.length === 0) {
      throw new OptionError(`tokens must be an array with the tokens of each picture, got ${shown(tokens)}`, 'tokens');
    }
    return tokens.map((row, i) => {
      const ids = checkedTokens(row, this.#nClusters, `tokens[${i}]`, height * width);
      if (ids.length !== height * width) {
        const message = `tokens[${i}] has ${ids.length} tokens; a picture of ${width}x${height} has ${height * width}`;
        throw new OptionError(message, `tokens[${i}]`);
      }
      return paint(ids, this.#colours, height, width);
    });
  }

  async release() {
    await this.#bundle.release();
  }

  get #nClusters() {
    return this.manifest.config.vocab_size - 1;
  }

  #request(options, keeps) {
    return samplingOptions(options, this.sampling, this.#nClusters, keeps);
  }

  #run(primer, request) {
    this.#requireDecoder();
    return new Run(this.#bundle, primer, request, (rows) => this.images(rows));
  }

  #requireDecoder() {
    if (!this.#bundle.has('decode')) {
      const remedy = 'its checkpoint has no language-model head; export an ImageGPTForCausalImageModeling checkpoint';
      throw new BundleError(`the bundle ${this.manifest.name} has no decode graph: ${remedy}`, 'graphs.decode');
    }
  }

  /** Outputs of a graph whose only input is a picture. */
  #ofImage(name, pixels, outputs) {
    return this.#bundle.using(name, (graph) => graph.run({ image: imageValue(pixels) }, outputs));
  }

  async #preprocessed(pixels) {
    const { tokens } = await this.#ofImage('preprocess', pixels, ['tokens']);
    return Int32Array.from(tokens.data, Number);
  }

  async #prefilled(pixels, sos, outputs) {
    return this.#prefill(await this.#preprocessed(pixels), sos, outputs);
  }

  /** Outputs of the prefill graph for a whole picture. sos: shift the tokens behind sos, as in pre-training. */
  #prefill(tokens, sos, outputs) {
    const inputs = BigInt64Array.from(sos ? [this.manifest.sos, ...tokens.subarray(0, -1)] : tokens, BigInt);
    const feeds = { input_ids: value('int64', inputs, [1, inputs.length]) };
    return this.#bundle.using('prefill', (graph) => graph.run(feeds, outputs));
  }
}

function imageValue({ data, height, width }) {
  return value('uint8', data, [height, width, 3]);
}

/** What transformers' pipeline makes of the outputs of a head. */
function applied({ function_to_apply: name }, logits) {
  if (name === 'sigmoid') {
    return Float64Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  }
  return name === 'none' ? logits : softmax(logits);
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const exponentials = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((a, b) => a + b);
  return exponentials.map((part) => part / sum);
}

/** Nats of the token: its negative log probability under the logits. */
function crossEntropy(logits, token) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
  return Math.log(sum) + largest - logits[token];
}
