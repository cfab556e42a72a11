package igpt;

import static igpt.IgptException.Kind.*;
import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.nio.file.Path;
import java.util.*;
import java.util.function.Function;

/** A graph that ONNX Runtime has opened. */
final class Graph implements AutoCloseable {
    private final Ort ort;
    private final String place;
    private final MemorySegment session;

    /**
     * @param place what messages call it
     * @param file of the graph, beside that of its weights; null to open it from memory
     * @param model the same in native memory
     * @param weights the file of the weights in native memory, if it is opened from there; null if there is none
     * @param options makes ONNX Runtime's own
     */
    Graph(Ort ort, String place, Path file, MemorySegment model, MemorySegment weights,
            Function<Arena, MemorySegment> options) {
        this.ort = ort;
        this.place = place;
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment all = options.apply(arena);
            if (weights != null && file == null) {
                ort.call(Ort.ADD_FILES_IN_MEMORY, all, names(arena, List.of(Bundle.WEIGHTS)),
                    pointers(arena, List.of(weights)), arena.allocateFrom(JAVA_LONG, weights.byteSize()), 1L);
            }
            try {
                session = file != null ? ort.make(Ort.CREATE_SESSION, ort.environment, Ort.path(arena, file), all)
                    : ort.make(Ort.CREATE_SESSION_FROM_ARRAY, ort.environment, model, model.byteSize(), all);
            } catch (IgptException error) {
                throw error.within(BUNDLE, "ONNX Runtime " + ort.version + " cannot open " + place,
                    "copy or export the bundle again, or install a newer ONNX Runtime");
            }
        }
    }

    String place() {
        return place;
    }

    /** What its metadata have for a key, without "igpt."; null for nothing. */
    String text(String key) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment all = ort.kept(
                arena, Ort.RELEASE_MODEL_METADATA, ort.make(Ort.SESSION_GET_MODEL_METADATA, session));
            return ort.takenText(
                ort.make(Ort.LOOKUP_CUSTOM_METADATA, all, ort.allocator, arena.allocateFrom("igpt." + key)));
        }
    }

    /** Runs it once. Returns the named outputs, which the arena keeps. */
    List<Tensor> run(Arena arena, Cancellation cancellation, Map<String, Tensor> inputs, String... outputs) {
        MemorySegment results = prepare(arena, inputs, List.of(outputs), List.of()).run(cancellation);
        List<MemorySegment> values = new ArrayList<>();
        for (int i = 0; i < outputs.length; i++) {
            values.add(ort.kept(arena, Ort.RELEASE_VALUE, results.getAtIndex(ADDRESS, i)));
        }
        return values.stream().map(value -> ort.taken(arena, value)).toList();
    }

    /** A run that can be repeated. outputs: where the named ones are written, or none, to have them made. */
    Call prepare(Arena arena, Map<String, Tensor> inputs, List<String> names, List<Tensor> outputs) {
        List<String> keys = List.copyOf(inputs.keySet());
        MemorySegment results = arena.allocate(ADDRESS, names.size());
        for (int i = 0; i < outputs.size(); i++) {
            results.setAtIndex(ADDRESS, i, outputs.get(i).value());
        }
        Object[] arguments = {session, null, names(arena, keys),
            pointers(arena, keys.stream().map(key -> inputs.get(key).value()).toList()), (long) keys.size(),
            names(arena, names), (long) names.size(), results};
        return cancellation -> {
            MemorySegment options = ort.make(Ort.CREATE_RUN_OPTIONS);
            Runnable end = () -> ort.call(Ort.SET_TERMINATE, options);
            arguments[1] = options;
            try {
                cancellation.enter(end);
                ort.call(Ort.RUN, arguments);
                return results;
            } catch (IgptException error) {
                throw cancellation.isCancelled() ? Cancellation.error() : error.within(RUNTIME, "ONNX Runtime "
                    + ort.version + " failed in " + place, "try another release of it, or export the bundle again");
            } finally {
                cancellation.leave(end); // nobody ends it from here on
                ort.release(Ort.RELEASE_RUN_OPTIONS, options);
            }
        };
    }

    @Override
    public void close() {
        ort.release(Ort.RELEASE_SESSION, session);
    }

    private static MemorySegment names(Arena arena, List<String> names) {
        return pointers(arena, names.stream().map(arena::allocateFrom).toList());
    }

    private static MemorySegment pointers(Arena arena, List<MemorySegment> segments) {
        MemorySegment list = arena.allocate(ADDRESS, segments.size());
        for (int i = 0; i < segments.size(); i++) {
            list.setAtIndex(ADDRESS, i, segments.get(i));
        }
        return list;
    }

    /** What {@link #prepare} makes. */
    interface Call {
        /** Runs the graph, and returns pointers to its outputs. */
        MemorySegment run(Cancellation cancellation);
    }
}
