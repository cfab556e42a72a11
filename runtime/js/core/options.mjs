/** The options of a request, checked: what is out of range is refused by name, and so is an unknown option. */

import { OptionError } from './errors.mjs';

const MAX_N = 1 << 16; // samples of one request: a bound on the memory it takes, far above any use
const MAX_SEED = (1n << 64n) - 1n;
const MAX_FLOAT32 = 3.4028234663852886e38;

const SAMPLING = ['n', 'seed', 'temperature', 'topK', 'topP'];
const CONTROL = ['signal', 'progress'];
const KEEP = ['keepRows', 'keep'];

/** The plain distribution. */
const PLAIN = { temperature: 1, topK: 0, topP: 1 };

/**
 * How a bundle's tokens are drawn where a request does not say it.
 *
 * @param {{sampling?: {temperature: number, top_k: number, top_p: number} | null}} manifest
 * @returns {{temperature: number, topK: number, topP: number}}
 */
export function recommendedSampling({ sampling }) {
  return sampling ? { temperature: sampling.temperature, topK: sampling.top_k, topP: sampling.top_p } : { ...PLAIN };
}

/**
 * The sampling options as the graphs take them. Values that float32 cannot hold become the nearest that it can.
 *
 * @param {object} given what the caller passed
 * @param {{temperature: number, topK: number, topP: number}} recommended what stands for those that it leaves out
 * @param {number} nClusters tokens there are: a larger topK is this one
 * @param {boolean} keeps whether `keep` and `keepRows` are options too
 * @returns {{n: number, seed: bigint, temperature: number, topK: number, topP: number, signal?: AbortSignal,
 *     progress?: (done: {position: number, drawn: number, total: number}) => void}}
 * @throws {OptionError}
 */
export function samplingOptions(given, recommended, nClusters, keeps) {
  checkNames(given, [...SAMPLING, ...CONTROL, ...(keeps ? KEEP : [])]);
  const { n = 8, seed = 0, signal, progress } = given;
  const { temperature = recommended.temperature, topK = recommended.topK, topP = recommended.topP } = given;
  if (!Number.isInteger(n) || n < 1 || n > MAX_N) {
    throw new OptionError(`n must be a whole number 1 .. ${MAX_N}, got ${shown(n)}`, 'n');
  }
  const [name, problem] = samplingProblem({ temperature, topK, topP }) ?? [];
  if (name) {
    throw new OptionError(`${name} ${problem}`, name);
  }
  checkSignal(signal);
  if (progress !== undefined && typeof progress !== 'function') {
    throw new OptionError(`progress must be a function, got ${shown(progress)}`, 'progress');
  }
  return {
    n,
    seed: seedOf(seed),
    temperature: Math.min(temperature, MAX_FLOAT32),
    topK: Math.min(topK, nClusters),
    topP,
    signal,
    progress,
  };
}

/** Which of three options is out of range and why, as [name, words]; undefined if none is. */
export function samplingProblem({ temperature, topK, topP }) {
  if (!isNumber(temperature) || !Number.isFinite(temperature) || temperature < 0) {
    return ['temperature', `must be a finite number of at least 0, got ${shown(temperature)}`];
  }
  if (!Number.isSafeInteger(topK) || topK < 0) {
    return ['topK', `must be a whole number of at least 0 (0 is off), got ${shown(topK)}`];
  }
  if (!isNumber(topP) || !(topP > 0 && topP <= 1)) {
    return ['topP', `must be above 0 and at most 1 (1 is off), got ${shown(topP)}`];
  }
  return undefined;
}

/** Raises OptionError for what is no AbortSignal. */
export function checkSignal(signal) {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError(`signal must be an AbortSignal, got ${shown(signal)}`, 'signal');
  }
}

/** Raises OptionError for options that are not an object, or have a name other than `known`. */
export function checkNames(given, known) {
  if (typeof given !== 'object' || given === null) {
    throw new OptionError(`options must be an object, got ${shown(given)}`, 'options');
  }
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) {
      throw new OptionError(`unknown option ${name}; use ${known.join(', ')}`, name);
    }
  }
}

/** @returns {bigint} a seed given as a bigint or a safe integer, 0 .. 2^64 - 1 */
function seedOf(seed) {
  if (!(typeof seed === 'bigint' || Number.isSafeInteger(seed)) || seed < 0 || BigInt(seed) > MAX_SEED) {
    throw new OptionError(
      `seed must be 0 .. 2^64 - 1, a bigint or a safe integer, got ${shown(seed)}; write large seeds like 123n`,
      'seed',
    );
  }
  return BigInt(seed);
}

/**
 * How many rows at the top of a picture are kept.
 *
 * @param {{keepRows?: number, keep?: number | 'top-half'}} given a number of rows, or a fraction of them; by default half
 * @param {number} height of the model's pictures
 * @returns {number} 0 .. height - 1
 */
export function rowsToKeep({ keepRows, keep }, height) {
  if (keepRows !== undefined && keep !== undefined) {
    throw new OptionError('keep and keepRows contradict each other; give one of them', 'keepRows');
  }
  if (keepRows !== undefined) {
    if (!Number.isInteger(keepRows) || keepRows < 0 || keepRows >= height) {
      throw new OptionError(`keepRows must be a whole number 0 .. ${height - 1}, got ${shown(keepRows)}`, 'keepRows');
    }
    return keepRows;
  }
  if (keep === undefined || keep === 'top-half') {
    return Math.floor(height / 2);
  }
  const rows = isNumber(keep) ? roundHalfToEven(height * keep) : NaN;
  if (!(keep >= 0 && keep < 1 && rows < height)) {
    throw new OptionError(
      `keep must be top-half or a fraction of at least 0 that leaves a row to draw, got ${shown(keep)}`,
      'keep',
    );
  }
  return rows;
}

/** Rounds as Python does, so that a fraction keeps the same rows here and there. */
export function roundHalfToEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

function isNumber(value) {
  return typeof value === 'number';
}

/** A value as an error message shows it. */
export function shown(value) {
  return typeof value === 'bigint' ? `${value}n` : typeof value === 'string' ? `'${value}'` : String(value);
}
