import type { Model, OpenOptions } from './index.js';

export * from './index.js';

/** Opens the bundle in a directory, given as a path or a file URL. Rejects with a BundleError or an OptionError. */
export function openBundle(directory: string | URL, options?: OpenOptions): Promise<Model>;
