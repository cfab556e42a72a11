/**
 * Opens a graph where ONNX Runtime does not find its weights by itself: in the cache of the Hugging Face Hub a bundle's
 * files are links, and ONNX Runtime refuses weights outside of the graph's folder. There it gets the folder that they
 * really are in, and a graph that has their real name, so that they are still mapped from their file.
 */

import { lstat, readFile, realpath } from 'node:fs/promises';
import path from 'node:path';

import { WEIGHTS_FILE } from './manifest.mjs';

// Numbers of fields in onnx.proto.
const ENTRY = { key: 1, value: 2 };
const BYTES = 2; // wire type of texts, bytes and records
const SIZES = { 1: 8, 5: 4 }; // wire type: size in bytes of a number

// What leads from a model to the entries that name the files of its tensors, by the numbers of fields: a graph has
// tensors, and nodes whose attributes may be graphs.
const TENSOR = { 13: {} };
const GRAPH = { 5: TENSOR };
GRAPH[1] = { 5: { 6: GRAPH, 11: GRAPH } };
const MODEL = { 7: GRAPH };

/**
 * What to open for a graph, and the session options for it.
 *
 * @param {string} graph path of the graph's file
 * @param {string} weights path of the weights, beside it
 * @param {object} options of the session
 * @returns {Promise<[string | Uint8Array, object]>}
 */
export async function withWeights(graph, weights, options) {
  const links = await Promise.all([graph, weights].map(async (file) => (await lstat(file)).isSymbolicLink()));
  if (!links.includes(true)) {
    return [graph, options];
  }
  const real = await realpath(weights);
  const extra = {
    ...options.extra,
    session: { ...options.extra?.session, model_external_initializers_file_folder_path: path.dirname(real) },
  };
  return [withWeightsFile(await readFile(graph), WEIGHTS_FILE, path.basename(real)), { ...options, extra }];
}

/** The file of a graph that has its weights in the file `to` instead of `from`; `model` is a serialized ModelProto. */
export function withWeightsFile(model, from, to) {
  return renamed(model, MODEL, Buffer.from(from), Buffer.from(to));
}

/** A record, in whose parts of the given numbers a tensor's file is renamed. */
function renamed(record, levels, from, to) {
  if (!record.includes(from)) {
    return record;
  }
  const parts = [...fields(record)];
  if (Object.keys(levels).length === 0) {
    const [key, value] = [ENTRY.key, ENTRY.value].map((number) => parts.find((part) => part.number === number)?.content);
    const isPlace = key?.toString() === 'location' && value?.equals(from);
    return isPlace ? Buffer.concat([encoded(ENTRY.key, key), encoded(ENTRY.value, to)]) : record;
  }
  return Buffer.concat(
    parts.map(({ number, content, whole }) =>
      levels[number] ? encoded(number, renamed(content, levels[number], from, to)) : whole,
    ),
  );
}

/** The fields of a record: number, content (empty for numbers), and the whole with its tag and length. */
function* fields(record) {
  let position = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = record[position++] ?? 0;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        return value;
      }
    }
  };
  while (position < record.length) {
    const start = position;
    const tag = varint();
    const kind = tag % 8;
    let content = record.subarray(0, 0);
    if (kind === BYTES) {
      const length = varint();
      content = record.subarray(position, position + length);
      position += length;
    } else if (kind === 0) {
      varint();
    } else {
      position += SIZES[kind] ?? record.length; // of another kind are no records of ONNX: the rest is left as it is
    }
    yield { number: Math.floor(tag / 8), content, whole: record.subarray(start, position) };
  }
}

function encoded(number, content) {
  return Buffer.concat([varintOf(8 * number + BYTES), varintOf(content.length), content]);
}

function varintOf(number) {
  const groups = [];
  for (; number >= 128; number = Math.floor(number / 128)) {
    groups.push((number % 128) + 128);
  }
  return Buffer.from([...groups, number]);
}
