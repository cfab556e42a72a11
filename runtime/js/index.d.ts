/** What an opened bundle is and does: the same in Node (`igpt-onnx/node`) and in browsers (`igpt-onnx/web`). */

/**
 * Base of all errors that a user can cause or fix. The message is one line: a fact, where, and what to do about it.
 * A call cancelled by its signal throws the signal's reason instead.
 */
export class IgptError extends Error {
  /** The option, argument or field of the manifest that is at fault, like `keepRows` or `graphs.decode`. */
  readonly field: string | undefined;
}

/** An option is out of range, or does not fit the bundle. */
export class OptionError extends IgptError {}

/** An argument is no picture. */
export class ImageError extends IgptError {}

/** A bundle is missing, damaged, of an unknown version, or lacks what was asked of it. */
export class BundleError extends IgptError {}

/**
 * ONNX Runtime is not there, has not enough memory, or failed. What it raised itself is the `cause`. `field` is the
 * package that cannot be loaded, the graph that failed, or the option at fault.
 */
export class RuntimeError extends IgptError {}

/** A picture of any size, as `ImageData` is one: 8 bits a channel, rows from the top. */
export interface ImageSource {
  /** Pixels, at least 1. */
  readonly width: number;
  readonly height: number;
  /** RGB or RGBA by its length, height x width x 3 or 4. Transparency is laid over white. */
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** A picture of the model's size. */
export interface Picture {
  width: number;
  height: number;
  /** RGB, [height, width, 3]. */
  data: Uint8Array;
}

/** How tokens are drawn. The same options give the same tokens, whatever `n` is, except for rounding: SPEC section 5. */
export interface SamplingOptions {
  /** Number of pictures, 1 .. 65536. All are drawn at once, so memory grows with it. By default 8. */
  n?: number;
  /** 0 .. 2^64 - 1; above 2^53 - 1 a bigint. By default 0. */
  seed?: number | bigint;
  /** Divides the logits; 0 always takes the likeliest token. By default that of `Model.sampling`. */
  temperature?: number;
  /** Draw among so many likeliest tokens; 0 is off. By default that of `Model.sampling`. */
  topK?: number;
  /** Draw among the likeliest tokens that reach this probability together; 1 is off. By default that of `Model.sampling`. */
  topP?: number;
  /** Cancels: what is awaited then fails with the signal's reason. It is looked at before each step. */
  signal?: AbortSignal;
}

/** How much of a picture is kept. Give one of them; by default the top half is. */
export interface KeepOptions {
  /** Rows at the top of the model's picture, 0 .. height - 1. */
  keepRows?: number;
  /** The same as a fraction of the height, 0 up to, but not, 1. */
  keep?: number | 'top-half';
}

export interface ProgressOptions {
  /** Called after each step: the position drawn, tokens drawn so far and tokens to draw, of all pictures together. */
  progress?: (done: { position: number; drawn: number; total: number }) => void;
}

/** The tokens of one position. */
export interface Step {
  /** In the picture, in raster order, 0-based. */
  position: number;
  /** One for each sample, [n]. */
  tokens: Int32Array;
}

/**
 * A request for samples. Iterate over it for one position after the other, or ask for the whole, or first the one and
 * then the other; nothing is drawn before. Leaving the loop early ends the run.
 */
export interface Run extends AsyncIterable<Step, void, undefined> {
  /**
   * Draws what is left.
   *
   * @returns the pictures [n]
   * @throws {OptionError} the run was left early
   * @throws {BundleError} a graph is missing, or a file of the bundle altered
   * @throws {RuntimeError} ONNX Runtime failed
   */
  images(): Promise<Picture[]>;
  /** As `images`: the tokens of each picture, given ones included, [n][height x width]. */
  tokens(): Promise<Int32Array[]>;
}

/** One input or output of a graph; a string in a shape is a free dimension. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly (number | string)[];
}

/** `manifest.json`, as SPEC section 2 has it. */
export interface Manifest {
  readonly format_version: number;
  readonly sampling_version: number;
  readonly name: string;
  readonly precision: 'fp32' | 'int8' | 'int4' | 'fp16';
  readonly kv_cache: 'fp32' | 'int8' | 'fp16';
  readonly sos: number;
  readonly config: {
    readonly vocab_size: number;
    readonly n_positions: number;
    readonly n_embd: number;
    readonly n_layer: number;
    readonly n_head: number;
    readonly [field: string]: unknown;
  };
  readonly image_format: {
    readonly height: number;
    readonly width: number;
    readonly clusters: readonly (readonly number[])[];
    readonly [field: string]: unknown;
  };
  readonly classifier: {
    readonly labels: readonly string[];
    readonly layers: readonly number[];
    readonly protocol: 'paper' | 'hf';
    readonly function_to_apply: 'softmax' | 'sigmoid' | 'none';
  } | null;
  readonly onnxruntime_minimum: string | null;
  readonly graphs: {
    readonly [name: string]: {
      readonly file: string;
      readonly inputs: readonly TensorSpec[];
      readonly outputs: readonly TensorSpec[];
    };
  };
  readonly files: { readonly [name: string]: { readonly size: number; readonly sha256: string } };
  /** How to draw where a request does not say it; older bundles have none. See `Model.sampling`. */
  readonly sampling?: { readonly temperature: number; readonly top_k: number; readonly top_p: number } | null;
  /** What pictures like those of the training cost, by the number of rows: quantiles of 5 %, 50 % and 95 %. */
  readonly likelihood?: { readonly pictures: string; readonly by_rows: readonly (readonly number[])[] } | null;
  /** Pictures to try the model with: one file of the bundle, in rows of eight. */
  readonly examples?: { readonly file: string; readonly names: readonly string[] } | null;
  readonly [field: string]: unknown;
}

/** A picture beside those that a model was trained on; null where the bundle does not know what these cost. */
export interface Likeness {
  natsPerToken: number;
  /** Nats per token that 5 % and 95 % of the model's own kind of pictures cost at most. */
  usual: [number, number];
  /** Whether it costs far more than these. */
  unlike: boolean;
  /** A line that says so, else null. */
  notice: string | null;
}

/**
 * An opened bundle. Graphs are checked and opened when first needed, and stay open until `release`.
 *
 * Calls throw OptionError and ImageError at once or when awaited, BundleError for a graph that the bundle lacks or a file
 * that was altered, and RuntimeError if ONNX Runtime fails.
 */
export interface Model {
  readonly manifest: Manifest;
  /** Names of the classes; empty without a classifier. */
  readonly labels: readonly string[];
  /** Of the model's pictures, in pixels. */
  readonly size: { height: number; width: number };
  /** The recommended sampling: what is used for options that a request leaves out. Where a bundle recommends none, it is
   * the plain distribution: temperature 1, topK 0 and topP 1. */
  readonly sampling: { temperature: number; topK: number; topP: number };

