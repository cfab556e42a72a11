/**
 * GIF89a: an animation that repeats. Every colour is exact, however many there are: each part of a frame has a table of
 * its own, and a part with more colours than a table holds is cut in two.
 */

import { compressed } from './lzw.mjs';

const MOST = 255; // colours of a table, besides the index that leaves a pixel as it was
const SHORTEST = 2; // hundredths of a second: what is shorter, browsers show for ten

/**
 * @param {{width: number, height: number}} size of a frame
 * @param {Iterable<{colours: Uint32Array, delay: number}>} frames 0xRRGGBB of each pixel, and hundredths of a second
 * @param {number} [scale] so many times as wide and as high is each pixel in the file
 * @returns {Uint8Array}
 */
export function encodeGif({ width, height }, frames, scale = 1) {
  const out = [...latin('GIF89a'), ...word(width * scale), ...word(height * scale), 0x70, 0, 0];
  out.push(0x21, 0xff, 11, ...latin('NETSCAPE2.0'), 3, 1, 0, 0, 0); // repeat for ever
  let before;
  for (const { colours, delay } of frames) {
    const changed = (pixel) => colours[pixel] !== before?.[pixel];
    const parts = partsOf(boundsOf(changed, width, height), colours, changed, width);
    parts.forEach((part, i) => writePart(out, part, changed, width, scale, i < parts.length - 1 ? SHORTEST : delay));
    before = colours.slice();
  }
  out.push(0x3b);
  return Uint8Array.from(out);
}

/** The smallest rectangle around all pixels that changed; one pixel if none did. */
function boundsOf(changed, width, height) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (changed(y * width + x)) {
        [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
      }
    }
  }
  return right < 0 ? { left: 0, top: 0, right: 0, bottom: 0 } : { left, top, right, bottom };
}

/** A rectangle, cut until each part has few enough colours; `table` maps them to their indices. */
function partsOf(box, colours, changed, width) {
  const { left, top, right, bottom } = box;
  const table = new Map();
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const pixel = y * width + x;
      if (changed(pixel) && !table.has(colours[pixel])) table.set(colours[pixel], table.size);
    }
  }
  if (table.size <= MOST) return [{ ...box, table, colours }];
  const [x, y] = [(left + right) >> 1, (top + bottom) >> 1];
  const halves = bottom > top ? [{ bottom: y }, { top: y + 1 }] : [{ right: x }, { left: x + 1 }];
  return halves.flatMap((half) => partsOf({ ...box, ...half }, colours, changed, width));
}

function writePart(out, { left, top, right, bottom, table, colours }, changed, width, scale, delay) {
  const bits = Math.max(2, Math.ceil(Math.log2(table.size + 1)));
  const asBefore = table.size;
  out.push(0x21, 0xf9, 4, 0x05, ...word(delay), asBefore, 0); // stays, and has an index that paints nothing
  out.push(0x2c, ...[left, top, right - left + 1, bottom - top + 1].flatMap((length) => word(length * scale)));
  out.push(0x80 | (bits - 1));
  for (const colour of table.keys()) out.push(colour >> 16, (colour >> 8) & 255, colour & 255);
  for (let i = 3 * table.size; i < 3 << bits; i++) out.push(0);
  const indices = [];
  for (let y = top; y <= bottom; y++) {
    const row = [];
    for (let x = left; x <= right; x++) {
      const pixel = y * width + x;
      const index = changed(pixel) ? table.get(colours[pixel]) : asBefore;
      for (let i = 0; i < scale; i++) row.push(index);
    }
    for (let i = 0; i < scale; i++) indices.push(row);
  }
  const packed = compressed(indices.flat(), bits);
  out.push(bits);
  for (let i = 0; i < packed.length; i += 255) {
    const block = packed.slice(i, i + 255);
    out.push(block.length, ...block);
  }
  out.push(0);
}

function latin(text) {
  return [...text].map((character) => character.charCodeAt(0));
}

function word(value) {
  return [value & 255, value >> 8];
}
