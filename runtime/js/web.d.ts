import type { Model, OpenOptions, Picture } from './index.js';

export * from './index.js';

export interface WebOptions extends OpenOptions {
  /** The module onnxruntime-web, if it is not to be imported by that name. */
  ort?: object;
}

/** Opens the bundle whose files are below an address. Rejects with a BundleError or an OptionError. */
export function openBundle(url: string | URL, options?: WebOptions): Promise<Model>;

/** The pixels of what a browser can draw. Rejects with an ImageError. */
export function imageOf(source: Blob | CanvasImageSource | ImageData): Promise<Picture>;
