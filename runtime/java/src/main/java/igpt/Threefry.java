package igpt;

/** Random numbers that depend on nothing but (seed, sample, position): SPEC section 5. */
final class Threefry {
    private static final int[][] ROTATIONS = {{13, 15, 26, 6}, {17, 29, 16, 24}};

    private Threefry() {}

    /**
     * Threefry-2x32 with 20 rounds: encrypts the counter (c0, c1) under the key (k0, k1). Returns two words, high
     * first.
     */
    static long encrypt(int k0, int k1, int c0, int c1) {
        int[] key = {k0, k1, k0 ^ k1 ^ 0x1bd11bda};
        int x0 = c0 + k0, x1 = c1 + k1;
        for (int block = 0; block < 5; block++) {
            for (int rotation : ROTATIONS[block % 2]) {
                x0 += x1;
                x1 = Integer.rotateLeft(x1, rotation) ^ x0;
            }
            x0 += key[(block + 1) % 3];
            x1 += key[(block + 2) % 3] + block + 1;
        }
        return (long) x0 << 32 | x1 & 0xffffffffL;
    }

    /** The draw of one sample at one position, in [0, 1). seed: its 64 bits. */
    static float uniform(long seed, int sample, int position) {
        return (encrypt((int) (seed >>> 32), (int) seed, sample, position) >>> 40) * 0x1p-24f; // 24 bits: exact
    }
}
