package igpt;

import static igpt.IgptException.Kind.*;
import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.lang.invoke.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * ONNX Runtime's C functions, by their position in the table {@code OrtApi}. It grows at its end only, so the positions
 * hold for every release, and this package needs no header and no release of its own.
 */
final class Ort implements AutoCloseable {
    static final int CREATE_SESSION = 7, CREATE_SESSION_FROM_ARRAY = 8, RUN = 9, CREATE_SESSION_OPTIONS = 10;
    static final int DISABLE_CPU_MEM_ARENA = 19, SET_GRAPH_OPTIMIZATION_LEVEL = 23, SET_INTRA_OP_NUM_THREADS = 24;
    static final int CREATE_RUN_OPTIONS = 39, SET_TERMINATE = 46, RELEASE_SESSION = 95, RELEASE_VALUE = 96;
    static final int RELEASE_RUN_OPTIONS = 97, RELEASE_SESSION_OPTIONS = 100, ADD_SESSION_CONFIG_ENTRY = 130;
    static final int SESSION_GET_MODEL_METADATA = 111, LOOKUP_CUSTOM_METADATA = 116, RELEASE_MODEL_METADATA = 118;
    static final int APPEND_CUDA = 204, CREATE_CUDA_OPTIONS = 205, UPDATE_CUDA_OPTIONS = 206;
    static final int RELEASE_CUDA_OPTIONS = 208, ADD_FILES_IN_MEMORY = 279;
    private static final int GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, DISABLE_TELEMETRY_EVENTS = 6;
    private static final int CREATE_TENSOR_WITH_DATA = 49, GET_TENSOR_MUTABLE_DATA = 51, GET_TENSOR_ELEMENT_TYPE = 60;
    private static final int GET_DIMENSIONS_COUNT = 61, GET_DIMENSIONS = 62, GET_TENSOR_TYPE_AND_SHAPE = 65;
    private static final int CREATE_CPU_MEMORY_INFO = 69, ALLOCATOR_FREE = 76, GET_DEFAULT_ALLOCATOR = 78;
    private static final int RELEASE_ENV = 92, RELEASE_STATUS = 93, RELEASE_MEMORY_INFO = 94, RELEASE_SHAPE = 99;
    private static final int API = 18; // of release 1.18, the first that has all of them
    private static final int LOG_FATAL = 4; // what goes wrong is told by exceptions only
    private static final boolean WINDOWS = System.getProperty("os.name").startsWith("Windows");

    final String version;
    final MemorySegment environment, allocator;
    private final Linker linker;
    private final MethodHandle[] functions = new MethodHandle[ADD_FILES_IN_MEMORY + 1];
    private final MethodHandle calloc, free;
    private final MemorySegment table, cpu;

    /** Loads the library, which stays loaded. path: where it is; null for the name under which the system finds it. */
    Ort(Path path) {
        String name = path == null ? System.mapLibraryName("onnxruntime") : path.toString();
        String remedy = "; name the shared library of ONNX Runtime 1." + API
            + " or newer with ModelOptions.runtimeLibrary or the variable IGPT_ORT_LIBRARY";
        try {
            linker = Linker.nativeLinker();
            SymbolLookup found = path == null ? SymbolLookup.libraryLookup(name, Arena.global())
                : SymbolLookup.libraryLookup(path, Arena.global());
            MemorySegment getBase = found.find("OrtGetApiBase").orElseThrow(
                () -> new IgptException(RUNTIME, name + " is not ONNX Runtime" + remedy));
            MemorySegment base = pointer(link(getBase, ADDRESS)).reinterpret(2 * ADDRESS.byteSize());
            version = text(pointer(link(base.getAtIndex(ADDRESS, 1), ADDRESS)));
            if (isBefore("1." + API)) { // asked for what it has not, it would print
                throw new IgptException(RUNTIME, name + " is ONNX Runtime " + version + ", which is too old" + remedy);
            }
            table = pointer(link(base.getAtIndex(ADDRESS, 0), ADDRESS, API), API)
                .reinterpret(functions.length * ADDRESS.byteSize());
            calloc = link(linker.defaultLookup().find("calloc").orElseThrow(), ADDRESS, 0L, 0L);
            free = link(linker.defaultLookup().find("free").orElseThrow(), null, MemorySegment.NULL);
        } catch (IllegalArgumentException error) {
            throw new IgptException(RUNTIME, "cannot load " + name + " (" + error.getMessage() + ")" + remedy, error);
        } catch (IllegalCallerException error) {
            throw new IgptException(RUNTIME, "Java may not call ONNX Runtime (" + error.getMessage()
                + "); start it with --enable-native-access=ALL-UNNAMED", error);
        }
        try (Arena arena = Arena.ofConfined()) {
            environment = make(CREATE_ENV, LOG_FATAL, arena.allocateFrom("igpt"));
        }
        call(DISABLE_TELEMETRY_EVENTS, environment);
        cpu = make(CREATE_CPU_MEMORY_INFO, 0, 0);
        allocator = make(GET_DEFAULT_ALLOCATOR);
    }

    /** Calls a function. What it reports becomes an exception. */
    void call(int position, Object... arguments) {
        MemorySegment status = pointer(function(position, ADDRESS, arguments), arguments);
        if (status.address() != 0) {
            String reason = text(pointer(function(GET_ERROR_MESSAGE, ADDRESS, status), status));
            release(RELEASE_STATUS, status);
            throw IgptException.ofRuntime(reason);
        }
    }

    /** Calls a function whose last parameter is where it writes a pointer, and returns that. */
    MemorySegment make(int position, Object... arguments) {
        try (Arena arena = Arena.ofConfined()) {
            Object[] all = Arrays.copyOf(arguments, arguments.length + 1, Object[].class);
            MemorySegment result = arena.allocate(ADDRESS);
            all[arguments.length] = result;
            call(position, all);
            return result.get(ADDRESS, 0);
        }
    }

