/**
 * A graph through ONNX Runtime's public JavaScript interface, where every run copies its outputs.
 *
 * Outputs that are given as tensors would be copied too, and in onnxruntime-web (1.30) never written: its
 * `prepareInputOutputTensor` moves a copy of the tensor into the WebAssembly heap, and `run` returns the tensor it was
 * given. So outputs are always new here.
 */

/**
 * @param ort the module onnxruntime-node or onnxruntime-web
 * @param session an InferenceSession of it
 * @returns {import('./bundle.mjs').Graph}
 */
export function openWithCopies(ort, session) {
  const tensors = (values) => {
    const entries = Object.entries(values);
    return Object.fromEntries(entries.map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]));
  };
  const run = (feeds, outputs) => session.run(tensors(feeds), outputs);
  return {
    run,
    advance: async (feeds, carried) => {
      const outputs = await run(feeds, Object.keys(carried));
      for (const output in carried) {
        feeds[carried[output]] = outputs[output];
      }
    },
    release: () => session.release(),
  };
}
