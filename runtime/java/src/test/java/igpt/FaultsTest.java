package igpt;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import igpt.IgptException.Kind;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What goes wrong, and what it is called. */
class FaultsTest {
    private static final Picture PICTURE = Places.noise(9, 9);

    @Test
    void noLibrary(@TempDir Path directory) {
        ModelOptions none = new ModelOptions().runtimeLibrary(directory.resolve("none.so"));
        Places.fails(Kind.RUNTIME, "IGPT_ORT_LIBRARY", () -> Model.open(Places.BUNDLE, none));
    }

    @Test
    void anotherOrAnOldLibrary(@TempDir Path directory) throws IOException, InterruptedException {
        Path other = compiled(directory, "other", "int other(void) { return 1; }");
        ModelOptions options = new ModelOptions().runtimeLibrary(other);
        Places.fails(Kind.RUNTIME, "is not ONNX Runtime", () -> Model.open(Places.BUNDLE, options));
        for (String version : List.of("1.17.3", "0.9", "?")) {
            Path old = compiled(directory, "old" + version.length(), "static const void *api(unsigned v) { return 0; }"
                + "static const char *version(void) { return \"" + version + "\"; }"
                + "static const void *base[2] = {(const void *)api, (const void *)version};"
                + "const void *OrtGetApiBase(void) { return base; }");
            Places.fails(Kind.RUNTIME, version.equals("?") ? "cannot load" : "too old",
                () -> Model.open(Places.BUNDLE, new ModelOptions().runtimeLibrary(old)));
        }
    }

    @Test
    void aBundleForANewerLibrary() {
        Map<String, MemorySegment> files = Places.files();
        byte[] graph = changed(files, "score.onnx", "onnxruntime_minimum", "9999.0");
        files.put("score.onnx", MemorySegment.ofArray(graph));
        Map<String, MemorySegment> two = new HashMap<>(files);
        two.keySet().retainAll(List.of("score.onnx", "weights.safetensors"));
        Places.fails(Kind.RUNTIME, "needs ONNX Runtime 9999.0 or newer", () -> Model.open(two, Places.options()));
    }

    @Test
    void noCuda() {
        ModelOptions options = Places.options().provider(ModelOptions.Provider.CUDA);
        try (Model model = Model.open(Places.BUNDLE, options)) {
            Assumptions.abort("this library runs CUDA");
        } catch (IgptException error) {
            assertEquals(Kind.RUNTIME, error.kind());
            assertTrue(error.getMessage().contains("does not start CUDA"), error.getMessage());
        }
    }

    @Test
    void noBundle(@TempDir Path directory) throws IOException {
        Places.fails(Kind.BUNDLE, "missing", () -> Model.open(directory.resolve("none"), Places.options()));
        Places.fails(Kind.BUNDLE, "no graph of a bundle", () -> Model.open(directory, Places.options()));
        Places.fails(Kind.BUNDLE, "no graph of a bundle", () -> Model.open(Map.of(), Places.options()));
        for (String text : List.of("", "This is a text.", "\u0001\u0002\u0003", "version https://git-lfs")) {
            Path file = Files.writeString(directory.resolve("complete.onnx"), text);
            Places.fails(Kind.BUNDLE, "complete.onnx", () -> Model.open(file, Places.options()));
            Places.fails(Kind.BUNDLE, "complete.onnx", () -> Model.open(directory, Places.options()));
        }
    }

    @Test
    void anotherFormat() {
        Map<String, MemorySegment> files = Places.files();
        Map.of("format_version", "99", "sampling_version", "2", "height", "9", "n_layer", "-1", "labels", "x",
            "temperature", "NaN", "top_p", "2").forEach((key, value) -> {
                byte[] graph = changed(files, "postprocess.onnx", key, value);
                Places.fails(Kind.BUNDLE, "postprocess.onnx",
                    () -> Model.open(Map.of("postprocess.onnx", MemorySegment.ofArray(graph)), Places.options()));
            });
    }

    @Test
    void missingWeights(@TempDir Path directory) throws IOException {
        Places.copy(directory.resolve("bundle"));
        Files.delete(directory.resolve("bundle/weights.safetensors"));
        try (Model model = Model.open(directory.resolve("bundle"), Places.options())) {
            Places.fails(Kind.BUNDLE, "weights.safetensors", () -> model.score(PICTURE));
            assertEquals(64, model.tokens(PICTURE).length); // which needs none
        }
        Map<String, MemorySegment> files = Places.files();
        files.remove("weights.safetensors");
        try (Model model = Model.open(files, Places.options())) {
            Places.fails(Kind.BUNDLE, "weights.safetensors", () -> model.sample(new SamplingOptions()).tokens());
        }
    }