    /** Calls a function that frees a thing. */
    void release(int position, MemorySegment thing) {
        invoke(function(position, null, thing), thing);
    }

    /** A thing that is freed with the arena. position: of the function that frees it. */
    MemorySegment kept(Arena arena, int position, MemorySegment thing) {
        return thing.reinterpret(arena, it -> release(position, it));
    }

    /** A tensor over memory of the caller's, as long as the arena. */
    Tensor tensor(Arena arena, int type, MemorySegment data, long... shape) {
        MemorySegment dimensions = arena.allocateFrom(JAVA_LONG, shape.length == 0 ? new long[1] : shape);
        MemorySegment value =
            make(CREATE_TENSOR_WITH_DATA, cpu, data, data.byteSize(), dimensions, (long) shape.length, type);
        return new Tensor(kept(arena, RELEASE_VALUE, value), type, data, shape);
    }

    Tensor zeros(Arena arena, int type, long... shape) {
        return tensor(arena, type, memory(arena, Tensor.bytes(type, shape)), shape);
    }

    Tensor scalar(Arena arena, long value) {
        Tensor tensor = zeros(arena, Tensor.INT64);
        tensor.data().set(JAVA_LONG, 0, value);
        return tensor;
    }

    Tensor scalar(Arena arena, float value) {
        Tensor tensor = zeros(arena, Tensor.FLOAT);
        tensor.data().set(JAVA_FLOAT, 0, value);
        return tensor;
    }

    /**
     * Memory that is zero, from the C library: it is not touched before it is used, and Java's limit of direct memory
     * does not count it. bytes: negative if it is too much to be counted.
     */
    MemorySegment memory(Arena arena, long bytes) {
        MemorySegment found = bytes < 0 ? MemorySegment.NULL : pointer(calloc, Math.max(bytes, 1), 1L);
        if (found.address() == 0) {
            String size = bytes < 0 ? "too much" : String.format("%.1f GB", bytes / 1e9);
            throw new IgptException(MEMORY, size + " of memory is not there; draw fewer pictures at once");
        }
        return found.reinterpret(bytes, arena, it -> invoke(free, it));
    }

    /** The tensor that a graph has made. It is freed with the arena. */
    Tensor taken(Arena arena, MemorySegment value) {
        MemorySegment shape = kept(arena, RELEASE_SHAPE, make(GET_TENSOR_TYPE_AND_SHAPE, value));
        MemorySegment number = arena.allocate(JAVA_LONG);
        call(GET_DIMENSIONS_COUNT, shape, number);
        MemorySegment dimensions = arena.allocate(JAVA_LONG, number.get(JAVA_LONG, 0));
        call(GET_DIMENSIONS, shape, dimensions, number.get(JAVA_LONG, 0));
        call(GET_TENSOR_ELEMENT_TYPE, shape, number);
        int type = number.get(JAVA_INT, 0);
        long[] sides = dimensions.toArray(JAVA_LONG);
        MemorySegment data = make(GET_TENSOR_MUTABLE_DATA, value).reinterpret(Tensor.bytes(type, sides), arena, null);
        return new Tensor(value, type, data, sides);
    }

    /** What a text of ONNX Runtime's says, which is freed; null for none. */
    String takenText(MemorySegment text) {
        if (text.address() == 0) {
            return null;
        }
        String found = text(text);
        call(ALLOCATOR_FREE, allocator, text);
        return found;
    }

    /** A path as the library takes it. */
    static MemorySegment path(Arena arena, Path path) {
        return arena.allocateFrom(path.toString(), WINDOWS ? StandardCharsets.UTF_16LE : StandardCharsets.UTF_8);
    }

    /** Whether the library is older than a release like 1.18. Throws NumberFormatException for what is none. */
    boolean isBefore(String release) {
        return Arrays.compare(numbers(version), numbers(release)) < 0;
    }

    @Override
    public void close() {
        release(RELEASE_MEMORY_INFO, cpu);
        release(RELEASE_ENV, environment);
    }

    private static int[] numbers(String release) {
        return Arrays.stream(release.split("\\.")).limit(2).mapToInt(Integer::parseInt).toArray();
    }

    private MethodHandle function(int position, MemoryLayout result, Object... arguments) {
        if (functions[position] == null) {
            functions[position] = link(table.getAtIndex(ADDRESS, position), result, arguments);
        }
        return functions[position];
    }

    /** A handle on a function whose parameters are of the arguments' types. result: null for none. */
    private MethodHandle link(MemorySegment function, MemoryLayout result, Object... arguments) {
        MemoryLayout[] layouts = Arrays.stream(arguments).map(it ->
            it instanceof Long ? JAVA_LONG : it instanceof Integer ? JAVA_INT : ADDRESS).toArray(MemoryLayout[]::new);
        return linker.downcallHandle(function, result == null
            ? FunctionDescriptor.ofVoid(layouts) : FunctionDescriptor.of(result, layouts))
            .asSpreader(Object[].class, arguments.length).asType(MethodType.methodType(Object.class, Object[].class));
    }

    private static MemorySegment pointer(MethodHandle function, Object... arguments) {
        return (MemorySegment) invoke(function, arguments);
    }

    private static Object invoke(MethodHandle function, Object... arguments) {
        try {
            return (Object) function.invokeExact(arguments);
        } catch (RuntimeException | Error error) {
            throw error;
        } catch (Throwable error) {
            throw new AssertionError(error); // a C function throws nothing
        }
    }

    private static String text(MemorySegment pointer) {
        return pointer.reinterpret(Long.MAX_VALUE).getString(0);
    }
}
