package igpt;

import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.util.*;

/**
 * A decode graph whose inputs and outputs are set once. Each cache is past and present at once, so that the graph
 * writes new slots in place, and a step copies nothing but its tokens.
 */
final class Decoder {
    private static final int SHARED_ROWS = 6; // from so many rows on, sharing the prefix is faster than a copy for each
    private static final int SHARED_PREFIX = 16; // from so many given tokens on
    private static final int SHARED_CHANNELS = 8; // that the cache of decode_shared has more than a head
    private static final byte SENTINEL = 127; // the one of an int8 cache

    private final Ort ort;
    private final Info info;
    private final SamplingOptions options;
    private final Arena arena;
    private final Graph.Call call;
    private final Tensor fed, drawn, pastLength, uniform;

    /** Reads all given tokens but the last, which the first step feeds. The arena keeps all of it. */
    Decoder(Bundle bundle, Arena arena, int[] primer, SamplingOptions options) {
        this.ort = bundle.ort;
        this.info = bundle.info;
        this.options = options;
        this.arena = arena;
        int rows = options.n(), length = primer.length;
        boolean shares = length >= SHARED_PREFIX && (info.rounds() || rows >= SHARED_ROWS)
            && bundle.options.provider() == ModelOptions.Provider.CPU && bundle.has("decode_shared");
        fed = ort.zeros(arena, Tensor.INT64, rows, 1);
        drawn = ort.zeros(arena, Tensor.INT64, rows, 1);
        pastLength = ort.scalar(arena, 0L);
        uniform = ort.zeros(arena, Tensor.FLOAT, rows);
        for (int row = 0; row < rows; row++) {
            fed.data().setAtIndex(JAVA_LONG, row, length == 0 ? info.nClusters() : primer[length - 1]);
        }
        List<Tensor> own, outputs = new ArrayList<>(List.of(drawn));
        List<String> names = new ArrayList<>(List.of("next_ids"));
        Map<String, Tensor> inputs = new HashMap<>(Map.of(
            "input_ids", fed, "past_length", pastLength, "uniform", uniform, "top_k", ort.scalar(arena, options.topK()),
            "temperature", ort.scalar(arena, options.temperature().floatValue()),
            "top_p", ort.scalar(arena, options.topP().floatValue())));
        try (Arena once = Arena.ofShared()) {
            List<Tensor> slots = length == 0 ? List.of() : slots(bundle, once, primer);
            for (int i = 0; shares && i < slots.size(); i++) {
                inputs.put(name("prefix", i), prefix(slots.get(i), i % 2 == 0, length));
            }
            own = shares ? empty(rows, info.nPositions() - length + 1) : copied(slots, rows, length);
        }
        for (int i = 0; i < own.size(); i++) {
            inputs.put(name("past_key_values", i), own.get(i));
            names.add(name("present", i));
        }
        outputs.addAll(own);
        call = bundle.graph(shares ? "decode_shared" : "decode").prepare(arena, inputs, names, outputs);
    }

    /** Draws the token at a position, one for each row. The positions before must have been drawn. */
    int[] draw(int position) {
        pastLength.data().set(JAVA_LONG, 0, position);
        for (int row = 0; row < options.n(); row++) {
            uniform.data().setAtIndex(JAVA_FLOAT, row, Threefry.uniform(options.seed(), row, position));
        }
        call.run(options.cancellation());
        fed.data().copyFrom(drawn.data());
        return drawn.toTokens();
    }

    /**
     * Key and value of each block, [1, heads, length, channels], for sos and all given tokens but the last. Only
     * prefill gives those of complete.onnx: with an int8 cache, decode attends to slots that are rounded already.
     */
    private List<Tensor> slots(Bundle bundle, Arena memory, int[] primer) {
        Tensor tokens = ort.zeros(memory, Tensor.INT64, 1, primer.length);
        tokens.data().set(JAVA_LONG, 0, info.nClusters()); // sos
        for (int i = 1; i < primer.length; i++) {
            tokens.data().setAtIndex(JAVA_LONG, i, primer[i - 1]);
        }
        String[] names = new String[2 * info.nLayer()];
        Arrays.setAll(names, i -> name("present", i));
        try (Graph prefill = bundle.openOnce("prefill")) {
            List<Tensor> slots = prefill.run(memory, options.cancellation(), Map.of("input_ids", tokens), names);
            slots.forEach(part -> part.checked(info.cacheType(), 1, info.nHead(), primer.length, info.headDim()));
            return slots;
        }
    }

    /**
     * Zeros of key and value of each block, [rows, heads, capacity, channels]: portable attention must meet no NaN
     * there.
     */
    private List<Tensor> cache(int rows, int capacity, int channels) {
        long[] shape = {rows, info.nHead(), capacity, channels};
        long each = Tensor.bytes(info.cacheType(), shape), parts = 2 * info.nLayer();
        // In one piece: of what is more than the machine has, the system would grant the parts.
        MemorySegment all = ort.memory(arena, each < 0 ? each : Tensor.bytes(Tensor.UINT8, parts, each));
        List<Tensor> cache = new ArrayList<>();
        for (int i = 0; i < parts; i++) {
            cache.add(ort.tensor(arena, info.cacheType(), all.asSlice(i * each, each), shape));
        }
        return cache;
    }

    /** The cache of rows that each begin with these slots. */
    private List<Tensor> copied(List<Tensor> slots, int rows, int length) {
        List<Tensor> cache = cache(rows, info.nPositions(), info.headDim());
        long stride = Tensor.bytes(info.cacheType(), info.nPositions(), info.headDim());
        long bytes = Tensor.bytes(info.cacheType(), length, info.headDim());
        for (int i = 0; i < slots.size(); i++) {
            for (long to = 0; to < (long) rows * info.nHead(); to++) {
                MemorySegment.copy(
                    slots.get(i).data(), to % info.nHead() * bytes, cache.get(i).data(), to * stride, bytes);
            }
        }
        return cache;
    }

    /** These slots in float32: a key [1, heads, length, channels], a value transposed. */
    private Tensor prefix(Tensor slots, boolean key, int length) {
        int heads = info.nHead(), channels = info.headDim();
        Tensor part = ort.zeros(arena, Tensor.FLOAT, 1, heads, key ? length : channels, key ? channels : length);
        for (long from = 0; from < (long) heads * length * channels; from++) {
            long head = from / channels / length, slot = from / channels % length, channel = from % channels;
            long to = key ? from : (head * channels + channel) * length + slot;
            part.data().setAtIndex(JAVA_FLOAT, to, slots.type() == Tensor.INT8
                ? slots.data().get(JAVA_BYTE, from) : slots.data().getAtIndex(JAVA_FLOAT, from));
        }
        return part;
    }

    /** The cache of the rows' own tokens: empty but for the sentinel. */
    private List<Tensor> empty(int rows, int capacity) {
        int channels = info.headDim() + SHARED_CHANNELS;
        List<Tensor> cache = cache(rows, capacity, channels);
        for (Tensor part : cache) {
            for (long row = 0; row < (long) rows * info.nHead(); row++) {
                long at = row * capacity * channels + info.headDim();
                if (part.type() == Tensor.INT8) {
                    part.data().set(JAVA_BYTE, at, SENTINEL);
                } else {
                    part.data().setAtIndex(JAVA_FLOAT, at, 1);
                }
            }
        }
        return cache;
    }

    private static String name(String kind, int part) {
        return kind + "." + part / 2 + (part % 2 == 0 ? ".key" : ".value");
    }
}
