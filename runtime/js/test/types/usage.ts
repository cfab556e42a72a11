import { BundleError, openBundle, type Image } from 'igpt-onnx/node';
import { imageOf, openBundle as openWeb } from 'igpt-onnx/web';

export async function node(): Promise<Image[]> {
  const model = await openBundle('bundle', { threads: 2, verify: false });
  const run = model.complete({ width: 1, height: 1, data: new Uint8Array(3) }, { n: 2, keepRows: 3, seed: 1n });
  for await (const { position, tokens } of run) {
    const first: number = tokens[0]! + position;
    void first;
  }
  // @ts-expect-error rows are a number
  model.complete({ width: 1, height: 1, data: new Uint8Array(3) }, { keepRows: '3' });
  // @ts-expect-error levels are bytes
  await model.classify({ width: 1, height: 1, data: new Float32Array(3) });
  return run.images().catch((error: unknown) => {
    throw error instanceof BundleError ? new Error(error.field) : error;
  });
}

export async function web(file: Blob): Promise<number> {
  const model = await openWeb('/bundle/', { ort: {} });
  return (await model.score(await imageOf(file))).natsPerToken;
}
