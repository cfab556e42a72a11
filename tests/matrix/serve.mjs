/** Runs graphs for engines.py: node serve.mjs node|wasm; a request a line in, {outputs} or {error} a line out. */

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

import { graphsOf } from './graphs.mjs';

const require = createRequire(new URL('../../runtime/js/package.json', import.meta.url));
const inNode = process.argv[2] === 'node';
const imported = await import(pathToFileURL(require.resolve(inNode ? 'onnxruntime-node' : 'onnxruntime-web/wasm')));
const ort = imported.default ?? imported;

async function create(bundle, graph) {
  if (inNode) return ort.InferenceSession.create(`${bundle}/${graph}.onnx`);
  const path = 'weights.safetensors';
  const externalData = [{ path, data: await readFile(`${bundle}/${path}`) }];
  return ort.InferenceSession.create(await readFile(`${bundle}/${graph}.onnx`), { externalData });
}

if (!inNode) ort.env.wasm.numThreads = 1; // its workers want a browser
const run = graphsOf(ort, create);
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).then((outputs) => ({ outputs }), (error) => ({ error: String(error.message ?? error) }));
  console.log(JSON.stringify(answer));
}
