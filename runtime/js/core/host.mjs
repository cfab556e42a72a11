/** What both hosts check in the same way: options and files. */

import { BundleError, OptionError, RuntimeError, reason } from './errors.mjs';
import { SHA256 } from './manifest.mjs';
import { checkNames, shown } from './options.mjs';

const OPTIONS = ['threads', 'executionProviders', 'verify', 'progress', 'sha256'];

/**
 * The options of `openBundle`.
 *
 * @param {object} given what the caller passed
 * @param {string[]} providers the execution providers if none are named
 * @param {string[]} [others] further options that the host knows
 */
export function hostOptions(given, providers, others = []) {
  checkNames(given, [...OPTIONS, ...others]);
  const { threads, executionProviders = providers, verify = true, progress, sha256 } = given;
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new OptionError(`threads must be a whole number of at least 1, got ${shown(threads)}`, 'threads');
  }
  if (!Array.isArray(executionProviders) || executionProviders.length === 0) {
    const message = `executionProviders must be a list like ${JSON.stringify(providers)}, got ${shown(executionProviders)}`;
    throw new OptionError(message, 'executionProviders');
  }
  if (typeof verify !== 'boolean') {
    throw new OptionError(`verify must be true or false, got ${shown(verify)}`, 'verify');
  }
  if (progress !== undefined && typeof progress !== 'function') {
    throw new OptionError(`progress must be a function, got ${shown(progress)}`, 'progress');
  }
  if (sha256 !== undefined && !(typeof sha256 === 'string' && SHA256.test(sha256.toLowerCase()))) {
    throw new OptionError(`sha256 must be 64 hexadecimal digits, got ${shown(sha256)}`, 'sha256');
  }
  return { threads, executionProviders, verify, progress, sha256 };
}

/** Raises BundleError unless a file has the size that the manifest says. */
export function checkSize(path, name, size, record) {
  if (size !== record.size) {
    const message = `${path} has ${size} bytes instead of ${record.size}; copy or export the bundle again`;
    throw new BundleError(message, `files.${name}.size`);
  }
}

/** Raises BundleError unless a file has the hash that the manifest says. */
export function checkHash(path, name, sha256, record) {
  if (sha256 !== record.sha256) {
    const message = `${path} does not match its sha256 in the manifest; copy or export the bundle again`;
    throw new BundleError(message, `files.${name}.sha256`);
  }
}

/** Raises BundleError unless the manifest has the hash that was asked for, if one was. */
export function checkPinned(where, found, sha256) {
  if (sha256 !== undefined && found !== sha256.toLowerCase()) {
    const message = `${where} has the SHA-256 ${found}, not ${sha256}: it is not the bundle that was asked for`;
    throw new BundleError(`${message}; get the right one, or ask for this one if you trust it`, 'sha256');
  }
}

/** Session options for a graph of a bundle; see `Host.open`. */
export function sessionOptions({ executionProviders }, { pack, optimize }) {
  return {
    executionProviders,
    logSeverityLevel: 4, // what goes wrong is told once, by an error
    graphOptimizationLevel: optimize ? 'all' : 'disabled',
    ...(pack ? {} : { extra: { session: { disable_prepacking: '1' } } }),
  };
}

/** Imports ONNX Runtime. Raises RuntimeError when it is not installed, or cannot be loaded. */
export async function importRuntime(load, name) {
  try {
    return await load();
  } catch (error) {
    const why = reason(error);
    // The package itself, and not a library that it needs: in Node; in browsers, where an import map is missing.
    const isMissing =
      (error?.code === 'ERR_MODULE_NOT_FOUND' && why.includes(`'${name}'`)) || /module specifier|bare specifier/.test(why);
    const remedy = isMissing ? `run: npm install ${name}` : 'see that all its files are there, for this system';
    throw new RuntimeError(`${name} cannot be ${isMissing ? 'imported' : 'loaded'} (${why}); ${remedy}`, name, error);
  }
}
