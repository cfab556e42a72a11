package igpt;

import static igpt.IgptException.Kind.*;
import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.MemorySegment;
import java.util.Arrays;

/**
 * A tensor in native memory.
 *
 * @param value ONNX Runtime's handle
 * @param type of its elements, by ONNX's number
 * @param data its elements, row by row
 */
record Tensor(MemorySegment value, int type, MemorySegment data, long... shape) {
    static final int FLOAT = 1, UINT8 = 2, INT8 = 3, INT64 = 7, FLOAT16 = 10;

    /** The size of such a tensor; negative if it is too much to be counted. */
    static long bytes(int type, long... shape) {
        try {
            long size = type == INT64 ? 8 : type == FLOAT ? 4 : type == FLOAT16 ? 2 : 1;
            return Arrays.stream(shape).reduce(size, Math::multiplyExact);
        } catch (ArithmeticException error) {
            return -1;
        }
    }

    /** This tensor, if it is of that type and shape. */
    Tensor checked(int expected, long... dimensions) {
        if (type != expected || !Arrays.equals(shape, dimensions)) {
            throw new IgptException(BUNDLE, "a graph gives " + Arrays.toString(shape) + " instead of "
                + Arrays.toString(dimensions) + "; export the bundle again");
        }
        return this;
    }

    float[] toFloats() {
        return data.toArray(JAVA_FLOAT);
    }

    int[] toTokens() {
        return Arrays.stream(data.toArray(JAVA_LONG)).mapToInt(token -> (int) token).toArray();
    }
}
