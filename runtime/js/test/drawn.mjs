/** Prints what a bundle draws, for the Python tests: node drawn.mjs node|wasm BUNDLE < {"image": ..., "requests": [...]} */

import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import { openBundle } from '../node.mjs';
import { openInWasm } from './wasm.mjs';

const [host, bundle] = process.argv.slice(2);
const { image, requests } = JSON.parse(readFileSync(0, 'utf-8'));
const model = await (host === 'node' ? openBundle(bundle) : openInWasm(pathToFileURL(`${bundle}/`)));
const picture = { ...image, data: Uint8Array.from(Buffer.from(image.data, 'base64')) };
const drawn = [];
for (const { seed, ...options } of requests) {
  const request = { ...options, seed: BigInt(seed) };
  const start = performance.now();
  const loop = await model.complete(picture, request).tokens();
  const seconds = (performance.now() - start) / 1000;
  const once = await model.completeOnce(picture, request);
  drawn.push({ loop: loop.map((row) => [...row]), once: once.tokens.map((row) => [...row]), seconds });
}
await model.release();
console.log(JSON.stringify(drawn));