    @Test
    void alteredWeights(@TempDir Path directory) throws IOException {
        Path bundle = Places.copy(directory.resolve("bundle")), file = bundle.resolve("weights.safetensors");
        byte[] weights = Files.readAllBytes(file);
        weights[weights.length - 1] ^= 1;
        Files.write(file, weights);
        try (Model model = Model.open(bundle, Places.options())) {
            Places.fails(Kind.BUNDLE, "altered", () -> model.score(PICTURE));
        }
        Map<String, MemorySegment> files = Places.files();
        files.put("weights.safetensors", MemorySegment.ofArray(weights));
        try (Model model = Model.open(files, Places.options())) {
            Places.fails(Kind.BUNDLE, "altered", () -> model.classify(PICTURE));
        }
        Files.write(file, Arrays.copyOf(weights, 100));
        try (Model model = Model.open(bundle, Places.options())) {
            Places.fails(Kind.BUNDLE, "score.onnx", () -> model.score(PICTURE));
        }
    }

    @Test
    void links(@TempDir Path directory) throws IOException {
        Path bundle = Places.copy(directory.resolve("bundle"));
        Path weights = bundle.resolve("weights.safetensors"), graph = bundle.resolve("score.onnx");
        Files.delete(weights);
        Files.createSymbolicLink(weights, Places.BUNDLE.resolve("weights.safetensors"));
        Places.fails(Kind.BUNDLE, "link out of the bundle", () -> Model.open(bundle, Places.options()));
        Files.delete(weights);
        Files.copy(Places.BUNDLE.resolve("weights.safetensors"), weights);
        try (Model model = Model.open(bundle, Places.options())) {
            Files.delete(graph);
            Files.createSymbolicLink(graph, graph); // in a circle
            Places.fails(Kind.BUNDLE, "link out of the bundle", () -> model.score(PICTURE));
            Files.delete(graph);
            Files.createDirectory(graph);
            Places.fails(Kind.BUNDLE, "not a regular file", () -> model.score(PICTURE));
        }
    }

    @Test
    void aGraphOfAnotherBundle(@TempDir Path directory) throws IOException {
        Path bundle = Places.copy(directory.resolve("bundle"));
        Files.copy(Places.DIGITS.resolve("preprocess.onnx"), bundle.resolve("preprocess.onnx"),
            StandardCopyOption.REPLACE_EXISTING);
        Files.copy(bundle.resolve("score.onnx"), bundle.resolve("classify.onnx"), StandardCopyOption.REPLACE_EXISTING);
        try (Model model = Model.open(bundle, Places.options())) {
            Places.fails(Kind.BUNDLE, "another bundle", () -> model.classify(PICTURE));
            Places.fails(Kind.BUNDLE, "another bundle", () -> model.tokens(PICTURE));
        }
    }

    @Test
    void damagedGraphs() {
        Map<String, MemorySegment> files = Places.files();
        byte[] graph = files.get("score.onnx").toArray(java.lang.foreign.ValueLayout.JAVA_BYTE);
        for (int length = 0; length < graph.length; length += 997) {
            files.put("score.onnx", MemorySegment.ofArray(Arrays.copyOf(graph, length)));
            try (Model model = Model.open(files, Places.options())) {
                Places.fails(Kind.BUNDLE, "score.onnx", () -> model.score(PICTURE));
            }
        }
    }

    @Test
    void pictures() {
        Places.fails(Kind.IMAGE, "got 0 x 1", () -> new Picture(0, 1, new byte[0]));
        Places.fails(Kind.IMAGE, "got 1 x -1", () -> new Picture(1, -1, new byte[3]));
        Places.fails(Kind.IMAGE, "12 bytes in RGB or 16 in RGBA, got 11", () -> new Picture(2, 2, new byte[11]));
        Places.fails(Kind.IMAGE, "got none", () -> new Picture(2, 2, null));
        Places.fails(Kind.IMAGE, "on a side", () -> new Picture(1 << 16, 1, new byte[3 << 16]));
        Places.fails(Kind.IMAGE, "at most 89478485", () -> new Picture(1 << 15, 1 << 15, new byte[0]));
    }

