import type { BundleOptions, ImageSource, Model } from './index.js';

export * from './index.js';

/** What this package uses of onnxruntime-web. */
export interface OnnxRuntime {
  readonly InferenceSession: { create(...args: never[]): Promise<unknown> };
  readonly Tensor: unknown;
  readonly env: object;
}

export interface WebBundleOptions extends BundleOptions {
  /** The onnxruntime-web to use, imported from where you have it; by default `import('onnxruntime-web/wasm')`. */
  ort?: OnnxRuntime;
  /**
   * Decodes on the GPU, where the cache stays; for bundles in fp32. Everything else still runs in WebAssembly. Give the module
   * onnxruntime-web/webgpu, or true for `import('onnxruntime-web/webgpu')`. By default false.
   */
  webgpu?: boolean | OnnxRuntime;
}

/**
 * Opens the bundle in a directory of a web server. Files are fetched when first needed.
 *
 * @param url of the directory, absolute or relative to the page
 * @throws {BundleError} there is no bundle, or it is of an unknown version or malformed
 * @throws {RuntimeError} onnxruntime-web cannot be imported
 * @throws {OptionError} an option is out of range
 */
export function openBundle(url: string | URL, options?: WebBundleOptions): Promise<Model>;

/**
 * The pixels of what a browser has as a picture, drawn on a canvas; a Blob is decoded, upright as its EXIF data says.
 *
 * @throws {ImageError} it cannot be decoded, or has no pixels
 */
export function imageOf(
  source: Blob | ImageBitmap | ImageData | HTMLImageElement | HTMLCanvasElement | OffscreenCanvas,
): Promise<ImageSource>;
