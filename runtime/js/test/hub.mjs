/** Bundles as the cache of the Hugging Face Hub has them: links to files that are called by their hashes. */

import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Puts a copy of a bundle into a new cache. Resolves to its snapshot; the cache is four directories above. */
export async function inHubCache(bundle, { shared = false } = {}) {
  const cache = await mkdtemp(path.join(tmpdir(), 'igpt-hub-'));
  const repository = path.join(cache, 'hub', 'models--acme--tiny');
  const snapshot = path.join(repository, 'snapshots', '0123456789abcdef');
  const blobs = path.join(repository, 'blobs');
  await mkdir(snapshot, { recursive: true });
  await mkdir(blobs);
  for (const name of await readdir(bundle)) {
    const bytes = await readFile(path.join(bundle, name));
    const hash = createHash('sha256').update(bytes).digest('hex');
    await writeFile(path.join(blobs, hash), bytes);
    await symlink(path.join('..', '..', 'blobs', hash), path.join(snapshot, name));
    if (shared) {
      await share(cache, blobs, hash);
    }
  }
  return snapshot;
}

/** As newer clients do it: the blob is a link itself, to what all repositories share, each in another directory. */
async function share(cache, blobs, hash) {
  const folder = path.join(cache, 'hub', 'blobs', hash.slice(0, 2));
  await mkdir(folder, { recursive: true });
  await rename(path.join(blobs, hash), path.join(folder, hash.slice(2)));
  await symlink(path.join('..', '..', 'blobs', hash.slice(0, 2), hash.slice(2)), path.join(blobs, hash));
}
