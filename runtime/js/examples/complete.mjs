// node complete.mjs picture.ppm [bundle]: keeps the upper half, draws the rest four times.
import { readFile, writeFile } from 'node:fs/promises';
import { openBundle } from 'igpt-onnx/node';

const file = await readFile(process.argv[2]);
const [header, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(file.toString('latin1'));
const picture = { width: Number(width), height: Number(height), data: file.subarray(header.length) };

const demo = new URL('../../python/igpt_runtime/demo', import.meta.url);
const model = await openBundle(process.argv[3] ?? demo);
const run = model.complete(picture, { n: 4, seed: 1 });
for await (const { position, tokens } of run) console.log(position, tokens.join(' '));
for (const [i, { width, height, data }] of (await run.images()).entries()) {
  await writeFile(`completed-${i + 1}.ppm`, [`P6 ${width} ${height} 255\n`, data]);
}
