/** The cache of the Hugging Face Hub, and links and files of other kinds that are no part of a bundle. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, readFile, realpath, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, afterEach, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { withWeightsFile } from '../core/node-weights.mjs';
import { BundleError, openBundle } from '../node.mjs';
import { TINY, replay } from './golden.mjs';
import { inHubCache } from './hub.mjs';

const GOLDEN = fileURLToPath(TINY);
const PICTURE = { width: 2, height: 2, data: new Uint8Array(12) };
const isPosix = process.platform !== 'win32';

const above = (snapshot) => path.join(snapshot, '../../../..');
const remove = (...directories) => Promise.all(directories.map((directory) => rm(directory, { recursive: true })));
const caches = { own: await inHubCache(GOLDEN), shared: await inHubCache(GOLDEN, { shared: true }) };
const link = path.join(await mkdtemp(path.join(tmpdir(), 'igpt-link-')), 'bundle');
await symlink(caches.own, link);
after(() => remove(above(caches.own), above(caches.shared), path.dirname(link)));

replay('blobs of the repository', () => openBundle(caches.own));
replay('blobs of all repositories', () => openBundle(caches.shared));
replay('a link to a snapshot', () => openBundle(link));

test('the name of the weights is changed wherever it stands, and nothing else', async () => {
  for (const name of ['decode.onnx', 'complete.onnx', 'preprocess.onnx']) {
    const model = await readFile(path.join(GOLDEN, name));
    const hasWeights = name !== 'preprocess.onnx';
    for (const other of ['another', 'b'.repeat(64), 'c'.repeat(500)]) {
      const changed = withWeightsFile(model, 'weights.safetensors', other);
      assert.deepEqual(withWeightsFile(changed, other, 'weights.safetensors'), model);
      assert.equal(changed.includes('weights.safetensors'), false);
      if (hasWeights) assert.ok(changed.includes(other) && model.includes('weights.safetensors'));
      else assert.deepEqual(changed, model);
    }
  }
});

describe('what is no part of a bundle', { skip: !isPosix }, () => {
  let place, bundle, snapshot;
  beforeEach(async () => {
    place = await realpath(await mkdtemp(path.join(tmpdir(), 'igpt-kinds-')));
    bundle = path.join(place, 'bundle');
    await cp(GOLDEN, bundle, { recursive: true });
    snapshot = await inHubCache(GOLDEN);
  });
  afterEach(() => remove(place, above(snapshot)));

  const refused = async (directory, pattern) => {
    const use = async () => (await openBundle(directory)).score(PICTURE);
    await assert.rejects(use(), (error) => {
      assert.ok(error instanceof BundleError, `${error}`);
      assert.match(error.message, pattern);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  };

  for (const name of ['manifest.json', 'weights.safetensors', 'score.onnx']) {
    const pattern = name === 'manifest.json' ? /manifest.json cannot be read \(it is/ : /is missing or not a regular file/;
    for (const [kind, make] of [
      ['a pipe', (file) => execFileSync('mkfifo', [file])],
      ['a directory', (file) => mkdir(file)],
      ['a link to a directory', (file) => symlink(place, file)],
      ['a link to a device', (file) => symlink('/dev/zero', file)],
      ['a link to another file', (file) => symlink(path.join(GOLDEN, path.basename(file)), file)],
    ]) {
      test(`${name} that is ${kind}`, async () => {
        await unlink(path.join(bundle, name));
        await make(path.join(bundle, name));
        await refused(bundle, pattern);
      });
    }

    for (const [kind, make] of [
      ['out of the cache', (file) => symlink(path.join(GOLDEN, name), file)],
      ['through the blobs and out', async (file, blobs) => {
        await symlink(path.join(GOLDEN, name), path.join(blobs, 'chain'));
        await symlink('../../blobs/chain', file);
      }],
      ['up from the blobs', async (file, blobs) => {
        await copyFile(path.join(GOLDEN, name), path.join(blobs, '..', 'secret'));
        await symlink('../../blobs/../secret', file);
      }],
      ['to blobs that are a link', async (file, blobs) => {
        await rename(blobs, `${blobs}-moved`);
        await symlink(GOLDEN, blobs);
        await symlink(`../../blobs/${name}`, file);
      }],
      ['to a pipe among the blobs', async (file, blobs) => {
        execFileSync('mkfifo', [path.join(blobs, 'pipe')]);
        await symlink('../../blobs/pipe', file);
      }],
    ]) {
      test(`${name} in a cache with a link ${kind}`, async () => {
        const file = path.join(snapshot, name);
        await unlink(file);
        await make(file, path.join(snapshot, '../../blobs'));
        await refused(snapshot, /cannot be read|is missing or not a regular file|has no manifest.json/);
      });
    }

    test(`${name} that is a link to itself`, async () => {
      await unlink(path.join(bundle, name));
      await symlink(name, path.join(bundle, name));
      await refused(bundle, name === 'manifest.json' ? /cannot be read/ : /is missing or not a regular file/);
    });
  }

  test('damage in the cache', async () => {
    const file = await realpath(path.join(snapshot, 'weights.safetensors'));
    const bytes = await readFile(file);
    bytes[bytes.length - 1] ^= 1;
    await writeFile(file, bytes);
    await refused(snapshot, /does not match its sha256/);
  });
});
