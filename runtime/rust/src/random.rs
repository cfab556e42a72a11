//! Random numbers, each of which depends on seed, sample and position alone.

const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
const PARITY: u32 = 0x1bd1_1bda;

/// Threefry-2x32 with 20 rounds (Salmon et al., SC 2011): encrypts a counter of two words under a key of two words.
pub fn threefry2x32(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    let words = [key[0], key[1], key[0] ^ key[1] ^ PARITY];
    let [mut x0, mut x1] = [counter[0].wrapping_add(key[0]), counter[1].wrapping_add(key[1])];
    for block in 0..5 {
        for rotation in ROTATIONS[block % 2] {
            x0 = x0.wrapping_add(x1);
            x1 = x1.rotate_left(rotation) ^ x0;
        }
        x0 = x0.wrapping_add(words[(block + 1) % 3]);
        x1 = x1.wrapping_add(words[(block + 2) % 3]).wrapping_add(block as u32 + 1);
    }
    [x0, x1]
}

/// The number in [0, 1) that draws the token at `position` of a sample. Both count from 0.
///
/// ```
/// assert_eq!(igpt::random::uniform(0, 0, 0), 0.4184570908546448);
/// ```
pub fn uniform(seed: u64, sample: u32, position: u32) -> f32 {
    let [word, _] = threefry2x32([(seed >> 32) as u32, seed as u32], [sample, position]);
    (word >> 8) as f32 / (1u32 << 24) as f32 // 24 bits: exact in f32
}
