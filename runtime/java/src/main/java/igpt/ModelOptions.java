package igpt;

import static igpt.IgptException.Kind.*;
import static java.lang.foreign.ValueLayout.ADDRESS;

import java.lang.foreign.*;
import java.nio.file.Path;

/**
 * How a bundle is opened. Each method with an argument returns other options that differ in it.
 *
 * @param runtimeLibrary the shared library of ONNX Runtime 1.18 or newer, such as {@code libonnxruntime.so.1.32.0}.
 *     Null, the default, is that which the environment variable {@code IGPT_ORT_LIBRARY} names, else that which the
 *     system finds
 * @param threads inside one operator, at most 1024; 0, the default, is ONNX Runtime's choice: one per core
 * @param spinning whether idle threads wait for work busily, by default not. That is faster on a machine without other
 *     work, and much slower on one with it
 * @param arena whether ONNX Runtime keeps memory that it has used for later calls, by default so
 * @param provider where graphs run, by default on the CPU
 */
public record ModelOptions(Path runtimeLibrary, int threads, boolean spinning, boolean arena, Provider provider) {
    private static final int MAX_THREADS = 1024;

    /** Where graphs run. */
    public enum Provider {
        /** The processor. */
        CPU,
        /** An NVIDIA GPU. The shared library must have been built for CUDA. */
        CUDA
    }

    /**
     * Checks them.
     *
     * @throws IgptException OPTION: threads is out of range, or provider is null
     */
    public ModelOptions {
        if (threads < 0 || threads > MAX_THREADS || provider == null) {
            throw new IgptException(OPTION, "threads must be 0 .. " + MAX_THREADS
                + " (0 is ONNX Runtime's choice), got " + threads + "; provider CPU or CUDA, got " + provider);
        }
    }

    /** The defaults. */
    public ModelOptions() {
        this(null, 0, false, true, Provider.CPU);
    }

    /**
     * Sets the shared library of ONNX Runtime.
     *
     * @param path of its file
     * @return the other options
     */
    public ModelOptions runtimeLibrary(Path path) {
        return new ModelOptions(path, threads, spinning, arena, provider);
    }

    /**
     * Sets the number of threads.
     *
     * @param count 0 .. 1024
     * @return the other options
     */
    public ModelOptions threads(int count) {
        return new ModelOptions(runtimeLibrary, count, spinning, arena, provider);
    }

    /**
     * Sets whether threads spin.
     *
     * @param on whether they do
     * @return the other options
     */
    public ModelOptions spinning(boolean on) {
        return new ModelOptions(runtimeLibrary, threads, on, arena, provider);
    }

    /**
     * Sets whether memory is kept.
     *
     * @param on whether it is
     * @return the other options
     */
    public ModelOptions arena(boolean on) {
        return new ModelOptions(runtimeLibrary, threads, spinning, on, provider);
    }

    /**
     * Sets where graphs run.
     *
     * @param which the place
     * @return the other options
     */
    public ModelOptions provider(Provider which) {
        return new ModelOptions(runtimeLibrary, threads, spinning, arena, which);
    }

    /**
     * ONNX Runtime's own options, which the memory keeps.
     *
     * @param once whether they are for a graph that is opened for one run
     * @param packed whether its weights are packed even so
     */
    MemorySegment create(Ort ort, Arena memory, boolean once, boolean packed) {
        MemorySegment options = ort.kept(memory, Ort.RELEASE_SESSION_OPTIONS, ort.make(Ort.CREATE_SESSION_OPTIONS));
        String spins = spinning ? "1" : "0";
        set(ort, memory, options, "session.intra_op.allow_spinning", spins);
        set(ort, memory, options, "session.inter_op.allow_spinning", spins);
        if (threads > 0) {
            ort.call(Ort.SET_INTRA_OP_NUM_THREADS, options, threads);
        }
        if (!arena) {
            ort.call(Ort.DISABLE_CPU_MEM_ARENA, options);
        }
        if (provider == Provider.CUDA) {
            appendCuda(ort, memory, options);
        } else if (once) { // the kernels that matter are in the graph already
            ort.call(Ort.SET_GRAPH_OPTIMIZATION_LEVEL, options, 0);
            set(ort, memory, options, "session.disable_prepacking", packed ? "0" : "1");
        }
        return options;
    }

    private static void set(Ort ort, Arena memory, MemorySegment options, String key, String value) {
        ort.call(Ort.ADD_SESSION_CONFIG_ENTRY, options, memory.allocateFrom(key), memory.allocateFrom(value));
    }

    private static void appendCuda(Ort ort, Arena memory, MemorySegment options) {
        try {
            MemorySegment cuda = ort.kept(memory, Ort.RELEASE_CUDA_OPTIONS, ort.make(Ort.CREATE_CUDA_OPTIONS));
            // float32 keeps its 23 bits, and norms of float16 do not sum squares in it.
            String[] texts = {"use_tf32", "enable_skip_layer_norm_strict_mode", "0", "1"};
            MemorySegment list = memory.allocate(ADDRESS, texts.length);
            for (int i = 0; i < texts.length; i++) {
                list.setAtIndex(ADDRESS, i, memory.allocateFrom(texts[i]));
            }
            ort.call(Ort.UPDATE_CUDA_OPTIONS, cuda, list, list.asSlice(2 * ADDRESS.byteSize()), 2L);
            ort.call(Ort.APPEND_CUDA, options, cuda);
        } catch (IgptException error) {
            throw error.within(RUNTIME, "ONNX Runtime " + ort.version + " does not start CUDA",
                "load a library built for CUDA, or take Provider.CPU");
        }
    }
}
