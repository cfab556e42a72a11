import type { BundleOptions, Model } from './index.js';

export * from './index.js';

/**
 * Opens the bundle in a directory. Weights are mapped into memory from their file, once for all graphs.
 *
 * @param directory a path or a file URL
 * @throws {BundleError} there is no bundle, or it is of an unknown version or malformed
 * @throws {RuntimeError} onnxruntime-node is not installed
 * @throws {OptionError} an option is out of range
 */
export function openBundle(directory: string | URL, options?: BundleOptions): Promise<Model>;
