/** An opened bundle: graphs are checked and opened on first use, and closed when nobody needs them. */

import { BundleError, RuntimeError } from './errors.mjs';
import { MANIFEST_FILE, WEIGHTS_FILE, parseManifest } from './manifest.mjs';
import { openingFailed, runningFailed } from './ort-errors.mjs';
import { cacheNames } from './specs.mjs';

// Each of these packs the weights in the order in which its kernels read them: one such copy in memory is enough.
const DECODERS = ['decode', 'decode_shared'];
// The graphs that want their weights packed: those that read them once a token.
const PACKED = [...DECODERS, 'complete'];
// Prefill reads every weight for hundreds of tokens: it is as fast straight from the file, but for 4 bits.
const FAST_UNPACKED = ['fp32', 'int8'];

const PATIENCE = 8; // milliseconds that others may have to wait besides the step that is running

const MISSING = {
  decode: 'its checkpoint has no language-model head; export an ImageGPTForCausalImageModeling checkpoint',
  preprocess: 'no graph resizes with its image_format.resample; give tokens to generate instead',
};
const NOT_EMBEDDED = 'export it with igpt-export --embed';

/**
 * How bytes are read, hashed and given to ONNX Runtime: all that Node and browsers differ in.
 *
 * @typedef {object} Host
 * @property {string} where the bundle's path or address, for errors
 * @property {string} library the package that ONNX Runtime is in, for errors
 * @property {string} memory whose memory graphs take, for errors
 * @property {boolean} mapsWeights whether graphs share the weights' memory
 * @property {boolean} inPlace whether a graph's `advance` writes outputs over the inputs that they replace
 * @property {boolean} onGpu whether decode graphs run on a GPU, where what `advance` replaces stays
 * @property {string | undefined} release of ONNX Runtime, if it tells
 * @property {() => Promise<string>} manifestText
 * @property {(name: string, record: {size: number, sha256: string}) => Promise<unknown>} file a file of the bundle, once
 *     it was found to be what the manifest says
 * @property {(graph: unknown, weights: unknown, settings: {pack: boolean, optimize: boolean, carried: string[]}) => Promise<Graph>} open
 *     pack: order the weights as the kernels read them; optimize: look for faster kernels than the graph names; carried:
 *     the outputs that `advance` will make inputs of, of decode graphs
 * @property {() => Promise<void>} turn lets the event loop run others
 *
 * @typedef {{type: string, data: ArrayBufferView & ArrayLike<unknown>, dims: readonly number[], location: 'cpu'}} Value
 *
 * @typedef {object} Graph
 * @property {(feeds: Record<string, Value>, outputs: string[]) => Promise<Record<string, Value>>} run
 * @property {(feeds: Record<string, Value>, carried: Record<string, string>) => Promise<void>} advance runs the graph
 *     and lets each output (key) replace an input (value) in `feeds`
 * @property {(feeds: Record<string, Value>) => void} forget frees what `advance` left in `feeds`
 * @property {() => Promise<void>} release
 */

/** Raises RuntimeError if ONNX Runtime is too old for a bundle: it might compute something else. */
function checkRelease({ release, where }, { onnxruntime_minimum: minimum }) {
  const [found, needed] = [release, minimum].map((text) => text?.match(/^(\d+)\.(\d+)/)?.slice(1).map(Number));
  if (found && needed && (found[0] - needed[0] || found[1] - needed[1]) < 0) {
    const message = `${where} needs ONNX Runtime ${minimum} or newer, and this is ${release}, which fails or computes something else`;
    throw new RuntimeError(`${message}; install a newer onnxruntime-node or onnxruntime-web`, 'onnxruntime_minimum');
  }
}

/** A tensor as hosts take it. */
export function value(type, data, dims) {
  return { type, data, dims, location: 'cpu' };
}

export class Bundle {
  #host;
  #graphs = new Map(); // name -> {opened: Promise<Graph>, users: number, idle: keep it open when idle}
  #weights; // of the first graph's opening on: Promise of what the host says they are
  #released = false;
  #turned = 0; // when others had their turn last, as performance.now() tells

  /** Use `openBundle`. */
  constructor(host, manifest) {
    this.#host = host;
    this.manifest = manifest;
  }

  /** Reads the manifest. Raises BundleError, and RuntimeError for an ONNX Runtime that is too old. */
  static async open(host) {
    const manifest = parseManifest(await host.manifestText(), host.where + MANIFEST_FILE);
    checkRelease(host, manifest);
    return new Bundle(host, manifest);
  }

