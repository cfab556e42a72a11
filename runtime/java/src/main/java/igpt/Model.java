package igpt;

import static igpt.IgptException.Kind.*;
import static java.lang.foreign.ValueLayout.*;

import java.lang.foreign.*;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.*;
import java.util.stream.IntStream;

/**
 * An opened bundle of an ImageGPT model. Graphs are opened when first needed, and stay open until {@link #close}.
 *
 * <p>Safe for use by several threads: its calls and the steps of its runs wait for each other. Two models do not.
 *
 * <p>All methods throw {@link IgptException}, besides what they say: BUNDLE, the bundle lacks a graph or a file was
 * altered; RUNTIME, ONNX Runtime failed or is too old for the bundle; MEMORY; STATE, the model was closed.
 */
public final class Model implements AutoCloseable {
    final Set<Run> open = Collections.newSetFromMap(new IdentityHashMap<>()); // those that have native memory
    private final Bundle bundle;
    private final Info info;
    private final ReentrantLock lock = new ReentrantLock();
    private boolean closed;

    private Model(Bundle bundle) {
        this.bundle = bundle;
        this.info = bundle.info;
    }

    /**
     * Opens a bundle.
     *
     * @param path its directory, or one graph's file, such as a {@code complete.onnx} of {@code igpt-export
     *     --single-file}: then only what this graph does can be asked for
     * @param options how
     * @return the opened bundle
     * @throws IgptException BUNDLE: there is none, or it is damaged or of an unknown version; RUNTIME: ONNX Runtime is
     *     not found, or too old
     */
    public static Model open(Path path, ModelOptions options) {
        return new Model(new Bundle(options, path, Map.of()));
    }

    /**
     * Opens a bundle with the default options.
     *
     * @param path as above
     * @return the opened bundle
     * @throws IgptException as above
     */
    public static Model open(Path path) {
        return open(path, new ModelOptions());
    }

    /**
     * Opens a bundle from memory.
     *
     * @param files contents by the files' names in the bundle, such as {@code complete.onnx} and {@code
     *     weights.safetensors}: those graphs that are needed, and the weights unless the graphs hold them. Native
     *     memory is not copied and must stay until the model is closed; {@code MemorySegment.ofArray} makes a segment
     *     of an array, which is copied
     * @param options how
     * @return the opened bundle
     * @throws IgptException as above
     */
    public static Model open(Map<String, MemorySegment> files, ModelOptions options) {
        return new Model(new Bundle(options, null, files));
    }

    /** {@return what the bundle says of itself; also after closing} */
    public Info info() {
        return info;
    }

    /**
     * Keeps the top rows of a picture and draws the rest n times, step by step.
     *
     * @param image of any size
     * @param options how; {@code keepRows} says how many rows of the model's picture are kept
     * @return the run, which draws when it is asked to
     * @throws IgptException OPTION: an option does not fit the bundle; CANCELLED
     */
    public Run complete(Picture image, SamplingOptions options) {
        SamplingOptions all = options.resolved(info);
        int[] given = all.keepRows() == 0 ? new int[0] : tokens(image, all.cancellation());
        return new Run(this, Arrays.copyOf(given, all.keepRows() * info.width()), all);
    }

    /**
     * Draws n whole pictures from nothing, step by step.
     *
     * @param options how
     * @return the run, which draws when it is asked to
     */
    public Run sample(SamplingOptions options) {
        return generate(new int[0], options);
    }

    /**
     * Draws what follows the first tokens of a picture, n times, step by step.
     *
     * @param primer the tokens, each 0 .. nClusters - 1; at most nPositions, and there may be none
     * @param options how
     * @return the run, which draws when it is asked to
     * @throws IgptException OPTION: the primer is too long, or holds what is no token
     */
    public Run generate(int[] primer, SamplingOptions options) {
        checkTokens("a primer", primer, 0, info.nPositions());
        return new Run(this, primer.clone(), options.resolved(info));
    }

    /**
     * As {@link #complete}, in one call of the bundle's complete graph.
     *
     * @param image of any size
     * @param options how; nobody is told of progress
     * @return pictures and tokens
     * @throws IgptException OPTION: an option does not fit the bundle; CANCELLED
     */
    public Completion completeOnce(Picture image, SamplingOptions options) {
        SamplingOptions all = options.resolved(info);
        return alone(() -> {
            try (Arena arena = Arena.ofConfined()) {
                Ort ort = bundle().ort;
                Map<String, Tensor> inputs = Map.of("image", input(arena, image), "n", ort.scalar(arena, all.n()),
                    "keep_rows", ort.scalar(arena, all.keepRows()), "seed", ort.scalar(arena, all.seed()),
                    "temperature", ort.scalar(arena, all.temperature().floatValue()),
                    "top_k", ort.scalar(arena, all.topK()), "top_p", ort.scalar(arena, all.topP().floatValue()));
                List<Tensor> found =
                    bundle().graph("complete").run(arena, all.cancellation(), inputs, "images", "tokens");
                int[] tokens = found.get(1).checked(Tensor.INT64, all.n(), info.nPositions()).toTokens();
                int[][] rows = new int[all.n()][];
                Arrays.setAll(rows, row ->
                    Arrays.copyOfRange(tokens, row * info.nPositions(), (row + 1) * info.nPositions()));
                return new Completion(pictures(found.get(0), all.n()), rows);
            }
        });
    }

