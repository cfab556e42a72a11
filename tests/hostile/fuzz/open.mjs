/** Opens a bundle in Node and completes a grey picture: node open.mjs BUNDLE; prints JSON. */

import { IgptError, openBundle } from '../../../runtime/js/node.mjs';

const [bundle] = process.argv.slice(2);
const image = { height: 8, width: 8, data: new Uint8Array(8 * 8 * 3).fill(128) };
try {
  const model = await openBundle(bundle, { threads: 1 });
  const tokens = await model.complete(image, { n: 1, keepRows: 4 }).tokens();
  const found = { tokens: tokens.map((row) => [...row]) };
  if (model.manifest?.classifier) {
    found.classes = await model.classify(image);
  }
  await model.release();
  console.log(JSON.stringify(found));
} catch (error) {
  console.log(JSON.stringify({ error: String(error?.message ?? error), ours: error instanceof IgptError, stack: error?.stack }));
}