  /** Whether decode graphs write into the cache they are given. */
  get inPlace() {
    return this.#host.inPlace;
  }

  /** Whether decode graphs run on a GPU. */
  get onGpu() {
    return this.#host.onGpu;
  }

  has(name) {
    return Object.hasOwn(this.manifest.graphs, name);
  }

  /**
   * Opens a graph, or takes the open one, for `use`; nobody closes it before `use` ends.
   *
   * @template T
   * @param {string} name
   * @param {(graph: Graph) => Promise<T>} use
   * @returns {Promise<T>}
   * @throws {BundleError} the bundle lacks the graph, or a file is missing or altered
   */
  async using(name, use) {
    const [graph, letGo] = await this.lease(name);
    try {
      return await use(graph);
    } finally {
      await letGo();
    }
  }

  /** As `using`, for who uses a graph longer than one call: returns it and the function that gives it back. */
  async lease(name) {
    if (this.#released) {
      throw new BundleError(`${this.#host.where} was released; open the bundle again`, 'release');
    }
    if (!this.has(name)) {
      const remedy = MISSING[name === 'decode_shared' ? 'decode' : name] ?? NOT_EMBEDDED;
      throw new BundleError(`${this.#host.where} has no ${name} graph: ${remedy}`, `graphs.${name}`);
    }
    for (const other of DECODERS.includes(name) ? DECODERS : []) {
      if (other !== name) {
        await this.#retire(other);
      }
    }
    const entry = this.#graphs.get(name) ?? this.#opening(name);
    entry.users++;
    try {
      const graph = await entry.opened;
      return [graph, () => this.#letGo(name, entry)];
    } catch (error) {
      this.#graphs.delete(name); // so that the next call tries again
      throw error;
    }
  }

  /** Between two steps: lets the event loop run others, if they have waited for a while. */
  async turn() {
    if (performance.now() - this.#turned > PATIENCE) {
      await this.#host.turn();
      this.#turned = performance.now();
    }
  }

  /** Closes all graphs, those in use when their users are done; nothing can be opened any more. */
  async release() {
    this.#released = true;
    await Promise.all([...this.#graphs.keys()].map((name) => this.#retire(name)));
    this.#weights = undefined;
  }

  #opening(name) {
    // Where every open graph holds the weights once more, prefill goes as soon as it is done.
    const entry = { opened: this.#open(name), users: 0, idle: this.#host.mapsWeights || name !== 'prefill' };
    this.#graphs.set(name, entry);
    return entry;
  }

  async #open(name) {
    const { graphs, files, precision, config } = this.manifest;
    const { file } = graphs[name];
    this.#weights ??= this.#host.file(WEIGHTS_FILE, files[WEIGHTS_FILE]);
    let weights;
    try {
      weights = await this.#weights;
    } catch (error) {
      this.#weights = undefined;
      throw error;
    }
    const graph = await this.#host.file(file, files[file]);
    const pack = PACKED.includes(name) || !FAST_UNPACKED.includes(precision);
    const carried = DECODERS.includes(name) ? cacheNames(config.n_layer, 'present') : [];
    try {
      const settings = { pack, optimize: PACKED.includes(name), carried };
      return named(await this.#host.open(graph, weights, settings), name, this.#host);
    } catch (error) {
      throw openingFailed(error, this.#host, this.#host.where + file, name);
    }
  }

  /** Closes a graph, now or when its last user is done. */
  async #retire(name) {
    const entry = this.#graphs.get(name);
    if (entry) {
      this.#graphs.delete(name);
      entry.idle = false;
      await this.#closeIfDone(entry);
    }
  }

  async #letGo(name, entry) {
    entry.users--;
    if (!entry.idle && entry.users === 0 && this.#graphs.get(name) === entry) {
      this.#graphs.delete(name);
    }
    await this.#closeIfDone(entry);
  }

  async #closeIfDone(entry) {
    if (!entry.idle && entry.users === 0) {
      const graph = await entry.opened.catch(() => undefined); // who opened it has the error already
      await graph?.release();
    }
  }
}

/** A graph whose failures say which graph it was. */
function named(graph, name, host) {
  const failing = (run) => async (...args) => {
    try {
      return await run(...args);
    } catch (error) {
      throw runningFailed(error, host, name);
    }
  };
  return {
    run: failing((feeds, outputs) => graph.run(feeds, outputs)),
    advance: failing((feeds, carried) => graph.advance(feeds, carried)),
    forget: (feeds) => graph.forget(feeds),
    release: failing(() => graph.release()),
  };
}
