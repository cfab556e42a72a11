/** Uniform draws from a counter-based generator: a draw depends on nothing but (seed, sample, position). SPEC section 5. */

const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
];
const PARITY = 0x1bd11bda;

/**
 * Threefry-2x32 with 20 rounds: encrypts a 64-bit counter under a 64-bit key.
 *
 * @param {number} k0 first word of the key, 0 .. 2^32 - 1; k1 the second, c0 and c1 those of the counter
 * @returns {[number, number]} two words, 0 .. 2^32 - 1
 */
export function threefry2x32(k0, k1, c0, c1) {
  const words = [k0 | 0, k1 | 0, k0 ^ k1 ^ PARITY];
  let x0 = (c0 + k0) | 0;
  let x1 = (c1 + k1) | 0;
  for (let block = 0; block < 5; block++) {
    for (const rotation of ROTATIONS[block % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    }
    x0 = (x0 + words[(block + 1) % 3]) | 0;
    x1 = (x1 + words[(block + 2) % 3] + block + 1) | 0;
  }
  return [x0 >>> 0, x1 >>> 0];
}

/**
 * Writes the draws of samples 0, 1, .. for one position into `target`, float32 in [0, 1).
 *
 * @param {bigint} seed 0 .. 2^64 - 1
 * @param {number} position of the token to draw, 0-based
 * @param {Float32Array} target one draw a sample
 */
export function drawUniforms(seed, position, target) {
  const high = Number(seed >> 32n);
  const low = Number(seed & 0xffffffffn);
  for (let sample = 0; sample < target.length; sample++) {
    const [word] = threefry2x32(high, low, sample, position);
    target[sample] = (word >>> 8) / 2 ** 24; // 24 bits: exact in float32
  }
}
