/** Files of a bundle in Node: which of them may be read, and what they must be. */

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, open, realpath, stat } from 'node:fs/promises';
import path from 'node:path';

import { BundleError, reason } from './errors.mjs';
import { checkHash, checkPinned, checkSize } from './host.mjs';
import { MANIFEST_FILE, MAX_MANIFEST_BYTES } from './manifest.mjs';

const BLOBS = 'blobs'; // where the cache of the Hugging Face Hub has the files that the links of its snapshots lead to
const LEVELS = 3; // that such a directory may be above a bundle: beside snapshots/COMMIT, of the repository, of the cache
const AT_ONCE = 1 << 20; // bytes

/**
 * The text of a bundle's manifest.
 *
 * @param {string} root the bundle's directory
 * @param {string} [sha256] that it must have
 * @throws {BundleError} there is no bundle, or its manifest cannot be read or is another one
 */
export async function readManifest(root, sha256) {
  const file = path.join(root, MANIFEST_FILE);
  if (!(await stat(root).catch(() => undefined))?.isDirectory()) {
    throw new BundleError(`no bundle at ${root}; make one with igpt-export`, 'path');
  }
  let handle;
  try {
    handle = await openRegular(root, file);
    if ((await handle.stat()).size > MAX_MANIFEST_BYTES) {
      throw new BundleError(`${file} is too large to be a manifest; export the bundle again`, 'manifest');
    }
    const bytes = await handle.readFile();
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
  } finally {
    await handle?.close();
  }
}

/** Path of a file of the bundle, after comparing it with its record. Raises BundleError. */
export async function checkedFile(root, name, record, { verify, progress }) {
  const file = path.join(root, name);
  const handle = await openRegular(root, file).catch((error) => {
    const message = `${file} is missing or not a regular file; copy or export the bundle again`;
    throw new BundleError(error.code === 'EACCES' ? unreadable(file, error) : message, `files.${name}`, error);
  });
  try {
    checkSize(file, name, (await handle.stat()).size, record);
    if (verify) {
      checkHash(file, name, await hashOf(handle, file, name, record, progress), record);
    }
    return file;
  } finally {
    await handle.close();
  }
}

async function hashOf(handle, file, name, record, progress) {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(AT_ONCE);
  for (let loaded = 0; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, AT_ONCE).catch((error) => {
      throw new BundleError(unreadable(file, error), `files.${name}`, error);
    });
    if (bytesRead === 0) {
      return hash.digest('hex');
    }
    hash.update(buffer.subarray(0, bytesRead));
    loaded += bytesRead;
    progress?.({ file: name, loaded, total: record.size });
  }
}

function unreadable(file, error) {
  return `${file} cannot be read (${reason(error)}); check its permissions`;
}

/** Opens a regular file of a bundle for reading, or rejects. A pipe would be waited for, and a device may have no end. */
async function openRegular(root, file) {
  if (await leadsOut(root, file)) {
    throw new Error('it is a link out of the bundle');
  }
  const handle = await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  if (!(await handle.stat()).isFile()) {
    await handle.close();
    throw new Error('it is not a regular file');
  }
  return handle;
}

/**
 * Whether a path in the directory of a bundle is a link to what was not given along with the bundle. Only a link to where
 * the Hub's cache keeps the files of this bundle is none: any other could make foreign files a part of it.
 */
async function leadsOut(root, file) {
  if (!(await lstat(file)).isSymbolicLink()) {
    return false;
  }
  const target = await realpath(file);
  let above = await realpath(root);
  for (let level = 0; level < LEVELS; level++) {
    above = path.dirname(above);
    const store = path.join(above, BLOBS);
    const isLink = (await lstat(store).catch(() => undefined))?.isSymbolicLink();
    if (target.startsWith(store + path.sep) && !isLink) {
      return false;
    }
  }
  return true;
}
