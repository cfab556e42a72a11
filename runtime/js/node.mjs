/** Bundles in Node: files are read where they lie, graphs run in onnxruntime-node. */

import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { OptionError } from './core/errors.mjs';
import { hostOptions, importRuntime, sessionOptions } from './core/host.mjs';
import { Model } from './core/model.mjs';
import { checkedFile, readManifest } from './core/node-files.mjs';
import { openNodeGraph, writesInPlace } from './core/node-graph.mjs';
import { withWeights } from './core/node-weights.mjs';
import { shown } from './core/options.mjs';

export { BundleError, IgptError, ImageError, OptionError, RuntimeError } from './core/errors.mjs';

export async function openBundle(directory, options = {}) {
  const settings = hostOptions(options, ['cpu']);
  if (typeof directory !== 'string' && !(directory instanceof URL)) {
    throw new OptionError(`the bundle must be a path or a file URL, got ${shown(directory)}`, 'path');
  }
  const root = path.resolve(directory instanceof URL ? fileURLToPath(directory) : directory);
  const ort = await importRuntime(() => import('onnxruntime-node'), 'onnxruntime-node');
  return Model.open({
    where: root + path.sep,
    library: 'onnxruntime-node',
    memory: 'the machine',
    mapsWeights: true,
    inPlace: writesInPlace(),
    onGpu: false,
    release: ort.env?.versions?.node,
    manifestText: () => readManifest(root, settings.sha256),
    file: (name, record) => checkedFile(root, name, record, settings),
    open: async (graph, weights, how) => {
      const session = { ...sessionOptions(settings, how), intraOpNumThreads: settings.threads ?? 0 };
      return openNodeGraph(ort, ...(await withWeights(graph, weights, session)));
    },
    turn,
  });
}