  /** Keeps the top rows of a picture and draws the rest n times. */
  complete(image: ImageSource, options?: SamplingOptions & KeepOptions & ProgressOptions): Run;
  /** Draws n whole pictures from nothing. */
  sample(options?: SamplingOptions & ProgressOptions): Run;
  /** Draws what follows the first tokens of a picture; `primer` may be empty. */
  generate(primer: ArrayLike<number | bigint>, options?: SamplingOptions & ProgressOptions): Run;
  /**
   * As `complete`, in one call of the bundle's complete graph, which is faster in browsers. The signal is looked at only
   * before and after this call. Needs a bundle exported with `--embed`.
   */
  completeOnce(
    image: ImageSource,
    options?: SamplingOptions & KeepOptions,
  ): Promise<{ images: Picture[]; tokens: Int32Array[] }>;

  /** Every class with its probability, likeliest first; of a regression, every value, largest first. */
  classify(image: ImageSource): Promise<{ label: string; probability?: number; value?: number }[]>;
  /** Mean-pooled hidden states, [n_layer + 1, n_embd] in `data`, row by row. */
  features(image: ImageSource): Promise<{ data: Float32Array; dims: [number, number] }>;
  /** Minus the log-likelihood of each token, [height x width] in nats, and their mean. */
  score(image: ImageSource): Promise<{ natsPerToken: number; nats: Float32Array; likeness: Likeness | null }>;
  /** How a picture's nats, or those of its upper rows, compare with the pictures that the model was trained on. */
  likeness(nats: Float32Array): Likeness | null;
  /** Tokens of a picture of any size, [height x width] of the model's. */
  tokens(image: ImageSource): Promise<Int32Array>;
  /** Pictures of tokens, each [height x width]. */
  images(tokens: readonly ArrayLike<number | bigint>[]): Picture[];

  /** Closes all graphs, those in use once their calls end; nothing can be asked of the model any more. */
  release(): Promise<void>;
}

/** Options of `openBundle` that Node and browsers share. */
export interface BundleOptions {
  /** Threads inside one operator; by default ONNX Runtime's choice. */
  threads?: number;
  /** ONNX Runtime's execution providers. Only the default, `['cpu']` in Node and `['wasm']` in browsers, is tested. */
  executionProviders?: readonly (string | { readonly name: string })[];
  /** Whether files are compared with their SHA-256 when first used; their sizes always are. By default true. */
  verify?: boolean;
  /** SHA-256 of the bundle's `manifest.json`, in hexadecimal: another bundle is refused. */
  sha256?: string;
  /** Called while a file is read: its name, bytes so far, bytes in all. */
  progress?: (done: { file: string; loaded: number; total: number }) => void;
}
