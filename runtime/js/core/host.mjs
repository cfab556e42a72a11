/** What both hosts check in the same way: options and files. */

import { BundleError, OptionError, RuntimeError, reason } from './errors.mjs';
import { checkNames, shown } from './options.mjs';

const OPTIONS = ['threads', 'executionProviders', 'verify', 'progress'];

/**
 * The options of `openBundle`.
 *
 * @param {object} given what the caller passed
 * @param {string[]} providers the execution providers if none are named
 * @param {string[]} [others] further options that the host knows
 */
export function hostOptions(given, providers, others = []) {
  checkNames(given, [...OPTIONS, ...others]);
  const { threads, executionProviders = providers, verify = true, progress } = given;
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
  return { threads, executionProviders, verify, progress };
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

/** Session options for a graph of a bundle; see `Host.open`. */
export function sessionOptions({ executionProviders }, { pack, optimize }) {
  return {
    executionProviders,
    logSeverityLevel: 3,
    graphOptimizationLevel: optimize ? 'all' : 'disabled',
    ...(pack ? {} : { extra: { session: { disable_prepacking: '1' } } }),
  };
}

/** Imports ONNX Runtime. Raises RuntimeError when it is not installed. */
export async function importRuntime(load, name) {
  try {
    return await load();
  } catch (error) {
    throw new RuntimeError(`${name} cannot be imported (${reason(error)}); run: npm install ${name}`, name, error);
  }
}
