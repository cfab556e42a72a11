// Compiled by types.test.mjs, never run: the declarations admit what the documentation shows, and no more.
import { BundleError, IgptError, openBundle, type Picture, type Run } from 'igpt-onnx/node';
import { imageOf, openBundle as openInBrowser } from 'igpt-onnx/web';
import * as ort from 'onnxruntime-web/wasm';

const model = await openBundle('bundle', { threads: 2, verify: false, progress: ({ file, loaded }) => [file, loaded] });
const image = { width: 1, height: 1, data: new Uint8Array(3) };
const run: Run = model.complete(image, { keepRows: 8, n: 2, seed: 2n ** 63n, temperature: 0.9, topK: 40, topP: 0.95 });
for await (const { position, tokens } of run) {
  const next: number = position + tokens[0]!;
  void next;
}
const pictures: Picture[] = await run.images();
const { natsPerToken } = await model.score(pictures[0]!);
const [likeliest] = await model.classify(image);
const label: string = likeliest!.label;
const rows: Int32Array[] = await model.sample({ signal: AbortSignal.timeout(1000) }).tokens();
model.images(rows);
await model.generate([1, 2, 3]).images();
await model.completeOnce(image, { keep: 'top-half' });
const warmer: Run = model.sample({ ...model.sampling, temperature: 2 * model.sampling.temperature });
const error: IgptError = new BundleError();
const field: string | undefined = error.field;
void [warmer, model.manifest.sampling?.top_k, natsPerToken, label, field, model.manifest.config.n_layer, model.labels.length, model.size.width];

const web = await openInBrowser(new URL('https://example.org/bundle'), { ort, executionProviders: ['wasm'] });
await web.features(await imageOf(new Blob()));
await web.classify(new ImageData(1, 1));

// @ts-expect-error an option of Python's name
model.complete(image, { keep_rows: 8 });
// @ts-expect-error one call has no steps to report
model.completeOnce(image, { progress: () => undefined });
// @ts-expect-error not levels
model.tokens({ width: 1, height: 1, data: new Float32Array(3) });
// @ts-expect-error nothing to keep
model.sample({ keepRows: 8 });