    @Test
    void options() {
        SamplingOptions options = new SamplingOptions();
        Places.fails(Kind.OPTION, "threads must be", () -> new ModelOptions().threads(1025));
        for (int n : new int[] {0, -3, 65537, Integer.MIN_VALUE}) {
            Places.fails(Kind.OPTION, "n must be 1 .. 65536, got " + n, () -> options.n(n));
        }
        for (double bad : new double[] {Double.NaN, -1, Double.POSITIVE_INFINITY}) {
            Places.fails(Kind.OPTION, "temperature must be", () -> options.temperature(bad));
        }
        for (double bad : new double[] {Double.NaN, 0, -0.5, 1.5}) {
            Places.fails(Kind.OPTION, "topP must be", () -> options.topP(bad));
        }
        Places.fails(Kind.OPTION, "topK must be at least 0", () -> options.topK(-1));
        Places.fails(Kind.OPTION, "threads must be", () -> new ModelOptions().threads(-1));
        try (Model model = Model.open(Places.BUNDLE, Places.options())) {
            for (int rows : new int[] {-1, 8, 99}) {
                String text = "keepRows must be 0 .. 7, got " + rows;
                SamplingOptions kept = new SamplingOptions().keepRows(rows);
                Places.fails(Kind.OPTION, text, () -> model.complete(PICTURE, kept));
                Places.fails(Kind.OPTION, text, () -> model.completeOnce(PICTURE, kept));
            }
            Places.fails(Kind.OPTION, "at most 64 tokens", () -> model.generate(new int[65], options));
            Places.fails(Kind.OPTION, "0 .. 15", () -> model.generate(new int[] {16}, options));
            Places.fails(Kind.OPTION, "0 .. 15", () -> model.generate(new int[] {-1}, options));
            Places.fails(Kind.OPTION, "64 tokens", () -> model.images(new int[][] {new int[63]}));
            assertEquals(List.of(), model.images(new int[0][]));
            // What float32 cannot hold becomes the nearest that it can.
            SamplingOptions extremes = new SamplingOptions().n(1).temperature(1e300).topK(Long.MAX_VALUE).topP(1e-300);
            assertEquals(64, model.sample(extremes).tokens()[0].length);
        }
    }

    @Test
    void tooLittleMemory() {
        try (Model model = Model.open(Places.BUNDLE, Places.options()); Arena arena = Arena.ofShared()) {
            Ort ort = model.bundle().ort;
            Places.fails(Kind.MEMORY, "GB of memory", () -> ort.zeros(arena, Tensor.FLOAT, 1L << 30, 1L << 30));
            Places.fails(Kind.MEMORY, "of memory", () -> ort.zeros(arena, Tensor.FLOAT, 1L << 40, 1L << 40));
        }
    }

    /** A graph of the tiny bundle whose metadata have another text: the last of two entries counts. */
    private static byte[] changed(Map<String, MemorySegment> files, String file, String key, String value) {
        byte[] graph = files.get(file).toArray(java.lang.foreign.ValueLayout.JAVA_BYTE);
        byte[] name = ("igpt." + key).getBytes(StandardCharsets.UTF_8), text = value.getBytes(StandardCharsets.UTF_8);
        byte[] changed = Arrays.copyOf(graph, graph.length + name.length + text.length + 6);
        int at = graph.length;
        changed[at++] = 14 << 3 | 2;
        changed[at++] = (byte) (name.length + text.length + 4);
        changed[at++] = 1 << 3 | 2;
        changed[at++] = (byte) name.length;
        System.arraycopy(name, 0, changed, at, name.length);
        at += name.length;
        changed[at++] = 2 << 3 | 2;
        changed[at++] = (byte) text.length;
        System.arraycopy(text, 0, changed, at, text.length);
        return changed;
    }

    private static Path compiled(Path directory, String name, String source) throws IOException, InterruptedException {
        Path code = Files.writeString(directory.resolve(name + ".c"), source);
        Path library = directory.resolve(name + ".so");
        try {
            Process process = new ProcessBuilder("cc", "-shared", "-fPIC", "-w", "-o", library.toString(),
                code.toString()).redirectErrorStream(true).start();
            process.getInputStream().readAllBytes();
            Assumptions.assumeTrue(process.waitFor() == 0, "the C compiler makes no library");
        } catch (IOException error) {
            Assumptions.abort("there is no C compiler");
        }
        return library;
    }
}
