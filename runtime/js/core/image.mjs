/** Pictures as a caller gives and gets them: `{width, height, data}`, 8 bits a channel. SPEC section 6. */

import { ImageError, OptionError } from './errors.mjs';
import { roundHalfToEven, shown } from './options.mjs';

/**
 * The pixels of a picture, [height, width, 3]; transparency is laid over white.
 *
 * @param {{width: number, height: number, data: Uint8Array | Uint8ClampedArray}} image RGB or RGBA, rows from the top
 * @returns {{width: number, height: number, data: Uint8Array}} RGB
 * @throws {ImageError} it is not such an object, has no pixels, or its data are of another type or length
 */
export function rgbOf(image) {
  if (typeof image !== 'object' || image === null) {
    throw new ImageError(`a picture is an object with width, height and data, got ${shown(image)}`, 'image');
  }
  const { width, height, data } = image;
  for (const [field, value] of [['width', width], ['height', height]]) {
    if (!Number.isInteger(value) || value < 1) {
      throw new ImageError(`image.${field} must be a whole number of at least 1, got ${shown(value)}`, field);
    }
  }
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    const got = data?.constructor?.name ?? shown(data);
    throw new ImageError(`image.data must be a Uint8Array or Uint8ClampedArray of levels 0 .. 255, got ${got}`, 'data');
  }
  const pixels = width * height;
  if (data.length === 4 * pixels) {
    return { width, height, data: overWhite(data, pixels) };
  }
  if (data.length !== 3 * pixels) {
    throw new ImageError(
      `image.data has ${data.length} levels; ${width}x${height} pixels are ${3 * pixels} in RGB or ${4 * pixels} in RGBA`,
      'data',
    );
  }
  return { width, height, data: Uint8Array.from(data) }; // a copy: the caller may draw on
}

/** RGBA to RGB. The rounding is Pillow's: to the nearest level, which is never two, as 255 is odd. */
function overWhite(rgba, pixels) {
  const rgb = new Uint8Array(3 * pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    const alpha = rgba[4 * pixel + 3];
    const white = 255 * (255 - alpha) + 127;
    for (let channel = 0; channel < 3; channel++) {
      rgb[3 * pixel + channel] = Math.floor((rgba[4 * pixel + channel] * alpha + white) / 255);
    }
  }
  return rgb;
}

/** The 8-bit colour of every cluster: numbers [n][3] in [-1, 1] to levels [3 * n]. */
export function clusterColours(clusters) {
  const levels = clusters.flat().map((value) => roundHalfToEven(127.5 * (Math.fround(value) + 1)));
  return Uint8Array.from(levels, (level) => Math.min(Math.max(level, 0), 255));
}

/** One picture of checked tokens [height * width]. */
export function paint(tokens, colours, height, width) {
  const data = new Uint8Array(3 * tokens.length);
  tokens.forEach((token, pixel) => data.set(colours.subarray(3 * token, 3 * token + 3), 3 * pixel));
  return { width, height, data };
}

/**
 * Tokens as an Int32Array of their own.
 *
 * @param {ArrayLike<number | bigint>} tokens
 * @param {string} field the argument they are, for errors
 * @param {number} most how many there may be
 * @throws {OptionError} there are too many, or one is no colour
 */
export function checkedTokens(tokens, nClusters, field, most) {
  if (typeof tokens !== 'object' || tokens === null || !Number.isInteger(tokens.length)) {
    throw new OptionError(`${field} must be an array of tokens, got ${shown(tokens)}`, field);
  }
  if (tokens.length > most) {
    throw new OptionError(`${field} has ${tokens.length} tokens; a picture has ${most}`, field);
  }
  return Int32Array.from(tokens, (token, place) => {
    const id = typeof token === 'bigint' ? Number(token) : token;
    if (!Number.isInteger(id) || id < 0 || id >= nClusters) {
      throw new OptionError(`${field}[${place}] is ${shown(token)}, which is no token; use 0 .. ${nClusters - 1}`, field);
    }
    return id;
  });
}
