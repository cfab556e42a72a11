/** Completions as frames of a film: what was kept, what was drawn bit by bit, and a rest at the end. */

const FRAMES = 64; // at most, of the drawing
const DELAYS = { first: 60, drawing: 6, last: 250 }; // hundredths of a second
const EMPTY = 0xc4c4cc; // what is not drawn yet
const GAP = 1; // pixels between two pictures

/**
 * The pictures side by side in rows.
 *
 * @param {{tokens: ArrayLike<number>[], kept: number, palette: number[][], size: {width: number, height: number}}} completions
 *     kept: pixels that were given
 * @returns {{size: {width: number, height: number}, frames: Generator<{colours: Uint32Array, delay: number}>}}
 */
export function filmOf({ tokens, kept, palette, size }) {
  const columns = Math.ceil(Math.sqrt(tokens.length));
  const rows = Math.ceil(tokens.length / columns);
  const across = (count, length) => count * (length + GAP) - GAP;
  const sheet = { width: across(columns, size.width), height: across(rows, size.height) };
  const levels = palette.map(([red, green, blue]) => (red << 16) | (green << 8) | blue);
  const colours = new Uint32Array(sheet.width * sheet.height).fill(0xffffff);
  const put = (position, colourOf) =>
    tokens.forEach((row, i) => {
      const x = (i % columns) * (size.width + GAP) + (position % size.width);
      const y = Math.floor(i / columns) * (size.height + GAP) + Math.floor(position / size.width);
      colours[y * sheet.width + x] = colourOf(row[position]);
    });
  function* frames() {
    const total = size.width * size.height;
    for (let position = 0; position < total; position++) put(position, (token) => (position < kept ? levels[token] : EMPTY));
    yield { colours, delay: DELAYS.first };
    const stride = Math.ceil((total - kept) / FRAMES);
    for (let position = kept; position < total; position++) {
      put(position, (token) => levels[token]);
      const isLast = position === total - 1;
      if (isLast || (position + 1 - kept) % stride === 0) yield { colours, delay: isLast ? DELAYS.last : DELAYS.drawing };
    }
  }
  return { size: sheet, frames: frames() };
}