    /**
     * Every class with its probability; of a regression, every value.
     *
     * @param image of any size
     * @return likeliest or largest first, [labels]
     */
    public List<Classification> classify(Picture image) {
        String output = info.functionToApply().equals("none") ? "values" : "probabilities";
        return ofPicture("classify", image, new Cancellation(), List.of(output), found -> {
            float[] values = found.get(0).checked(Tensor.FLOAT, info.labels().size()).toFloats();
            return IntStream.range(0, values.length).mapToObj(i -> new Classification(info.labels().get(i), values[i]))
                .sorted(Comparator.comparing(Classification::value).reversed()).toList();
        });
    }

    /**
     * Mean-pooled hidden states.
     *
     * @param image of any size
     * @return [nLayer + 1, n_embd]
     */
    public Features features(Picture image) {
        int rows = info.nLayer() + 1, columns = info.nHead() * info.headDim();
        return ofPicture("features", image, new Cancellation(), List.of("features"), found ->
            new Features(rows, columns, found.get(0).checked(Tensor.FLOAT, rows, columns).toFloats()));
    }

    /**
     * What a picture costs under the model.
     *
     * @param image of any size
     * @return nats of each token, and their mean
     */
    public Score score(Picture image) {
        return ofPicture("score", image, new Cancellation(), List.of("nats", "nats_per_token"), found -> new Score(
            found.get(1).checked(Tensor.FLOAT).toFloats()[0],
            found.get(0).checked(Tensor.FLOAT, info.height(), info.width()).toFloats()));
    }

    /**
     * The tokens of a picture.
     *
     * @param image of any size
     * @return [height x width] of the model's
     */
    public int[] tokens(Picture image) {
        return tokens(image, new Cancellation());
    }

    /**
     * Pictures of tokens.
     *
     * @param tokens of each picture, [n][height x width]
     * @return [n]
     * @throws IgptException OPTION: a picture has another number of tokens, or what is no token
     */
    public List<Picture> images(int[][] tokens) {
        int positions = info.nPositions();
        for (int[] picture : tokens) {
            checkTokens("a picture", picture, positions, positions);
        }
        return tokens.length == 0 ? List.of() : alone(() -> {
            try (Arena arena = Arena.ofConfined()) {
                Tensor input = bundle().ort.zeros(arena, Tensor.INT64, tokens.length, positions);
                for (int row = 0; row < tokens.length; row++) {
                    for (int i = 0; i < positions; i++) {
                        input.data().setAtIndex(JAVA_LONG, (long) row * positions + i, tokens[row][i]);
                    }
                }
                Graph graph = bundle().graph("postprocess");
                List<Tensor> found = graph.run(arena, new Cancellation(), Map.of("tokens", input), "images");
                return pictures(found.get(0), tokens.length);
            }
        });
    }

    /** Closes all graphs and runs, once a call that goes on has ended. Closing again does nothing. */
    @Override
    public void close() {
        alone(() -> {
            if (!closed) {
                List.copyOf(open).forEach(Run::free);
                closed = true;
                bundle.close();
            }
            return null;
        });
    }

    /** Does something while no other thread uses the graphs. */
    <T> T alone(Supplier<T> work) {
        lock.lock();
        try {
            return work.get();
        } catch (OutOfMemoryError error) {
            throw new IgptException(
                MEMORY, "Java has no memory left (" + error.getMessage() + "); draw fewer pictures at once", error);
        } finally {
            lock.unlock();
        }
    }

    Bundle bundle() {
        if (closed) {
            throw new IgptException(STATE, "the model " + info.name() + " was closed; open it again");
        }
        return bundle;
    }

    private int[] tokens(Picture image, Cancellation cancellation) {
        return ofPicture("preprocess", image, cancellation, List.of("tokens"), found -> {
            int[] tokens = found.get(0).checked(Tensor.INT64, info.nPositions()).toTokens();
            checkTokens("the picture's graph", tokens, tokens.length, tokens.length);
            return tokens;
        });
    }

    private <T> T ofPicture(String graph, Picture image, Cancellation cancellation, List<String> outputs,
            Function<List<Tensor>, T> read) {
        return alone(() -> {
            try (Arena arena = Arena.ofConfined()) {
                Map<String, Tensor> inputs = Map.of("image", input(arena, image));
                return read.apply(
                    bundle().graph(graph).run(arena, cancellation, inputs, outputs.toArray(new String[0])));
            }
        });
    }

    private List<Picture> pictures(Tensor images, int n) {
        byte[] all = images.checked(Tensor.UINT8, n, info.height(), info.width(), 3).data().toArray(JAVA_BYTE);
        int size = all.length / n;
        return IntStream.range(0, n).mapToObj(i ->
            new Picture(info.width(), info.height(), Arrays.copyOfRange(all, i * size, (i + 1) * size))).toList();
    }

    private void checkTokens(String what, int[] tokens, int least, int most) {
        boolean good = Arrays.stream(tokens).allMatch(token -> token >= 0 && token < info.nClusters());
        if (!good || tokens.length < least || tokens.length > most) {
            throw new IgptException(OPTION, what + " is " + (least == most ? "" : "at most ") + most + " tokens 0 .. "
                + (info.nClusters() - 1) + ", got " + tokens.length + (good ? "" : " with others"));
        }
    }

    private Tensor input(Arena arena, Picture image) {
        Tensor tensor = bundle().ort.zeros(arena, Tensor.UINT8, image.height(), image.width(), 3);
        tensor.data().copyFrom(MemorySegment.ofArray(image.rgb()));
        return tensor;
    }
}
