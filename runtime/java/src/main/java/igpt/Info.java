package igpt;

import static igpt.IgptException.Kind.*;

import java.util.*;
import java.util.stream.*;

/**
 * What a bundle says of itself.
 *
 * @param name of the model
 * @param height of its pictures, in pixels
 * @param width of its pictures, in pixels
 * @param nPositions tokens of a picture: height x width
 * @param nLayer blocks
 * @param nHead heads of attention in each block
 * @param headDim channels of a head; n_embd is nHead x headDim
 * @param nClusters tokens there are, the colours: 0 .. nClusters - 1
 * @param precision {@code fp32}, {@code int8}, {@code int4} or {@code fp16}
 * @param kvCache precision of the cache: {@code fp32}, {@code int8} or {@code fp16}
 * @param labels of the classifier; empty without one
 * @param functionToApply {@code softmax}, {@code sigmoid}, or {@code none} of a regression; empty without a classifier
 * @param temperature that the bundle recommends
 * @param topK that the bundle recommends; 0 is off
 * @param topP that the bundle recommends; 1 is off
 * @param onnxruntimeMinimum the oldest release of ONNX Runtime that computes it right, such as "1.28"; empty if unknown
 */
public record Info(String name, int height, int width, int nPositions, int nLayer, int nHead, int headDim,
        int nClusters, String precision, String kvCache, List<String> labels, String functionToApply,
        double temperature, long topK, double topP, String onnxruntimeMinimum) {
    private static final String FORMAT_VERSION = "7", SAMPLING_VERSION = "1";
    private static final int MOST = 1 << 20; // of any number: far above any model
    private static final Map<String, Integer> CACHE_TYPES =
        Map.of("fp32", Tensor.FLOAT, "int8", Tensor.INT8, "fp16", Tensor.FLOAT16);

    static Info of(Graph graph) {
        String format = graph.text("format_version");
        if (!FORMAT_VERSION.equals(format) || !SAMPLING_VERSION.equals(graph.text("sampling_version"))) {
            throw new IgptException(BUNDLE, graph.place() + " is of "
                + (format == null ? "no bundle, or of one before format " + FORMAT_VERSION : "format " + format)
                + ", and igpt reads " + FORMAT_VERSION + "; export it again, or take the igpt of its version");
        }
        try {
            int labels = graph.text("labels") == null ? 0 : number(graph, "labels");
            Info info = new Info(Objects.requireNonNull(graph.text("name")), number(graph, "height"),
                number(graph, "width"), number(graph, "n_positions"), number(graph, "n_layer"), number(graph, "n_head"),
                number(graph, "head_dim"), number(graph, "sos"), Objects.requireNonNull(graph.text("precision")),
                Objects.requireNonNull(graph.text("kv_cache")),
                IntStream.range(0, labels).mapToObj(i -> Objects.requireNonNull(graph.text("label." + i))).toList(),
                Objects.requireNonNullElse(graph.text("function_to_apply"), ""),
                Double.parseDouble(graph.text("temperature")), Long.parseLong(graph.text("top_k")),
                Double.parseDouble(graph.text("top_p")),
                Objects.requireNonNullElse(graph.text("onnxruntime_minimum"), ""));
            new SamplingOptions().temperature(info.temperature).topK(info.topK).topP(info.topP);
            if ((long) info.height * info.width != info.nPositions || !CACHE_TYPES.containsKey(info.kvCache)) {
                throw new IllegalArgumentException("its numbers contradict each other");
            }
            return info;
        } catch (IllegalArgumentException | NullPointerException | IgptException error) {
            throw new IgptException(BUNDLE,
                graph.place() + " has bad metadata (" + error.getMessage() + "); export the bundle again", error);
        }
    }

    /** Whether activations or slots are rounded to int8, by each of the decode graphs in its own way. */
    boolean rounds() {
        return precision.equals("int8") || precision.equals("fp32") && kvCache.equals("int8");
    }

    /** ONNX's number of the type of the cache. */
    int cacheType() {
        return CACHE_TYPES.get(kvCache);
    }

    private static int number(Graph graph, String key) {
        int found = Integer.parseInt(graph.text(key));
        if (found < 1 || found > MOST) {
            throw new IllegalArgumentException(key + " is " + found);
        }
        return found;
    }
}
