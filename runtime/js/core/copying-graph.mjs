/**
 * A graph through ONNX Runtime's public JavaScript interface, where every run copies its outputs.
 *
 * Outputs that are given as tensors would be copied too, and in onnxruntime-web (1.30) never written: its
 * `prepareInputOutputTensor` moves a copy of the tensor into the WebAssembly heap, and `run` returns the tensor it was
 * given. So outputs are always new here. On a GPU they stay there, if the session was told so.
 */

/**
 * @param ort the module onnxruntime-node or onnxruntime-web
 * @param session an InferenceSession of it
 * @returns {import('./bundle.mjs').Graph}
 */
export function openWithCopies(ort, session) {
  const tensor = (value) => (onGpu(value) ? value : new ort.Tensor(value.type, value.data, value.dims));
  const run = (feeds, outputs) =>
    session.run(Object.fromEntries(Object.entries(feeds).map(([name, value]) => [name, tensor(value)])), outputs);
  const forget = (feeds, names = Object.keys(feeds)) =>
    names.filter((name) => onGpu(feeds[name])).forEach((name) => feeds[name].dispose());
  return {
    run,
    advance: async (feeds, carried) => {
      const outputs = await run(feeds, Object.keys(carried));
      forget(feeds, Object.values(carried));
      for (const output in carried) {
        feeds[carried[output]] = outputs[output];
      }
    },
    forget,
    release: () => session.release(),
  };
}

const onGpu = ({ location }) => location === 'gpu-buffer';
