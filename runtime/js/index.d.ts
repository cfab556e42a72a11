/** What `igpt-onnx/node` and `igpt-onnx/web` have in common. The contract is runtime/SPEC.md. */

/** 8-bit pixels, rows from the top; 3 levels a pixel (RGB) or 4 (RGBA, laid over white). An ImageData is one. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** An RGB picture. */
export interface Image extends Picture {
  readonly data: Uint8Array;
}

export interface SamplingOptions {
  /** How many pictures, 1 .. 65536; 8 by default. */
  n?: number;
  /** 0 .. 2^64 - 1; the same seed draws the same pictures. 0 by default. */
  seed?: bigint | number;
  /** Divides the logits; 0 always takes the likeliest token. 1 by default. */
  temperature?: number;
  /** Draw among so many of the likeliest tokens; 0 is off. */
  topK?: number;
  /** Draw among the likeliest tokens up to this sum of probabilities, above 0 and at most 1. */
  topP?: number;
  /** Ends the run: the next step throws the signal's reason. */
  signal?: AbortSignal;
  /** Called after every position. */
  progress?: (done: { position: number; drawn: number; total: number }) => void;
}

export interface CompletionOptions extends SamplingOptions {
  /** Rows to keep, 0 .. height - 1; half of them by default. */
  keepRows?: number;
  /** Or the fraction of rows to keep, 0 .. 1. */
  keep?: number | 'top-half';
}

/** Tokens being drawn. Nothing is drawn before it is iterated over or asked for its result. */
export interface Run extends AsyncIterable<{ position: number; tokens: Int32Array }> {
  /** All tokens of every picture, once they are drawn: n arrays [n_positions]. */
  tokens(): Promise<Int32Array[]>;
  /** The n pictures, once they are drawn. */
  images(): Promise<Image[]>;
}

/** A bundle's manifest, section 2 of runtime/SPEC.md. */
export interface Manifest {
  readonly name: string;
  readonly precision: 'fp32' | 'fp16' | 'int8' | 'int4';
  readonly kv_cache: 'fp32' | 'fp16' | 'int8';
  readonly profile: 'fused' | 'portable';
  readonly sos: number;
  readonly config: Readonly<Record<string, unknown>> & { readonly vocab_size: number; readonly n_positions: number };
  readonly image_format: { readonly height: number; readonly width: number; readonly clusters: readonly number[][] };
  readonly classifier: null | { readonly labels: readonly string[]; readonly layer: number; readonly sos: boolean };
  readonly graphs: Readonly<Record<string, unknown>>;
}

export interface Model {
  readonly manifest: Manifest;
  /** Names of the classes; none without a classifier. */
  readonly labels: readonly string[];
  /** Of the model's pictures, in pixels. */
  readonly size: { readonly height: number; readonly width: number };
  /** Keeps the top of a picture and draws the rest n times. */
  complete(image: Picture, options?: CompletionOptions): Run;
  /** Draws n pictures from nothing. */
  sample(options?: SamplingOptions): Run;
  /** Continues the first tokens of a picture, which may be none. */
  generate(primer: ArrayLike<number | bigint>, options?: SamplingOptions): Run;
  /** `complete` in one call of the graph complete.onnx, which bundles exported with --embed have. */
  completeOnce(image: Picture, options?: Omit<CompletionOptions, 'progress'>): Promise<{ images: Image[]; tokens: Int32Array[] }>;
  /** Class probabilities, the likeliest first. */
  classify(image: Picture): Promise<{ label: string; probability: number }[]>;
  /** Mean-pooled hidden states: dims are [n_layer + 1, n_embd]. */
  features(image: Picture): Promise<{ data: Float32Array; dims: readonly number[] }>;
  /** Nats that each pixel takes [height * width], and their mean. */
  score(image: Picture): Promise<{ natsPerToken: number; nats: Float32Array }>;
  /** The tokens of a picture [n_positions]. */
  tokens(image: Picture): Promise<Int32Array>;
  /** Pictures of tokens, each [n_positions]. */
  images(tokens: readonly ArrayLike<number | bigint>[]): Image[];
  /** Closes all graphs; the model is of no use afterwards. */
  release(): Promise<void>;
}

export interface OpenOptions {
  /** Threads inside one operator; ONNX Runtime's choice by default. */
  threads?: number;
  /** ONNX Runtime's execution providers; ['cpu'] in Node and ['wasm'] in browsers by default. */
  executionProviders?: readonly (string | { readonly name: string })[];
  /** Compare files with the manifest's hashes; true by default. */
  verify?: boolean;
  /** Called while files are read. */
  progress?: (done: { file: string; loaded: number; total: number }) => void;
}

/** Base of all errors a caller can cause or fix; `field` names the option, argument or manifest field at fault. */
export class IgptError extends Error {
  readonly field: string | undefined;
}
/** An option is out of range or does not fit the bundle. */
export class OptionError extends IgptError {}
/** A picture is not one. */
export class ImageError extends IgptError {}
/** A bundle is missing, damaged, of an unknown version, or lacks what was asked of it. */
export class BundleError extends IgptError {}
/** ONNX Runtime is not there, or failed. */
export class RuntimeError extends IgptError {}
