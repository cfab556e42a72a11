/** Opens a bundle on disk with web.mjs, in onnxruntime-web's WebAssembly under Node: `fetch` there reads no files. */

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import * as ort from 'onnxruntime-web/wasm';

import { openBundle } from '../web.mjs';

export async function openInWasm(directory, options = {}) {
  const fetched = globalThis.fetch;
  globalThis.fetch = async (url, ...rest) =>
    String(url).startsWith('file:') ? new Response(await readFile(fileURLToPath(url))) : fetched(url, ...rest);
  return openBundle(directory, { ort, threads: 1, ...options });
}
