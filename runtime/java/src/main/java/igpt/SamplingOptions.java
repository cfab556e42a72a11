package igpt;

import static igpt.IgptException.Kind.*;

/**
 * How tokens are drawn. Each method with an argument returns other options that differ in it. The same options give the
 * same tokens, whatever {@code n} is, except for rounding (SPEC section 5).
 *
 * @param n number of pictures, 1 .. 65536, by default 8. All are drawn at once, so memory grows with it
 * @param seed its 64 bits, by default 0: a seed counts from 0 to 2^64 - 1, and {@link Long#parseUnsignedLong(String)}
 *     makes the bits of a text
 * @param temperature divides the logits, finite and at least 0; 0 always takes the likeliest token. Null, the default,
 *     is what the bundle recommends
 * @param topK draw among so many likeliest tokens, at least 0; 0 is off. Null, the default, is what the bundle
 *     recommends
 * @param topP draw among the likeliest tokens that reach this probability together, above 0 and at most 1; 1 is off.
 *     Null, the default, is what the bundle recommends
 * @param keepRows rows at the top of the model's picture that are kept, 0 .. height - 1; only completing reads it.
 *     Null, the default, is half of them
 * @param progress who is told of each step; null, the default, for nobody. {@link Model#completeOnce} tells nobody
 * @param cancellation what ends the call from another thread; null, the default, for one of the call's own
 */
public record SamplingOptions(int n, long seed, Double temperature, Long topK, Double topP, Integer keepRows,
        Progress progress, Cancellation cancellation) {
    private static final int MAX_N = 1 << 16;

    /** Is told of each step. */
    @FunctionalInterface
    public interface Progress {
        /**
         * Called after a step, by the thread that draws.
         *
         * @param position that was drawn
         * @param drawn tokens drawn so far, of all pictures together
         * @param total tokens to draw
         */
        void step(int position, long drawn, long total);
    }

    /**
     * Checks all but keepRows, which the model does.
     *
     * @throws IgptException OPTION: an option is out of range
     */
    public SamplingOptions {
        check("n", n, n >= 1 && n <= MAX_N, "1 .. " + MAX_N);
        check("temperature", temperature, temperature == null || temperature >= 0 && Double.isFinite(temperature),
            "finite and at least 0");
        check("topK", topK, topK == null || topK >= 0, "at least 0 (0 is off)");
        check("topP", topP, topP == null || topP > 0 && topP <= 1, "above 0 and at most 1 (1 is off)");
    }

    /** The defaults. */
    public SamplingOptions() {
        this(8, 0, null, null, null, null, null, null);
    }

    /**
     * Sets the number of pictures.
     *
     * @param count 1 .. 65536
     * @return the other options
     */
    public SamplingOptions n(int count) {
        return new SamplingOptions(count, seed, temperature, topK, topP, keepRows, progress, cancellation);
    }

    /**
     * Sets the seed.
     *
     * @param bits of the seed
     * @return the other options
     */
    public SamplingOptions seed(long bits) {
        return new SamplingOptions(n, bits, temperature, topK, topP, keepRows, progress, cancellation);
    }

    /**
     * Sets the temperature.
     *
     * @param value finite, at least 0
     * @return the other options
     */
    public SamplingOptions temperature(double value) {
        return new SamplingOptions(n, seed, value, topK, topP, keepRows, progress, cancellation);
    }

    /**
     * Sets top-k.
     *
     * @param count at least 0
     * @return the other options
     */
    public SamplingOptions topK(long count) {
        return new SamplingOptions(n, seed, temperature, count, topP, keepRows, progress, cancellation);
    }

    /**
     * Sets top-p.
     *
     * @param probability above 0 and at most 1
     * @return the other options
     */
    public SamplingOptions topP(double probability) {
        return new SamplingOptions(n, seed, temperature, topK, probability, keepRows, progress, cancellation);
    }

    /**
     * Sets how many rows are kept.
     *
     * @param count 0 .. height - 1
     * @return the other options
     */
    public SamplingOptions keepRows(int count) {
        return new SamplingOptions(n, seed, temperature, topK, topP, count, progress, cancellation);
    }

    /**
     * Sets who is told of each step.
     *
     * @param listener null for nobody
     * @return the other options
     */
    public SamplingOptions progress(Progress listener) {
        return new SamplingOptions(n, seed, temperature, topK, topP, keepRows, listener, cancellation);
    }

    /**
     * Sets what ends the call.
     *
     * @param end null for one of the call's own
     * @return the other options
     */
    public SamplingOptions cancellation(Cancellation end) {
        return new SamplingOptions(n, seed, temperature, topK, topP, keepRows, progress, end);
    }

    /** The same options with a value for each, as the graphs take them. */
    SamplingOptions resolved(Info info) {
        int rows = keepRows == null ? info.height() / 2 : keepRows;
        check("keepRows", rows, rows >= 0 && rows < info.height(), "0 .. " + (info.height() - 1));
        return new SamplingOptions(n, seed,
            Math.min(temperature == null ? info.temperature() : temperature, Float.MAX_VALUE),
            Math.min(topK == null ? info.topK() : topK, info.nClusters()), topP == null ? info.topP() : topP, rows,
            progress, cancellation == null ? new Cancellation() : cancellation);
    }

    private static void check(String name, Object value, boolean good, String range) {
        if (!good) {
            throw new IgptException(OPTION, name + " must be " + range + ", got " + value);
        }
    }
}
