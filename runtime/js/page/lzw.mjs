/** LZW as GIF has it. */

/** Indices below 2 to the power `bits` as bytes, by codes that grow from `bits` + 1 to 12 bits. */
export function compressed(indices, bits) {
  const clear = 1 << bits;
  const bytes = [];
  const codes = new Map(); // of a code and the index after it
  let [next, size, rest, filled] = [clear + 2, bits + 1, 0, 0];
  const put = (code) => {
    rest |= code << filled;
    for (filled += size; filled >= 8; filled -= 8, rest >>>= 8) bytes.push(rest & 255);
  };
  put(clear);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const key = (prefix << 8) | indices[i];
    const known = codes.get(key);
    if (known !== undefined) {
      prefix = known;
      continue;
    }
    put(prefix);
    if (next === 1 << 12) {
      put(clear);
      codes.clear();
      [next, size] = [clear + 2, bits + 1];
    } else {
      if (next === 1 << size) size++;
      codes.set(key, next++);
    }
    prefix = indices[i];
  }
  put(prefix);
  if (next === 1 << size && size < 12) size++; // as the reader has it after the last code
  put(clear + 1);
  if (filled) bytes.push(rest);
  return bytes;
}
