/** Bundles in Node: files are read where they lie, graphs run in onnxruntime-node. */

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { BundleError, OptionError, reason } from './core/errors.mjs';
import { checkHash, checkPinned, checkSize, hostOptions, importRuntime, sessionOptions } from './core/host.mjs';
import { MANIFEST_FILE, MAX_MANIFEST_BYTES } from './core/manifest.mjs';
import { Model } from './core/model.mjs';
import { openNodeGraph, writesInPlace } from './core/node-graph.mjs';
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
    mapsWeights: true,
    inPlace: writesInPlace(),
    onGpu: false,
    release: ort.env?.versions?.node,
    manifestText: () => readManifest(root, settings.sha256),
    file: (name, record) => checkedFile(path.join(root, name), name, record, settings),
    open: (graph, _weights, how) => {
      const session = { ...sessionOptions(settings, how), intraOpNumThreads: settings.threads ?? 0 };
      return openNodeGraph(ort, graph, session);
    },
    turn,
  });
}

async function readManifest(root, sha256) {
  const file = path.join(root, MANIFEST_FILE);
  if (!(await stat(root).catch(() => undefined))?.isDirectory()) {
    throw new BundleError(`no bundle at ${root}; make one with igpt-export`, 'path');
  }
  try {
    if ((await stat(file)).size > MAX_MANIFEST_BYTES) {
      throw new BundleError(`${file} is too large to be a manifest; export the bundle again`, 'manifest');
    }
    const bytes = await readFile(file);
    checkPinned(file, createHash('sha256').update(bytes).digest('hex'), sha256);
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    if (error instanceof BundleError) {
      throw error;
    }
    if (error.code === 'ENOENT') {
      throw new BundleError(`${root} is not a bundle: it has no ${MANIFEST_FILE}; make one with igpt-export`, 'path', error);
    }
    throw new BundleError(`${file} cannot be read (${reason(error)}); copy or export the bundle again`, 'manifest', error);
  }
}

/** Path of a file of the bundle, after comparing it with its record. */
async function checkedFile(file, name, record, { verify, progress }) {
  const found = await lstat(file).catch(() => undefined); // lstat: a link is refused, wherever it leads
  if (!found?.isFile()) {
    const message = `${file} is missing or not a regular file; copy or export the bundle again`;
    throw new BundleError(message, `files.${name}`);
  }
  checkSize(file, name, found.size, record);
  if (verify) {
    const hash = createHash('sha256');
    let loaded = 0;
    try {
      for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) {
        hash.update(chunk);
        loaded += chunk.length;
        progress?.({ file: name, loaded, total: record.size });
      }
    } catch (error) {
      throw new BundleError(`${file} cannot be read (${reason(error)}); check its permissions`, `files.${name}`, error);
    }
    checkHash(file, name, hash.digest('hex'), record);
  }
  return file;
}
