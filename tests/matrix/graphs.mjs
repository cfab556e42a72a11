/** Single graphs of bundles in onnxruntime-node and onnxruntime-web, for engines.py. A tensor is {type, dims, data: base64}. */

const ARRAYS = { int64: BigInt64Array, uint64: BigUint64Array, float32: Float32Array, int8: Int8Array, uint8: Uint8Array };

/**
 * @param ort onnxruntime-node or onnxruntime-web
 * @param create opens a graph: (bundle, graph) => Promise<InferenceSession>
 * @returns a function of {bundle, graph, feeds} that resolves to the outputs
 */
export function graphsOf(ort, create) {
  const sessions = new Map();
  return async ({ bundle, graph, feeds }) => {
    const key = `${bundle}/${graph}`;
    if (!sessions.has(key)) sessions.set(key, await create(bundle, graph));
    const given = {};
    for (const [name, { type, dims, data }] of Object.entries(feeds)) {
      const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      given[name] = new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
    }
    const outputs = {};
    for (const [name, tensor] of Object.entries(await sessions.get(key).run(given))) {
      const { buffer, byteOffset, byteLength } = await tensor.getData();
      let text = '';
      for (const byte of new Uint8Array(buffer, byteOffset, byteLength)) text += String.fromCharCode(byte);
      outputs[name] = { type: tensor.type, dims: [...tensor.dims], data: btoa(text) };
    }
    return outputs;
  };
}

/** A graph in a browser, from the addresses of its bundle. */
export async function fetchGraph(ort, bundle, graph, executionProviders) {
  const bytes = async (name) => new Uint8Array(await (await fetch(`${bundle}/${name}`)).arrayBuffer());
  const path = 'weights.safetensors';
  const externalData = [{ path, data: await bytes(path) }];
  return ort.InferenceSession.create(await bytes(`${graph}.onnx`), { executionProviders, externalData });
}
